"""`strategies` and `clients` under ``fl_backdoor`` too, for apps that have folders of those names.

``from fl_backdoor.strategies import Sniper`` gives what ``from strategies import Sniper`` gives:
the very same modules. Where an app's own `strategies` stands in the way of that import, ours are
loaded under the longer name. Commands of the suite (``python -m fl_backdoor.simulate``), which
Python lets look into the current folder first, look there last if it has folders of those names.
"""

import os
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .interrupt import run_as_module

HOME = Path(__file__).resolve().parents[1]
NAMES = ("strategies", "clients")
WORKER = "FL_BACKDOOR_WORKER"
"""Stands in the environment of the suite's workers on Ray, which look into their folder first."""


class Alias(Loader):
    """Loads a module as the one of its own name."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the shorter name in the place of an empty one."""
        sys.modules[module.__name__] = import_module(_short(module.__name__))


class Folders(MetaPathFinder):
    """Finds the modules of both folders below this package."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Return how to load one of them; None: it is none, or it is found as any other."""
        top, *rest = _short(name).split(".")
        if not name.startswith("fl_backdoor.") or top not in NAMES:
            return None
        file = HOME / top / "__init__.py"
        found = find_spec(top)
        if found is not None and found.origin and Path(found.origin).resolve() == file:
            return ModuleSpec(name, Alias())
        return None if rest else spec_from_file_location(name, file)


def look_here_last() -> None:
    """Let a command find the suite's folders where the current one has such folders of its own."""
    if not run_as_module() and WORKER not in os.environ:
        return
    here = Path.cwd()
    if here != HOME and any((here / name).exists() for name in NAMES):
        sys.path[:] = [path for path in sys.path if Path(path).resolve() != here] + [str(here)]


def _short(name: str) -> str:
    return name.removeprefix("fl_backdoor.")
