"""Run a benchmark and write what it prints into ``docs/benchmarks.md``, under its command.

Of several blocks of a benchmark it is that of the same command, or else the first.

python -m benchmarks.write rules [--clients 100 ...]
"""

import io
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def block(command: str, page: str) -> re.Match[str]:
    """Find what a page holds of a command, or of its benchmark: it, and what it printed.

    Raises
    ------
    ValueError
        If it has no place for it.
    """
    name = command.split()[0]
    for begin in (rf"{re.escape(command)}(?=\n)", rf"{name}\b"):
        found = re.search(rf"```text\n\$ python -m benchmarks\.{begin}.*?\n```", page, re.DOTALL)
        if found is not None:
            return found
    raise ValueError(f"{PAGE.name} has no block that begins with $ python -m benchmarks.{name}")


def main(arguments: Sequence[str], page: Path = PAGE) -> None:
    """Run a benchmark with its arguments, and replace its block."""
    name, *options = arguments
    text = page.read_text()
    place = block(" ".join(arguments), text)
    with redirect_stdout(io.StringIO()) as printed:
        import_module(f"benchmarks.{name}").main(options)
    command = " ".join(["$ python -m", f"benchmarks.{name}", *options])
    new = f"```text\n{command}\n{printed.getvalue().rstrip()}\n```"
    page.write_text(text[: place.start()] + new + text[place.end() :])
    print(new)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    main(sys.argv[1:])
