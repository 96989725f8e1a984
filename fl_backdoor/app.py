"""The suite as a Flower app: ``flwr run . --run-config 'experiment="sniper_goal1"'``.

Server and clients compose the same configuration, each from its own copy of the app.
"""

import logging
import shlex
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .compose import check_keys, new_directory, setting
from .config import one_line
from .errors import UserError
from .federation.engines import error_reply
from .federation.grids import PromptGrid
from .federation.horizontal import make_client_app
from .federation.vertical import make_party_app
from .schema import CommonConfig, Config, VerticalConfig


class ExperimentApp(ClientApp):
    """Answers as the ClientApp of the experiment that the run config names."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message; bad input is an error reply of one line."""
        try:
            return _client_app(*_named(context.run_config))(message, context)
        except (UserError, OSError) as error:
            return error_reply(message, one_line(error))


client_app = ExperimentApp()
server_app = ServerApp()


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names.

    Raises
    ------
    UserError
        On bad input; it fails the run.
    """
    # Drawing and measuring, which clients need not wait for.
    from .loop.display import Display
    from .loop.loop import run
    from .screen import Screen

    logging.getLogger("flwr").addFilter(_in_one_line)
    torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
    grid = PromptGrid(grid)
    console = Screen()
    try:
        config = compose_config(*_named(context.run_config))
        path = run_directory(str(context.run_config["output"]), config.name)
        config.engine.kind = "flower"  # this federation, whatever the configuration has
        run(config, path, Display(console), grid)
    except OSError as error:
        raise UserError(one_line(error)) from error


def compose_config(experiment: str, overrides: str) -> CommonConfig:
    """Compose what ``fl_backdoor.simulate +experiment=EXPERIMENT OVERRIDES`` composes.

    Raises
    ------
    UserError
        Naming what does not exist or is out of range; for a sweep, what it leaves open.
    """
    try:
        parts = shlex.split(overrides)
    except ValueError as error:
        raise UserError(f"overrides={overrides}: {one_line(error)}") from error
    check_keys(parts)
    return setting(
        experiment,
        parts,
        "and a Flower app runs one setting of it; choose one of each in overrides",
    )


def run_directory(output: str, name: str) -> Path:
    """Return where results go: `output`, or a new folder in ``outputs``.

    Both are relative to where the process was started, which is where the SuperLink was.
    """
    return Path(output or new_directory("outputs", name)).resolve()


def _named(run_config: UserConfig) -> tuple[str, str]:
    return str(run_config["experiment"]), str(run_config["overrides"])


@lru_cache(maxsize=1)
def _client_app(experiment: str, overrides: str) -> ClientApp:
    config = compose_config(experiment, overrides)
    if isinstance(config, VerticalConfig):
        return make_party_app(config)
    assert isinstance(config, Config)
    return make_client_app(config)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Take the traceback off a `UserError` that Flower logs."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError):
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {error}", (), None
    return True
