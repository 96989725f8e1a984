"""The two sides of a run: who attacks it, and what defends it."""

import re
from typing import Final

from .runs import Run

UNDEFENDED: Final = "no defense"
AVERAGES: Final = {"FedAvg", "FedAvgM", "FedAdam", "FedYogi"}
"""Rules that are no defense."""


def attacked(run: Run) -> bool:
    """Tell whether somebody attacks."""
    if attack(run) == "NoAttack":
        return False
    return run.unit == "epoch" or bool(roster(run))


def roster(run: Run) -> tuple[int, ...]:
    """Return the clients of the crowd that attack; of an older run those that came to."""
    return tuple(run.summary.get("roster") or run.summary.get("attackers") or ())


def attack(run: Run) -> str:
    """Name a run's attack by its classes, from the outside."""
    return _nested(run, "attack", "data")


def defense(run: Run) -> str:
    """Name a run's defense by its classes, from the outside; `UNDEFENDED` of a plain average."""
    if run.unit == "epoch":
        parts = [k for k in run.config if re.fullmatch(r"defenses\.\w+\._target_", k)]
        return " + ".join(_class(run.config[key]) for key in parts) or UNDEFENDED
    name = _nested(run, "strategy", "strategy")
    return UNDEFENDED if AVERAGES.issuperset(re.findall(r"\w+", name)) else name


def _nested(run: Run, node: str, inner: str) -> str:
    """Name the classes of a node and of those that stand in it under a key."""
    names = []
    while f"{node}._target_" in run.config:
        names.append(_class(run.config[f"{node}._target_"]))
        node = f"{node}.{inner}"
    return "(".join(names) + ")" * (len(names) - 1)


def _class(name: object) -> str:
    return str(name).rpartition(".")[2]
