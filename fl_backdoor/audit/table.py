"""What an audit found: a table of defenses and attacks, and what limits it breaks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..nearest import nearest
from .cell import Result
from .chosen import ATTACKS, NOBODY

LIMITS = ("attack_success", "accuracy_drop")
GOOD = ("accuracy", "acc", "auc", "f1", "precision", "recall", "score", "r2")
"""Metrics by whose name more is better, the first that is found is taken."""


def chosen_metric(found: Mapping[str, float], asked: str | None) -> str:
    """Return the name of the metric that is judged: that asked for, or an accuracy.

    Raises
    ------
    UserError
        If it does not exist, or none of those that do is an accuracy.
    """
    if asked is not None:
        if asked not in found:
            raise UserError(
                f"metric={asked}: allowed are {', '.join(found)}{nearest(asked, found)}"
            )
        return asked
    for part in GOOD:
        for name in found:
            if part in name.lower():
                return name
    raise UserError(f"metric: none of {', '.join(found)} is an accuracy; name one with --metric")


@dataclass
class Table:
    """Results by defense and attack.

    Attributes
    ----------
    metric : str
        The app's metric that is judged; of one with "loss" or "error" in its name less is better.
    cells : dict of (str, str) to Result
        By row and column; ``nobody attacks`` is a column.
    """

    metric: str
    cells: dict[tuple[str, str], Result] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """The defenses, ``as you are`` first."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """The attacks, ``nobody attacks`` first."""
        return list(dict.fromkeys(column for _, column in self.cells))

    def accuracy(self, row: str, column: str) -> float | None:
        """Return the metric of a run, None if it has none."""
        cell = self.cells.get((row, column))
        return None if cell is None else cell.metrics.get(self.metric)

    def drop(self, row: str, column: str) -> float | None:
        """Return what an attack costs, against the same defense with nobody attacking.

        A model that nobody can evaluate any more has lost all that it had.
        """
        clean, attacked = self.accuracy(row, NOBODY), self.accuracy(row, column)
        if clean is None or self.why_not(row, column):
            return None
        if attacked is None:
            return clean if self.more_is_better else None
        return clean - attacked if self.more_is_better else attacked - clean

    def cost(self, row: str, own: str) -> float | None:
        """Return what a defense costs where nobody attacks, against the app as it is."""
        mine, theirs = self.accuracy(own, NOBODY), self.accuracy(row, NOBODY)
        if mine is None or theirs is None:
            return None
        return mine - theirs if self.more_is_better else theirs - mine

    def success(self, row: str, column: str) -> float | None:
        """Return how often victims with the trigger are read as the target."""
        cell = self.cells.get((row, column))
        if cell is None or column == NOBODY or not ATTACKS[column].backdoor:
            return None
        return None if self.why_not(row, column) else cell.triggered.get(self.metric)

    def floor(self, row: str) -> float | None:
        """Return how often the same victims are read so where nobody attacks."""
        cell = self.cells.get((row, NOBODY))
        return None if cell is None else cell.triggered.get(self.metric)

    @property
    def more_is_better(self) -> bool:
        """Whether a greater metric is a better one."""
        return not any(part in self.metric.lower() for part in ("loss", "error"))

    def why_not(self, row: str, column: str) -> str:
        """Return why a cell has no number, "" if it has one."""
        cell = self.cells.get((row, column))
        if cell is None:
            return "not run"
        if cell.refused or cell.error:
            return f"failed: {cell.refused or cell.error}"
        if cell.undefended:
            return f"not defended: {cell.undefended}"
        if cell.unattacked:
            return f"not attacked: {cell.unattacked}"
        if column != NOBODY and ATTACKS[column].backdoor and not cell.triggered:
            if cell.broken:
                return ""
            return f"not measured: {cell.unmeasured or 'no evaluation of triggered samples'}"
        return ""

    def text(self, row: str, column: str) -> str:
        """Return a cell in a few signs: accuracy, and what it costs or how often it succeeds."""
        if why := self.why_not(row, column):
            return why.partition(":")[0]
        accuracy = self.accuracy(row, column)
        if accuracy is None:
            return "model broken"
        if column == NOBODY:
            return f"{accuracy:.3f}"
        success, drop = self.success(row, column), self.drop(row, column)
        first = f"{accuracy:.3f}" + (f" ({0.0 - drop:+.3f})" if drop is not None else "")
        return first if success is None else f"{first}, hit {success:.0%}"

    def notes(self) -> list[str]:
        """Return why cells have no number, one line for each reason."""
        places: dict[str, list[str]] = {}
        for row, column in self.cells:
            cell = self.cells[row, column]
            why = self.why_not(row, column) or (cell.broken and f"model broken: {cell.broken}")
            if why:
                places.setdefault(why, []).append(f"{row} / {column}")
        return [f"{'; '.join(where)}: {why}" for why, where in places.items()]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "metric": self.metric,
            "cells": [
                {
                    "defense": row,
                    "attack": column,
                    "accuracy": self.accuracy(row, column),
                    "accuracy_drop": None if column == NOBODY else self.drop(row, column),
                    "attack_success": self.success(row, column),
                    "attack_success_floor": self.floor(row),
                    "why_not": self.why_not(row, column) or cell.broken or None,
                }
                for (row, column), cell in self.cells.items()
            ],
        }


def parse_limit(text: str) -> tuple[str, float]:
    """Read ``NAME=NUMBER``.

    Raises
    ------
    UserError
        If it is none of `LIMITS`, or not from 0 to 1.
    """
    name, _, number = text.partition("=")
    if name not in LIMITS:
        raise UserError(f"limit={text}: allowed are {', '.join(LIMITS)}{nearest(name, LIMITS)}")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"limit={text}: allowed is {name}= a number from 0 to 1")
    return name, value


def broken(table: Table, row: str, limits: Mapping[str, float]) -> list[str]:
    """Return in a line each how a row breaks limits, or that one cannot be judged there."""
    said = []
    for name, most in limits.items():
        measure = table.success if name == "attack_success" else table.drop
        found = {c: measure(row, c) for r, c in table.cells if r == row and c != NOBODY}
        known = {c: value for c, value in found.items() if value is not None}
        if failed := [c for c in found if table.cells[row, c].error]:
            said.append(f"limit {name}={most:g} cannot be judged by {', '.join(failed)}: it failed")
        if not known:
            said.append(f"limit {name}={most:g}: no attack on {row} could be judged by it")
        over = [f"{c} {value:.3f}" for c, value in known.items() if value > most]
        if over:
            said.append(f"limit {name}={most:g} is broken by {', '.join(over)}")
    return said


def outnumbered(asked: int | None, clients: int, attackers: int) -> str:
    """Say in a sentence that half of a round or more may attack, "" if that cannot be.

    Parameters
    ----------
    asked : int or None
        Clients that a round asks; None: not known.
    clients, attackers : int
        n, and P of them.
    """
    if asked is None or 2 * attackers < asked:
        return ""
    among = f"{asked} of {clients} clients, of which {min(asked, attackers)} may attack"
    if asked == clients:
        among = f"all {clients} clients, of which {attackers} attack"
    return f"A round asks {among}: most defenses assume fewer than half."
