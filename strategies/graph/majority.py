"""The first gamma at which a majority agrees (Cao et al. 2019, Algorithm 2)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .clique import Clique, maximum_clique


def first_majority(
    below: Callable[[float], NDArray[np.bool_]], start: float, epsilon: float, majority: int
) -> tuple[Clique, float, bool]:
    """Raise gamma from ``start`` by ``epsilon`` until a clique has a majority (Algorithm 2).

    Parameters
    ----------
    below : callable
        Of gamma makes the adjacency matrix of shape (n, n): which distances are below it.
    start, epsilon : float
        Distances, positive.
    majority : int
        More than N/2, at most n.

    Returns
    -------
    tuple
        The clique, the gamma at which it was found, and whether no search was cut short.
    """
    attempts: dict[int, Clique | None] = {}

    def gamma(k: int) -> float:
        """Return gamma after k steps; with a tiny epsilon k can outgrow any float."""
        return start + k * epsilon if k.bit_length() < 1000 else math.inf

    def has_majority(k: int) -> bool:
        attempts[k] = maximum_clique(below(gamma(k)), at_least=majority)
        clique = attempts[k]
        return clique is not None and bool(clique.members)

    low, high = -1, 0
    while not has_majority(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if has_majority(middle) else (middle, high)

    clique = attempts[high]
    assert clique is not None
    proven = all(c is None or c.proven for c in attempts.values())
    return clique, gamma(high), proven
