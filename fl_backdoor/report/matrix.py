"""The matrix of attacks and defenses: what each cell has, and each defense's worst case."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd

from ..federation.roster import ROSTER
from ..measure.runs import EARLY, Run
from ..measure.settings import differing, numerically, split
from ..measure.sides import UNDEFENDED, attack, attacked, defense
from .estimate import Estimate
from .tidy import BESIDE

ATTACK, DEFENSE = "attack", "defense"
"""Columns: an attack and a defense, by their classes and the keys in which those differ."""
NO_ATTACK: Final = "no attack"
TWINS: Final = "clean twins"
"""What is shown of a defense without runs that nobody attacks."""
AXES: Final = {ATTACK: ("attack.",), DEFENSE: ("strategy.", "defenses.")}
"""How the keys of what an axis names begin."""
MOST_NAMED: Final = 6
"""Defenses that a sentence can hold."""


@dataclass(frozen=True)
class Kind:
    """A kind of attack, and how its success is told.

    Attributes
    ----------
    name : str
        "targeted" or "untargeted".
    measure : str
        What of a run tells it, a fraction.
    title : str
        In words.
    unit : str
        In which it is shown: "points" of a difference, "%" of a rate.
    beaten : float
        From so much on an attack beats a defense.
    """

    name: str
    measure: str
    title: str
    unit: str = "points"
    beaten: float = 0.2

    def text(self, estimate: Estimate) -> str:
        """Write a success, without its unit."""
        return estimate.text("+" if self.unit == "points" else "")


TARGETED: Final = Kind("targeted", "attack_success_above_floor", "attack success above its floor")
NO_FLOOR: Final = Kind("targeted", "attack_success_rate", "attack success (no floor)", "%")
UNTARGETED: Final = Kind(
    "untargeted", "damage", "accuracy that the clean twin has more", beaten=0.1
)


@dataclass(frozen=True)
class Cell:
    """The runs of one attack under one defense, over seeds."""

    accuracy: Estimate
    success: Estimate
    runs: int
    early: int
    at_chance: int

    @property
    def whole(self) -> bool:
        """Whether every run of it tells how well the attack does."""
        return self.success.seeds == self.runs > 0

    @property
    def notes(self) -> list[str]:
        """What a reader must know of it beside its numbers."""
        counts = {"ended early": self.early, "at chance": self.at_chance}
        notes = [f"{n} of {self.runs} {what}" for what, n in counts.items() if n]
        return [*notes, *[f"{self.runs} run"] * (self.runs == 1)]


@dataclass(frozen=True)
class Matrix:
    """All defenses against all attacks of one kind."""

    kind: Kind
    defenses: list[str]
    attacks: list[str]
    cells: dict[tuple[str, str], Cell]
    clean: dict[str, tuple[str, Cell]] = field(default_factory=dict)
    """Of each defense where nobody attacks: its name there, which may tell of no attackers."""

    def beaten(self, defense: str, attack: str) -> bool:
        """Tell whether an attack beats a defense."""
        cell = self.cells.get((defense, attack))
        mean = None if cell is None else cell.success.mean
        return mean is not None and mean >= self.kind.beaten

    def worst(self, defense: str) -> tuple[str, Estimate] | None:
        """Return the attack that a defense fares worst against, and how."""
        own = {a: c.success for a in self.attacks if (c := self.cells.get((defense, a)))}
        told = {a: e for a, e in own.items() if e.mean is not None}
        return max(told.items(), key=lambda item: item[1].mean or 0.0) if told else None

    def by_worst(self) -> list[str]:
        """Return the defenses, the best by its worst attack first; untold ones last."""
        worst = {d: w[1].mean or 0.0 for d in self.defenses if (w := self.worst(d))}
        return sorted(self.defenses, key=lambda d: worst.get(d, math.inf))

    def untold(self, defense: str) -> list[str]:
        """Return the attacks of which a defense's runs do not tell, or not all."""
        return [
            a for a in self.attacks if (c := self.cells.get((defense, a))) is None or not c.whole
        ]

    def answer(self) -> str:
        """Name the best defense by its worst attack, and the attack that beats most.

        Of a single defense, which is no best one, its worst attack.
        """
        whole = {d: w for d in self.defenses if not self.untold(d) and (w := self.worst(d))}
        if not whole:
            return f"Against {self.kind.name} attacks no defense has been tried with all of them."
        unit = self.kind.unit
        best, (attack, estimate) = min(whole.items(), key=lambda item: item[1][1].mean or 0.0)
        near = [d for d, (_, other) in whole.items() if d != best and estimate.overlaps(other)]
        others = ", ".join(near) if len(near) <= MOST_NAMED else f"those of {len(near)} others"
        tied = f"; 95 % intervals overlap with {others}" if near else ""
        lost = {a: sum(self.beaten(d, a) for d in self.defenses) for a in self.attacks}
        strongest = max(lost, key=lambda a: (lost[a], self._mean(a)))
        least = f"{100 * self.kind.beaten:.0f} {unit}"
        beats = f"{strongest} beats most: {lost[strongest]} of {len(self.defenses)} defenses"
        if len(self.defenses) == 1:
            beats = f"{strongest} beats it, the only one"
        beats += f", by {least} or more"
        if not lost[strongest]:
            beats = f"no attack reaches {least} against any"
        left = [d for d in self.defenses if d not in whole]
        but = f" Not ranked, as runs are missing: {', '.join(left)}." if left else ""
        first = f"the best defense by its worst attack is {best} ({attack}"
        if len(self.defenses) == 1:
            first = f"only {best} was tried (its worst is {attack}"
        return (
            f"Against {self.kind.name} attacks {first}: {self.kind.title} "
            f"{self.kind.text(estimate)} {unit}{tied}); {beats}.{but}"
        )

    def _mean(self, attack: str) -> float:
        own = (self.cells.get((d, attack)) for d in self.defenses)
        return float(np.mean([c.success.mean or 0.0 for c in own if c] or [0.0]))


