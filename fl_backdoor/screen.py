"""Standard output, and how things are named there."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

WIDE = 1000
"""Columns where there is no terminal: tables take as many of them as they need."""


class Screen(Console):
    """Standard output, for whatever is there to read it.

    Names are printed as they are, not as markup; characters that the encoding lacks are escaped; a
    table is not narrower than what it holds unless the terminal is; and when the reader has gone
    (``| head``) the work goes on without it.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        # In a notebook, which passes for a terminal with colors, lines are text: one output grows.
        super().__init__(
            markup=False, emoji=False, force_jupyter=False, force_terminal=sys.stdout.isatty()
        )
        if not self.is_terminal:
            self.width = WIDE

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Lines(logging.Handler):
    """Warnings as lines, however wide the screen is."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line, which the terminal wraps."""
        text = f"{record.levelname}  {record.getMessage()}"
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_warnings(console: Console) -> None:
    """Show the warnings of this suite, and silence what its libraries say of themselves."""
    import flwr.supercore  # noqa: F401  (sets a handler of its own as it is imported)

    ours = Path(__file__).resolve().parents[1]
    folders = tuple(str(ours / name) for name in ("fl_backdoor", "strategies", "clients"))
    handler = _Lines(console)
    handler.addFilter(lambda record: record.pathname.startswith(folders))
    logger = logging.getLogger("flwr")
    logger.handlers = [handler]
    logger.propagate = False


@contextmanager
def warnings_shown(console: Console) -> Iterator[None]:
    """Show warnings as `show_warnings` does, for a while: the logger is given back as it was."""
    import flwr.supercore  # noqa: F401  (before its handler is noted)

    logger = logging.getLogger("flwr")
    handlers, propagate = logger.handlers[:], logger.propagate
    show_warnings(console)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate


def counted(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def in_words(minutes: float) -> str:
    """Write a time as people say it."""
    if minutes < 1.5:
        return f"{round(60 * minutes)} s"
    return f"{round(minutes)} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def class_name(node: dict[str, Any]) -> str:
    """Name what a config node builds, and what that wraps."""
    name = str(node["_target_"]).rpartition(".")[2]
    inner = node.get("strategy")
    return f"{name}({class_name(inner)})" if inner else name
