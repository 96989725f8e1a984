"""List what there is to choose, a line each: ``python -m fl_backdoor.listing attacks``."""

import ast
import re
from collections import Counter
from itertools import takewhile
from pathlib import Path
from textwrap import shorten

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
    """Return what each choice of a config group is.

    A class says it in its docstring, a configuration that shares its class or has none in the
    comment at its head.
    """
    paths = sorted((conf_directory() / group).glob("*.yaml"))
    texts = {path.stem: path.read_text() for path in paths}
    targets = {name: re.findall(r"^_target_: (\S+)", text, re.M) for name, text in texts.items()}
    shared = Counter(target for found in targets.values() for target in found)
    told = {}
    for name, text in texts.items():
        said = [summary_of(target) for target in targets[name]]
        own = all(shared[target] == 1 for target in targets[name])
        told[name] = " ".join([*said, comment(text)] if own else [comment(text), *said])
    return told


def comment(text: str) -> str:
    """Return the comment at the head of a configuration."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line[2:] for line in lines if "@package" not in line)


def summary_of(target: str) -> str:
    """Return the first line of a class's docstring, read from its file; "" if it is not ours."""
    package, _, name = target.rpartition(".")
    folder = Path(__file__).parents[1] / package.partition(".")[0]
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text()
        if f"class {name}" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef) and node.name == name:
                    return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


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
            text = shorten(what, WIDTH - width - 4, placeholder=" ...")
            lines.append(f"  {name:<{width}}  {text}")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # | head
        console.on_broken_pipe()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
