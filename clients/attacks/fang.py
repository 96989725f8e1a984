"""Local model poisoning against a known rule [Fang et al., 2020]."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import View
from .fang_lambda import FLOOR, greatest_lambda

Vector = NDArray[np.float64]

RULES = ("krum", "trimmed_mean")
B = 2.0
"""How many times as far as the farthest value known the trimmed-mean form may go."""


def beyond(known: Vector, u: Vector, whole: bool) -> Vector:
    """Return values beyond those known (n, d), against their mean's sign, by u (P, d) in [0, 1].

    Where all are known, from the farthest value to b times as far from 0 (or a b-th of it, if that
    is the way); else 3 to 4 standard deviations from the mean.
    """
    mean = known.mean(axis=0)
    up = np.where(mean > 0, -1.0, 1.0)
    edge = np.where(up > 0, known.max(axis=0), known.min(axis=0))
    factor = 1 + (B - 1) * u
    farther: Vector = np.where(edge * up > 0, edge * factor, edge / factor)
    off: Vector = mean + up * (3 + u) * known.std(axis=0)
    return farther if whole else off


@dataclass(kw_only=True)
class Fang(Colluding):
    """All attackers send what moves a known rule's aggregate against the honest direction.

    Fang, Cao, Jia, Gong 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated
    Learning", section 3: with s_j the sign of what parameter j would change by, the attackers
    maximize s^T (w - w'), w and w' being the models without and with their attack. Untargeted.

    - ``krum``: all send w' = w_Re - lambda s, w_Re being the model received, with the greatest
      lambda of lambda_max / 2^i for which Krum chooses it. Of m other models, c copies and d
      parameters, lambda_max = sqrt(min_i sum_l D(w_l, w_i)^2 / ((m - c - 1) d)) +
      max_i D(w_i, w_Re) / sqrt(d), the sum over the m - 2 nearest to w_i. With ``knowledge=all``
      the models are the honest ones, and c = P; else the attackers' own take their place, and c is
      the least of 1 to P - 2 with which a lambda is found: P - 1 copies have each other for
      neighbours, and any lambda would do. Where there is none of 1e-5 or more the paper has no
      solution: each sends what it trained, as in the authors' code, and a warning says so.
    - ``trimmed_mean``, and for the median: each coordinate just beyond the others, see `beyond`,
      with b = 2; each attacker draws its own.

    *Knows* the rule, that the server counts c malicious clients, and updates as `knowledge` says.
    *Cost*: one pass over the m updates known, of d parameters; of Krum their m x m distances, and a
    sort of these for each lambda. *Known weaknesses*: against another rule nothing is promised, as
    the lambda of Krum is too short to move an average or the median. One lambda for all coordinates
    makes it weak where few of them matter, and where updates have much in common there is none: on
    digits four attackers who know their own found one in each of 12 rounds, three in none.

    The copies are equal (the paper's are within epsilon), and lambda_max bounds a sum of
    squares, as Krum has it, where the paper's Theorem 1 sums distances. As in the authors' code,
    and unlike in the paper where all updates are known, s is of their mean, whatever the rule, and
    the attackers' own are among those that are gone beyond; b stretches updates, not models: of
    what is trimmed it makes no difference.

    Attributes
    ----------
    rule : {"krum", "trimmed_mean"}
        What the server is taken to use.

    Raises
    ------
    ValueError
        If the rule is none of these.
    """

    least: ClassVar[int] = 3

    rule: str = "krum"

    def __post_init__(self) -> None:
        """Check the rule."""
        super().__post_init__()
        if self.rule not in RULES:
            raise ValueError(f"rule={self.rule}: allowed are {', '.join(RULES)}")

    def check(self, clients: int, attackers: int) -> None:
        """Refuse numbers for which lambda has no upper bound, or updates too few for a spread."""
        super().check(clients, attackers)
        most = (clients - 2) // 2
        if self.rule == "krum" and self.knowledge == "all" and attackers > most:
            raise ValueError(
                f"num_attackers={attackers}: allowed are 0 to {most} of {clients} clients, of "
                "which Krum chooses nothing that is too far away"
            )

    def collude(self, view: View) -> Vector:
        """Send what the rule is to be moved by."""
        if self.rule == "trimmed_mean":
            if view.alike and (view.honest is None or not view.own.any()):
                return view.refuse(self, "the updates known are equal, and have no spread")
            return beyond(view.known, view.rng().random(view.own.shape), view.honest is not None)
        s = np.sign(view.known.mean(axis=0))
        view.notes["lambda"] = lam = self.lam(view, s) if s.any() else 0.0
        if not lam:
            return view.refuse(self, f"Krum chooses -lambda s for no lambda >= {FLOOR}")
        return np.tile(-lam * s, (len(view.own), 1))

    def lam(self, view: View, s: Vector) -> float:
        """Return lambda, of all copies or of as few as it takes; 0 where there is none."""
        if view.honest is not None:
            return greatest_lambda(view.honest, s, len(view.own))
        tried = (greatest_lambda(view.own, s, c) for c in range(1, len(view.own) - 1))
        return next(filter(None, tried), 0.0)
