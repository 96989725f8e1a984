"""Runs in the setting of Cao et al. 2019, and what they show of what the paper leaves open."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from clients.attacks.label_flipping import READINGS

from .claims import chosen, spread
from .tidy import EARLY

GOALS = {1: "2 6", 2: "4 8"}
DEFAULT = "fill"
"""The reading of Algorithm 1, line 9, that the claims are judged by."""


class Line(NamedTuple):
    """A regression line of Table II: attack success as a fraction, slope for one sample."""

    slope: float
    intercept: float

    def at(self, samples: int) -> float:
        """Return attack success in %."""
        return 100 * (self.slope * samples + self.intercept)


TABLE2 = {
    (1, 1): Line(0.000134, -0.031),
    (1, 2): Line(0.00017, -0.03),
    (1, 3): Line(0.000222, -0.039),
    (2, 1): Line(0.000073, -0.01065),
    (2, 2): Line(0.000158, -0.02495),
    (2, 3): Line(0.000208, -0.0141),
}
"""By goal and P."""


SETTING = {
    "dataset.samples_per_class": 250,
    "num_rounds": 10,
    "training.epochs": 1,
    "training.decay": 0.098,
    "model.shrink": "stride",
}
"""The paper's, and what we take it to be where it says nothing."""

CHOICES = {
    "num_rounds": (5, 10, 20),
    "training.epochs": (1, 2),
    "training.decay": (0.0, 0.098),
    "model.shrink": ("stride", "max_pool"),
}
"""What the paper leaves open, and what is tried: one at a time, at P = 3 and S = 500."""

SHORT = {
    "attack.num_attackers": "P",
    "attack.poisoned_samples": "S",
    "attack.poisoning": "reading",
    "strategy._target_": "strategy",
    "num_clients": "clients",
}


def prepared(table: pd.DataFrame, changed: Mapping[str, object] | None = None) -> pd.DataFrame:
    """Return the runs of the paper's setting on MNIST.

    Parameters
    ----------
    table : DataFrame
        See `tidy`.
    changed : mapping, optional
        Keys of `SETTING` that have another value.

    Returns
    -------
    DataFrame
        With the names of `SHORT`, ``goal`` and ``success`` in %, none of a model at chance.
    """
    own = chosen(table, **{EARLY: 0}, **SETTING | dict(changed or {}))
    own = own[own["dataset.source"].isin(["idx", "hub"])].rename(columns=SHORT)
    success = 100 * own["attack_success_rate"].where(own["at_chance"] != 1)
    goals = own["dataset.digits"].map({digits: goal for goal, digits in GOALS.items()})
    return own.assign(goal=goals, success=success)


def readings(table: pd.DataFrame) -> str:
    """Write attack success under each reading of Algorithm 1, line 9, beside the paper's."""
    runs = chosen(prepared(table), clients=10, strategy="FedAvg")
    lines = [
        f"| goal | P | S | paper | {' | '.join(f'`{name}`' for name in READINGS)} |",
        "| --- " * (4 + len(READINGS)) + "|",
    ]
    for (goal, attackers), line in TABLE2.items():
        for samples in (300, 350, 400, 450, 500):
            cell = chosen(runs, goal=goal, P=attackers, S=samples)
            shown = [_reading(cell, name, samples, attackers) for name in READINGS]
            if any(text not in ("", "impossible") for text in shown):
                start = f"| {goal} | {attackers} | {samples} | {line.at(samples):.1f} | "
                lines.append(start + " | ".join(shown) + " |")
    return "\n".join(lines)


def choices(table: pd.DataFrame) -> str:
    """Write attack success under each choice that the paper leaves open; see `CHOICES`."""
    papers = " | ".join(f"{TABLE2[goal, 3].at(500):.1f}" for goal in GOALS)
    lines = [
        "| choice | value | goal 1 | goal 2 |",
        "| --- | --- | --- | --- |",
        f"| the paper's value | | {papers} |",
    ]
    for key, values in CHOICES.items():
        for value in values:
            runs = chosen(
                prepared(table, {key: value}),
                P=3, S=500, clients=10, strategy="FedAvg", reading=DEFAULT,
            )  # fmt: skip
            cells = [chosen(runs, goal=goal)["success"] for goal in GOALS]
            shown = [f"{spread(c, '')} ({len(c)})" if len(c) else "not run yet" for c in cells]
            ours = " (here)" if SETTING[key] == value else ""
            lines.append(f"| `{key}` | {value}{ours} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _reading(cell: pd.DataFrame, name: str, samples: int, attackers: int) -> str:
    if name in ("replace", "copy") and samples > 250 * attackers:
        return "impossible"
    # Where they hold enough, to replace is to fill: tests/test_label_flipping.py.
    runs = chosen(cell, reading="fill" if name == "replace" else name)
    return f"{spread(runs['success'], '')} ({len(runs)})" if len(runs) else ""
