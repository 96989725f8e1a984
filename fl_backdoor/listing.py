"""List what there is to choose, in a sentence each: ``python -m fl_backdoor.listing attacks``."""

import re
from itertools import takewhile
from textwrap import fill

from .arguments import WIDTH, Parser
from .config import conf_directory
from .screen import Screen

KINDS = {
    "attacks": ("attack=NAME",),
    "defenses": ("strategy=NAME", "defense=NAME, with protocol=vertical"),
    "datasets": ("dataset=NAME",),
    "models": ("model=NAME",),
    "experiments": ("+experiment=NAME",),
}
"""By what is asked for, how it is chosen."""


def listed(group: str) -> dict[str, str]:
    """Return what each choice of a config group is: the first sentence at the head of its file."""
    paths = sorted((conf_directory() / group).glob("*.yaml"))
    return {path.stem: sentence(path.read_text()) for path in paths}


def sentence(text: str) -> str:
    """Return the first sentence of the comment at the head of a configuration."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line[2:] for line in lines if "@package" not in line)
    return re.split(r"(?<=[^A-Z.]\.) (?=[A-Z])", comment)[0]


def main() -> None:
    """List from the command line."""
    parser = Parser("list", __doc__, "attacks")
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    console = Screen()
    lines = []
    for how in KINDS[parser.parse_args().kind]:
        group = how.lstrip("+").partition("=")[0]
        choices = listed(group)
        width = max(map(len, choices))
        lines.append(how)
        for name, what in choices.items():
            begin, rest = f"  {name:<{width}}  ", " " * (width + 4)
            lines.append(fill(what, WIDTH, initial_indent=begin, subsequent_indent=rest))
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # | head
        console.on_broken_pipe()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