@dataclass(frozen=True)
class Section:
    """Runs that differ in attack, defense and seed, and in nothing else.

    Attributes
    ----------
    reason : dict of str to str
        The other keys in which runs of the report differ, and what these have.
    table : DataFrame
        A row a run, with the columns `ATTACK` and `DEFENSE`.
    matrices : list of Matrix
        Of targeted and of untargeted attacks, where there are such.
    """

    reason: dict[str, str]
    table: pd.DataFrame
    matrices: list[Matrix]


def sections(runs: Sequence[Run], table: pd.DataFrame) -> list[Section]:
    """Split runs by every key in which they differ that is neither attack, defense nor seed.

    Who attacks, and when, is no part of an attack here. Runs without an attack stand in the section
    of every roster.

    Parameters
    ----------
    runs : sequence of Run
        None repeats another.
    table : DataFrame
        Their rows, in their order.
    """
    attacks = [attack(run) if attacked(run) else NO_ATTACK for run in runs]
    table = table.assign(**{ATTACK: attacks, DEFENSE: [_named(run) for run in runs]})
    keys = [key for key in differing(_configured(table)) if _splits(key)]
    rosters = [key for key in keys if key.startswith("attack.")]
    found = []
    for reason, part in split(table, [key for key in keys if key not in rosters]):
        nobody = part[ATTACK] == NO_ATTACK
        for roster, own in split(part[~nobody], rosters) or [({}, part[~nobody])]:
            found.append(_section(reason | roster, pd.concat([own, part[nobody]])))
    return found


def _configured(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[*AXES, *BESIDE])


def _splits(key: str) -> bool:
    axis = next((a for a, starts in AXES.items() if key.startswith(starts)), None)
    return axis is None or (axis == ATTACK and key.rpartition(".")[2] in ROSTER)


