"""Min-Max [Shejwalkar & Houmansadr, 2021]."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import View

Vector = NDArray[np.float64]

PERTURBATIONS = ("std", "unit", "sign")


def perturbation(known: Vector, kind: str) -> Vector:
    """Return nabla^p of the updates known (n, p): against their spread, mean or sign."""
    mean = known.mean(axis=0)
    along: dict[str, Vector] = {
        "std": -known.std(axis=0),
        "unit": -mean / (np.linalg.norm(mean) or 1.0),
        "sign": -np.sign(mean),
    }
    return along[kind]


def squared_distances(points: Vector) -> Vector:
    """Return the squared distances between points, of shape (n, n)."""
    centred = points - points.mean(axis=0)
    products = centred @ centred.T
    squares = np.diagonal(products)
    distances: Vector = np.maximum(squares[:, None] + squares - 2 * products, 0.0)
    return distances


@dataclass(kw_only=True)
class Pushed(Colluding):
    """All attackers send the mean of the updates that they know, pushed as far as it may be.

    Attributes
    ----------
    perturbation : {"std", "unit", "sign"}
        Against what the push goes: the standard deviation of each coordinate, the mean's
        direction, or the mean's signs.

    Raises
    ------
    ValueError
        If the perturbation is none of these.
    """

    least: ClassVar[int] = 2

    perturbation: str = "std"

    def __post_init__(self) -> None:
        """Check the perturbation."""
        super().__post_init__()
        if self.perturbation not in PERTURBATIONS:
            allowed = ", ".join(PERTURBATIONS)
            raise ValueError(f"perturbation={self.perturbation}: allowed are {allowed}")

    @abstractmethod
    def gamma(self, known: Vector, push: Vector) -> float:
        """Return the greatest multiple of the push that the attack's constraint allows."""

    def collude(self, view: View) -> Vector:
        """Send nabla^m = mean + gamma nabla^p from all."""
        push = perturbation(view.known, self.perturbation)
        if view.alike or not push.any():
            view.notes["gamma"] = 0.0
            return view.refuse(self, "the updates known are equal, or their mean is 0")
        view.notes["gamma"] = gamma = self.gamma(view.known, push)
        return np.tile(view.known.mean(axis=0) + gamma * push, (len(view.own), 1))


@dataclass(kw_only=True)
class MinMax(Pushed):
    """The push stays as close to every update as they are to each other.

    Shejwalkar, Houmansadr 2021, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks
    and Defenses for Federated Learning", the first of the attacks that know no rule:
    max_i ||nabla^m - nabla_i|| <= max_{i,j} ||nabla_i - nabla_j||. Untargeted. Where the authors'
    code halves steps of gamma, it is solved for here.

    *Knows* updates as `knowledge` says, and nothing of the server. *Cost*: the distances of the m
    updates known, O(m^2 d). *Known weaknesses*: all send the same; few attackers who know their own
    updates only take the spread for less than it is.

    Attributes
    ----------
    perturbation
        As for `Pushed`.
    """

    def gamma(self, known: Vector, push: Vector) -> float:
        """Solve the constraint, a quadratic equation of gamma for each update known.

        The paper's search comes to the same gamma by halving steps.
        """
        off = known.mean(axis=0) - known
        a, b = push @ push, off @ push
        c = (off**2).sum(axis=1) - squared_distances(known).max()
        return float(((np.sqrt(np.maximum(b**2 - a * c, 0.0)) - b) / a).min())
