"""Run a benchmark and write what it prints into ``docs/benchmarks.md``, under its command.

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


def block(name: str, page: str) -> re.Match[str]:
    """Find what a page holds of a benchmark: the command, and what it printed.

    Raises
    ------
    ValueError
        If it has no place for it.
    """
    found = re.search(rf"```text\n\$ python -m benchmarks\.{name}\b.*?\n```", page, re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE.name} has no block that begins with $ python -m benchmarks.{name}")
    return found


def main(arguments: Sequence[str], page: Path = PAGE) -> None:
    """Run a benchmark with its arguments, and replace its block."""
    name, *options = arguments
    text = page.read_text()
    place = block(name, text)
    with redirect_stdout(io.StringIO()) as printed:
        import_module(f"benchmarks.{name}").main(options)
    command = " ".join(["$ python -m", f"benchmarks.{name}", *options])
    new = f"```text\n{command}\n{printed.getvalue().rstrip()}\n```"
    page.write_text(text[: place.start()] + new + text[place.end() :])
    print(new)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    main(sys.argv[1:])
