"""Attack your own Flower app: ``python -m fl_backdoor.audit APP_DIR``.

APP_DIR is any Flower app of the Message API, and stays as it is. It is run with some of its
clients turned malicious, as it is and with other defenses in the place of its strategy: what does
each attack cost, and what each defense where nobody attacks? Backdoors need the class that
victims shall be read as: [tool.fl-backdoor] with target = 0 in its pyproject.toml.
"""

import json
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table as Lines

from ..arguments import Parser
from ..config import ending
from ..errors import UserError
from ..screen import Screen, counted, in_words
from .cell import Result, Spec
from .cells import run_apart
from .chosen import AS_YOU_ARE, ATTACKS, DEFENSES, FIRST_ATTACKS, FIRST_DEFENSES, NOBODY, names
from .page import made_folder, write_page
from .project import Project, read
from .table import Table, broken, chosen_metric, outnumbered, parse_limit


def main() -> None:
    """Audit from the command line.

    The exit status is 0, 1 if a limit is broken or the app cannot be audited, and 2 on bad input.
    """
    parser = Parser("audit", __doc__, "my_app --rounds 5 --limit accuracy_drop=0.05")
    add = parser.add_argument
    add("app", metavar="APP_DIR", help="folder of the app's pyproject.toml")
    add("--rounds", type=int, metavar="R", help="default: the app's own number")
    add("--clients", type=int, metavar="N", help="nodes; default: of its federation, else 10")
    add("--attackers", type=int, metavar="P", help="of them; default: 3 of 10")
    add("--attacks", default=",".join(FIRST_ATTACKS), metavar="A,B", help=_allowed(ATTACKS))
    add("--defenses", default=",".join(FIRST_DEFENSES), metavar="A,B", help=_allowed(DEFENSES))
    add("--metric", metavar="NAME", help="the app's metric to judge by; default: an accuracy")
    add(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=X",
        help="attack_success or accuracy_drop, of the app as it is: exit status 1 if an attack is "
        "above it, or none can be judged by it",
    )
    add("--timeout", type=float, default=300.0, metavar="S", help="seconds a phase; default: 300")
    add("--seed", type=int, default=0, metavar="N", help="who attacks, and all draws; default: 0")
    add("--json", action="store_true", help="print JSON instead of the table")
    add("--out", metavar="DIR", help="write DIR/index.html, a page of the report, and audit.json")
    arguments = parser.parse_args()
    console = Screen()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else a run would outlive it
    with ending(console.on_broken_pipe):
        status = audit(arguments, console)
    raise SystemExit(status)


def audit(arguments: Namespace, console: Screen) -> int:
    """Audit an app as the command line says, and return the exit status.

    Raises
    ------
    UserError
        If an argument is out of range, or the folder holds no app.
    """
    project = read(Path(arguments.app))
    name = str(project.folder) if project.folder.name else project.folder.resolve().name  # of "."
    attacks = names("attacks", arguments.attacks, ATTACKS)
    defenses = names("defenses", arguments.defenses, DEFENSES)
    limits = dict(map(parse_limit, arguments.limit))
    spec = first_spec(project, arguments)
    out = None if arguments.out is None else made_folder(arguments.out)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows, columns = [AS_YOU_ARE, *defenses], [NOBODY, *attacks]
    total = len(rows) * len(columns)
    say(
        f"{name}: {counted(len(spec.attackers), 'attacker')} of {spec.clients} clients; "
        f"{counted(total, 'run')}: {counted(len(columns), 'column')} ({', '.join(columns)}), "
        f"{counted(len(rows), 'row')} ({', '.join(rows)})"
    )
    began = time.monotonic()
    first = run_apart(spec, arguments.timeout)
    seconds = time.monotonic() - began
    if why := first.refused or first.error or first.broken:
        say(f"{name} cannot be audited: {why}")
        return 1
    table = Table(chosen_metric(first.metrics, arguments.metric), {(AS_YOU_ARE, NOBODY): first})
    left = total - 1
    more = f"; {counted(left, 'other run')}: about {in_words(left * seconds / 60)}" if left else ""
    say(
        f"It trains {counted(first.rounds, 'round')} by {first.strategy or 'no Strategy'} in "
        f"{seconds:.0f} s{more}"
    )
    fill(table, spec, rows, columns, arguments.timeout, say)
    lines = broken(table, AS_YOU_ARE, limits)
    report = {
        "app": name,
        "clients": spec.clients,
        "attackers": len(spec.attackers),
        "rounds": first.rounds,
        "clients_a_round": first.clients_a_round,
        "strategy": first.strategy,
        "seed": spec.seed,
        **table.as_json(),
        "broken_limits": lines,
    }
    half = outnumbered(first.clients_a_round, spec.clients, len(spec.attackers))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        console.print(drawn(table))
        for note in [*table.notes(), *filter(None, [half])]:
            console.print(note, soft_wrap=True, highlight=False)
    if out is not None:
        write_page(out, table, report, half)
    for text in lines:
        say(text)
    return int(bool(lines))


