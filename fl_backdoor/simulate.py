"""Run an experiment: ``python -m fl_backdoor.simulate +experiment=sniper_goal1``."""

import json
import logging
import os
import re
import shlex
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from .compose import quoted
from .config import check_groups, conf_directory, fail, load, one_line
from .errors import UserError
from .files import COMMAND, CONFIG, ERROR, TWIN, Summary, keep_command
from .help import help_text
from .interrupt import interruptible
from .schema import CommonConfig
from .screen import Screen, show_warnings
from .sweep import Sweep

OBJECTIVES = ("main_accuracy", "attack_success_rate")


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def simulate(config: DictConfig) -> tuple[float, ...] | None:
    """Run the experiment that Hydra composed.

    Returns
    -------
    tuple of float
        Main accuracy and attack success rate, 0 to 1, for sweepers that optimize; 0 where there
        is none, as at chance. None if an error ended a run of a sweep.
    """
    console = Screen()
    show_warnings(console)
    settings = HydraConfig.get()
    sweep, path = settings.mode == RunMode.MULTIRUN, Path(settings.runtime.output_dir)
    prefix = f"[{settings.job.num}] " if sweep else ""
    try:
        loaded = load(config)
        keep_command(path, _arguments())  # Hydra would write it anew at every start
        summary = _run(loaded, path, console, prefix)
        return tuple(summary.get(name) or 0.0 for name in OBJECTIVES)
    except KeyboardInterrupt:  # Hydra forgets its settings on the way out
        if sweep or not (path / CONFIG).exists():
            raise
        raise KeyboardInterrupt(_command("--resume", str(path))) from None
    except Exception as error:
        expected = isinstance(error, UserError | OSError)
        if not expected:  # a fault of the suite: show it whole
            traceback.print_exc()
        if not sweep:  # raised through Hydra, it would get a second line of Hydra's own
            if expected:
                fail(error)
            raise SystemExit(1) from None
        # The other runs of the sweep go on; `Sweep` makes the whole of it fail.
        print(f"{prefix}error: {one_line(error)}", file=sys.stderr)
        with suppress(OSError):
            (path / ERROR).write_text(one_line(error) + "\n")
        return None


def _run(config: CommonConfig, path: Path, console: Screen, prefix: str) -> Summary:
    # Seconds of imports, which neither --help nor a slip in the command should wait for.
    import torch

    from .loop.display import Display, LastDisplay
    from .loop.loop import run
    from .loop.machine import forget

    torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
    if prefix:  # of a sweep, of which this process may have run others
        forget()
    last = config.engine.kind == "ray" and not prefix  # of a sweep, other runs follow
    return run(config, path, (LastDisplay if last else Display)(console, prefix))


def main() -> None:
    """Run from the command line; bad input is one line on stderr and exit status 2."""
    # Let errors of the configuration come out of Hydra, instead of a page from it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # what it raises says it all
    arguments = sys.argv[1:]
    try:
        sys.argv[1:] = _flags_first(_resumed(arguments))
        check_groups(sys.argv[1:])
        flags = {part for part in sys.argv[1:] if part.startswith("-")}
        if flags & {"--help", "-h"}:
            print(help_text([part for part in sys.argv[1:] if part not in flags], *_commands()))
        else:
            with interruptible():
                simulate()
    except BrokenPipeError:  # --help | head
        Screen().on_broken_pipe()
        raise SystemExit(1) from None
    except (UserError, HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt as interrupt:
        how = ""
        if interrupt.args:
            how = f"; go on from the last round with {interrupt}"
        elif Sweep.directory is not None:
            again = (f"hydra.sweep.dir={quoted(Sweep.directory)}", "resume=true")
            how = f"; the sweep goes on with {_command(*arguments, *again)}"
        print(f"interrupted{how}", file=sys.stderr)
        # Nothing is left to save, and what libraries do at exit takes seconds.
        sys.stderr.flush()
        os._exit(130)


def _arguments() -> list[str]:
    """Return the arguments that the run is started with, of a sweep its own."""
    settings = HydraConfig.get()
    sources = [s.path for s in settings.runtime.config_sources if s.provider == "command-line"]
    return [
        *(part for source in sources for part in ("--config-dir", source)),
        *settings.overrides.task,
    ]


def _flags_first(arguments: list[str]) -> list[str]:
    """Move key=value behind flags and what these take: argparse knows one row of them only."""
    return sorted(arguments, key=lambda part: re.match(r"[+~]|[\w.@/]+=", part) is not None)


def _resumed(arguments: list[str]) -> list[str]:
    """Replace ``--resume DIR`` by what that run was started with, where it was started.

    Raises
    ------
    UserError
        If no run has begun in the folder, or the other arguments are no keys of experiments.
    """
    arguments = [
        part for a in arguments for part in (a.split("=", 1) if a.startswith("--resume=") else [a])
    ]
    if "--resume" not in arguments:
        return arguments
    place = arguments.index("--resume")
    if place + 1 == len(arguments):
        raise UserError("--resume: give the directory of the run to continue")
    directory = Path(arguments[place + 1]).absolute()
    rest = arguments[:place] + arguments[place + 2 :]
    for part in rest:
        if part.startswith("-") or part.lstrip("+~").startswith("hydra"):
            raise UserError(f"--resume {directory} {part}: allowed beside it are key=value")
    command = directory / COMMAND
    if not (command.is_file() and (directory / CONFIG).is_file()):
        raise UserError(f"--resume {directory}: {_unresumable(directory)}")
    try:
        began = json.loads(command.read_bytes())
        stored = [str(part) for part in began["arguments"]]
        with suppress(OSError):  # it is gone
            os.chdir(began["directory"])  # paths of data may be relative
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{command}: cannot be used ({one_line(error)})") from error
    settings = {
        "hydra.run.dir": quoted(str(directory)),
        "hydra.mode": "RUN",  # an experiment may be a sweep, of which this is one run
        "resume": "true",
    }
    stored = [part for part in stored if not part.startswith("resume=")]
    return [*stored, *(f"{key}={value}" for key, value in settings.items()), *rest]


def _unresumable(directory: Path) -> str:
    if (directory / "multirun.yaml").exists():
        return "a sweep, which goes on with its command, its hydra.sweep.dir and resume=true"
    if directory.name == TWIN and (directory.parent / CONFIG).exists():
        return f"the clean twin of a run; --resume {directory.parent} continues both"
    if (directory / CONFIG).exists():
        return f"not begun by this command (no {COMMAND})"
    return "no run has begun there; start it without --resume"


def _command(*arguments: str) -> str:
    return f"{_commands()[0]} {shlex.join(arguments)}"


def _commands() -> tuple[str, str]:
    """Return how a run and a sweep are started: as this process was."""
    if sys.argv[0].startswith("fl-backdoor"):
        return "fl-backdoor simulate", "fl-backdoor sweep"
    return "python -m fl_backdoor.simulate", "python -m fl_backdoor.simulate -m"


if __name__ == "__main__":
    main()
