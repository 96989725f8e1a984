"""Options of the commands beside `simulate`: help in 80 columns, an example first."""

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from textwrap import fill
from typing import Any, NoReturn

from .nearest import nearest

WIDTH = 80


class Parser(argparse.ArgumentParser):
    """Shows an example before anything else; a mistake is one line on stderr and exit status 2.

    Parameters
    ----------
    command : str
        As in ``fl-backdoor COMMAND``.
    doc : str
        What it does, in paragraphs: the docstring of its module.
    example : str
        Arguments that work.
    """

    def __init__(self, command: str, doc: str | None, example: str) -> None:
        prog = f"fl-backdoor {command}"
        if not sys.argv[0].startswith("fl-backdoor"):
            prog = f"python -m fl_backdoor.{command}"
        text = re.sub(": ``python -m .*``", "", doc or "")  # the example says it
        super().__init__(
            prog=prog,
            description="\n\n".join(fill(part, WIDTH) for part in text.split("\n\n")),
            formatter_class=partial(
                argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=24
            ),
        )
        self.example = f"{prog} {example}"

    def format_help(self) -> str:
        """Return the help."""
        return f"Example\n  {self.example}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        print(f"error: {message} ({self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices: Sequence[str] = list(action.choices or ())
        if choices and value not in choices:
            allowed = f"{', '.join(choices)}{nearest(str(value), choices)}"
            raise argparse.ArgumentError(action, f"{value}: allowed are {allowed}")
