"""How a sweep ends, and what an interrupted one goes on with."""

import sys
import traceback
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .errors import UserError
from .files import CONFIG, ERROR, SUMMARY
from .screen import Screen, counted


class Sweep(Callback):
    """Ends a sweep with its comparison, and with an error if a run of it ended early.

    Attributes
    ----------
    directory : str or None
        The folder of the sweep that this process runs.
    """

    directory: ClassVar[str | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Keep where the runs go."""
        Sweep.directory = str(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Compare the runs."""
        folder = Path(config.hydra.sweep.dir)
        failed = False
        ends = (path.with_name(end) for path in folder.rglob(CONFIG) for end in (SUMMARY, ERROR))
        if any(end.exists() for end in ends):
            from .compare import show  # which needs what --help does not

            try:
                show([folder], Screen())
            except (UserError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                failed = True
            except Exception:  # Hydra would make a warning of it
                traceback.print_exc()
                failed = True
        early = sorted(folder.rglob(ERROR))
        if early:
            print(
                f"error: {counted(len(early), 'run')} ended early: {' '.join(map(str, early))}",
                file=sys.stderr,
            )
        if early or failed:
            raise SystemExit(2)
