"""Run an experiment: ``python -m fl_backdoor.simulate +experiment=sniper_goal1``."""

import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .compare import show
from .config import Config, check_groups, conf_directory, load, one_line
from .errors import UserError
from .experiment import run
from .report import Display, Screen, show_warnings
from .results import CONFIG, ERROR
from .vertical.config import VerticalConfig
from .vertical.experiment import run as run_vertical
from .vertical.report import VerticalDisplay


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def simulate(config: DictConfig) -> None:
    """Run the experiment that Hydra composed."""
    console = Screen()
    show_warnings(console)
    torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
    settings = HydraConfig.get()
    sweep, path = settings.mode == RunMode.MULTIRUN, Path(settings.runtime.output_dir)
    prefix = f"[{settings.job.num}] " if sweep else ""
    try:
        loaded = load(config)
        if isinstance(loaded, VerticalConfig):
            run_vertical(loaded, path, VerticalDisplay(console, prefix))
        elif isinstance(loaded, Config):
            run(loaded, path, Display(console, prefix))
    except (UserError, OSError) as error:
        if not sweep:  # raised through Hydra, it would get a second line of Hydra's own
            _fail(error)
        # The other runs of the sweep go on; `EndOfSweep` makes the whole of it fail.
        print(f"{prefix}error: {one_line(error)}", file=sys.stderr)
        with suppress(OSError):
            (path / ERROR).write_text(one_line(error) + "\n")
    except KeyboardInterrupt:  # Hydra forgets its settings on the way out
        if sweep:
            how = f"the sweep goes on with hydra.sweep.dir={settings.sweep.dir} resume=true"
        elif (path / CONFIG).exists():
            how = f"go on from the last round with --resume {path}"
        else:
            how = "no round was done"
        raise KeyboardInterrupt(f"interrupted; {how}") from None
    except Exception:  # a fault of the suite: show it whole
        traceback.print_exc()
        raise SystemExit(1) from None


def main() -> None:
    """Run from the command line; bad input is one line on stderr and exit status 2."""
    # Let errors of the configuration come out of Hydra, instead of a page from it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # what it raises says it all
    try:
        sys.argv = [sys.argv[0], *_resumed(sys.argv[1:])]
        check_groups(sys.argv[1:])
        simulate()
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        _fail(error)
    except KeyboardInterrupt as interrupt:
        print(interrupt if interrupt.args else "interrupted", file=sys.stderr)
        # Flower's server thread still waits for replies: nothing is left to save.
        sys.stderr.flush()
        os._exit(130)


class EndOfSweep(Callback):
    """Ends a sweep with its comparison, and with an error if a run of it ended early."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Compare the runs."""
        folder = Path(config.hydra.sweep.dir)
        with suppress(UserError):  # no run has ended: what they said stands above
            show([folder], Screen())
        early = sorted(folder.rglob(ERROR))
        if early:
            _fail(UserError(f"{len(early)} runs ended early: {' '.join(map(str, early))}"))


def _resumed(arguments: list[str]) -> list[str]:
    """Replace ``--resume DIR`` by what that run was started with.

    Raises
    ------
    UserError
        If no run has begun in the folder.
    """
    arguments = [
        part for a in arguments for part in (a.split("=", 1) if a.startswith("--resume=") else [a])
    ]
    if "--resume" not in arguments:
        return arguments
    place = arguments.index("--resume")
    if place + 1 == len(arguments):
        raise UserError("--resume: give the directory of the run to continue")
    directory = Path(arguments[place + 1])
    overrides = directory / ".hydra" / "overrides.yaml"
    # Hydra does not write at one go: its file is whole if what the run wrote after it is there.
    if not overrides.is_file() or not (directory / CONFIG).is_file():
        raise UserError(f"--resume {directory}: no run has begun there; start it without --resume")
    stored = [str(o) for o in OmegaConf.load(overrides) if not str(o).startswith("resume=")]
    rest = arguments[:place] + arguments[place + 2 :]
    settings = {
        "hydra.run.dir": f"'{directory}'",
        "hydra.mode": "RUN",  # an experiment may be a sweep, of which this is one run
        "hydra.output_subdir": "null",  # a kill while Hydra rewrote its files would lose them
        "resume": "true",
    }
    return [*stored, *(f"{key}={value}" for key, value in settings.items()), *rest]


def _fail(error: BaseException) -> NoReturn:
    print(f"error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