def _section(reason: dict[str, str], part: pd.DataFrame) -> Section:
    part = part.copy()
    keys = differing(_configured(part))
    for axis, starts in AXES.items():
        own = [key for key in keys if key.startswith(starts) and key != f"{starts[0]}_target_"]
        part[axis] = _labels(part, axis, own)
    attacks = [name for name in in_order(part[ATTACK]) if name != NO_ATTACK]
    defenses = in_order(part[DEFENSE])
    by = dict(iter(part.groupby([DEFENSE, ATTACK], sort=False)))
    aims = ["attack_success_rate", "attack_success_floor"]
    aimed = {a for a in attacks if part.loc[part[ATTACK] == a, aims].notna().any(axis=None)}
    floors = part.loc[part[ATTACK].isin(aimed), TARGETED.measure].notna().any()
    matrices = []
    for kind, own in (
        (TARGETED if floors else NO_FLOOR, [a for a in attacks if a in aimed]),
        (UNTARGETED, [a for a in attacks if a not in aimed]),
    ):
        if own:
            there = [d for d in defenses if any((d, a) in by for a in own)]
            cells = {(d, a): _cell(by[d, a], kind) for d in there for a in own if (d, a) in by}
            clean = {d: c for d in there if (c := _unattacked(d, by, part, kind))}
            matrices.append(Matrix(kind, there, own, cells, clean))
    return Section(reason, part, matrices)


def _unattacked(
    defense: str,
    by: Mapping[tuple[str, str], pd.DataFrame],
    part: pd.DataFrame,
    kind: Kind,
) -> tuple[str, Cell] | None:
    """Return a defense's runs without an attack; where it has none, its clean twins."""
    if name := _alone(defense, by):
        return name, _cell(by[name, NO_ATTACK], kind)
    own = part[part[DEFENSE] == defense].drop_duplicates("seed")
    accuracy = Estimate.of(own["main_accuracy_twin"])
    if not accuracy.seeds:
        return None
    return TWINS, Cell(accuracy, Estimate(None, None, 0), accuracy.seeds, 0, 0)


def _alone(defense: str, by: Iterable[tuple[str, str]]) -> str:
    """Name a defense's runs without an attack: its own, or all that there are of its class."""
    names = [name for name, attack in by if attack == NO_ATTACK]
    if defense in names:
        return defense
    alike = [name for name in names if class_of(name) == class_of(defense)]
    return alike[0] if len(alike) == 1 else ""


def _labels(part: pd.DataFrame, axis: str, keys: Sequence[str]) -> "pd.Series[str]":
    """Name attacks or defenses by their class, and the keys in which those of the class differ."""
    labels = part[axis].copy()
    for name, alike in part.groupby(axis):
        for key in [key for key in keys if alike[key].nunique(dropna=False) > 1]:
            if name != NO_ATTACK:  # which it is whatever its keys
                labels[alike.index] += (f" {_leaf(key)}=" + alike[key]).fillna("")
    return labels


def class_of(label: str) -> str:
    """Return an attack or a defense without the keys that its label names."""
    return re.sub(r" [\w.]+=.*", "", label, flags=re.DOTALL)


def _leaf(key: str) -> str:
    return key.removesuffix("._target_").rpartition(".")[2]


def _cell(runs: pd.DataFrame, kind: Kind) -> Cell:
    return Cell(
        Estimate.of(runs["main_accuracy"]),
        Estimate.of(runs[kind.measure]),
        len(runs),
        int(runs[EARLY].sum()),
        int(runs["at_chance"].fillna(0).sum()),
    )


def _named(run: Run) -> str:
    name = defense(run)
    if name != UNDEFENDED or run.unit == "epoch":
        return name
    return str(run.config.get("strategy._target_", name)).rpartition(".")[2]


def in_order(names: Iterable[str]) -> list[str]:
    """Return different names, the plain average first, then by their letters and numbers."""

    def place(name: str) -> tuple[bool, str, list[tuple[float, str]]]:
        own = [numerically(part.rpartition("=")[2]) for part in name.split(" ")[1:]]
        return name not in ("FedAvg", UNDEFENDED), class_of(name), own

    return sorted(set(names), key=place)
