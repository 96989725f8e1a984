"""One command for all: ``fl-backdoor COMMAND``, each of which is ``python -m fl_backdoor.COMMAND``.

A command's module is imported when it is the one that was asked for.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from . import __version__

EVERY = {
    "simulate": ("simulate", "run an experiment: --help lists experiments and keys"),
    "sweep": ("simulate", "run every combination of comma-separated values"),
    "reproduce": ("reproduce", "run a paper's whole grid, and say what of it reproduces"),
    "compare": ("compare", "compare finished runs, as a table and figures"),
    "report": ("report.__main__", "write runs as one page that opens offline"),
    "audit": ("audit.__main__", "attack your own Flower app, with and without defenses"),
    "calibrate": ("calibrate", "propose thresholds from recorded rounds"),
    "list": ("listing", "attacks, defenses, datasets, models or experiments, a sentence each"),
}
"""By name: its module, and what it does."""

COMMANDS = {
    name: command
    for name, command in EVERY.items()
    if find_spec(f"{__package__}.{command[0].partition('.')[0]}")
}
"""Those whose modules are here."""


def main() -> None:
    """Hand the arguments to the command that is their first."""
    command, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if command in ("--help", "-h"):
        print(usage())
        return
    if command == "--version":
        print(f"fl-backdoor {__version__}")
        return
    if command not in COMMANDS:
        from .nearest import nearest

        print(
            f"error: {command}: allowed are {', '.join(COMMANDS)}{nearest(command, COMMANDS)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    sys.argv = [f"fl-backdoor {command}", *["-m"] * (command == "sweep"), *arguments]
    module, _ = COMMANDS[command]
    import_module(f".{module}", __package__).main()


def usage() -> str:
    """Return the help: an example, and a line for each command."""
    lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Example",
            "  fl-backdoor simulate +experiment=sniper_goal1",
            "",
            "Poisoning and backdoor attacks on federated learning, and defenses, on Flower.",
            "",
            "Usage: fl-backdoor COMMAND [--help | arguments]",
            *lines,
            "  --version",
        ]
    )


if __name__ == "__main__":
    main()
