"""Poisoning and backdoor attacks on federated learning, and defenses, on Flower."""

import os
import sys

from .interrupt import handle_interrupts

handle_interrupts()  # from the first import that takes time

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from .folders import Folders, look_here_last  # noqa: E402

if TYPE_CHECKING:
    from .api import compare_runs, load_results, run, run_sweep, write_report

# Flower reads it on import; an experiment on attacks has no business in anybody's statistics.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

sys.meta_path.insert(0, Folders())
look_here_last()

__version__ = "0.1.0"
__all__ = ["compare_runs", "load_results", "run", "run_sweep", "write_report"]


def __getattr__(name: str) -> Any:
    """Import the functions of `fl_backdoor.api` when they are asked for: that takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".api", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