def first_spec(project: Project, arguments: Namespace) -> Spec:
    """Return the run of the app as it is, where nobody attacks.

    Raises
    ------
    UserError
        If a number is out of range.
    """
    clients = project.clients if arguments.clients is None else arguments.clients
    if clients < 2:
        raise UserError(f"clients={clients}: allowed is 2 or more")
    attackers = arguments.attackers
    if attackers is None:
        attackers = max(1, 3 * clients // 10)
    if not 1 <= attackers < clients:
        raise UserError(f"attackers={attackers}: allowed are 1 to {clients - 1} of {clients}")
    for key in ("rounds", "timeout"):
        value = getattr(arguments, key)
        if value is not None and not value > 0:
            raise UserError(f"{key}={value:g}: allowed is more than 0")
    if arguments.seed < 0:
        raise UserError(f"seed={arguments.seed}: allowed is 0 or more")
    drawn = np.random.default_rng(arguments.seed).choice(clients, attackers, replace=False) + 1
    return Spec(
        folder=str(project.folder.resolve()),
        serverapp=project.serverapp,
        clientapp=project.clientapp,
        config=project.config,
        batches=project.batches,
        clients=clients,
        attackers=sorted(drawn.tolist()),
        rounds=arguments.rounds,
        seed=arguments.seed,
    )


def fill(
    table: Table,
    spec: Spec,
    rows: list[str],
    columns: list[str],
    limit: float,
    say: Callable[[str], None],
) -> None:
    """Run what is left of a table; what fails is in its cell, and the rest goes on."""
    for row in rows:
        defense = None if row == AS_YOU_ARE else row
        for column in columns:
            attack = None if column == NOBODY else column
            if (row, column) in table.cells:
                continue
            clean = table.cells.get((row, NOBODY), Result())
            if clean.undefended or clean.error:  # so it would be with attackers
                table.cells[row, column] = clean
                continue
            asked = Spec(**{**vars(spec), "attack": attack, "defense": defense})
            table.cells[row, column] = run_apart(asked, limit)
            say(f"{row} / {column}: {table.text(row, column)}")


def drawn(table: Table) -> Lines:
    """Draw the table, defenses by attacks."""
    lines = Lines(box=box.SIMPLE_HEAD, title=caption(table), title_justify="left")
    for name in ("", "clean cost", *table.columns):
        lines.add_column(name, overflow="fold")
    for row in table.rows:
        cost = table.cost(row, AS_YOU_ARE)
        said = "-" if row == AS_YOU_ARE or cost is None else f"{cost:.3f}"
        lines.add_row(row, said, *(table.text(row, column) for column in table.columns))
    return lines


def caption(table: Table) -> str:
    """Say what is in a cell."""
    return (
        f"{table.metric} (what the attack changed); hit: victims with the trigger that are read as "
        "the target"
    )


def _allowed(named: Iterable[str]) -> str:
    return f"all, none, or some of {', '.join(named)}"


if __name__ == "__main__":
    main()
