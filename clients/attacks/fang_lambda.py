"""How far a crafted model may go and still be Krum's choice [Fang et al., 2020]."""

import numpy as np
from numpy.typing import NDArray

from .min_max import squared_distances

Vector = NDArray[np.float64]

FLOOR = 1e-5
"""The least lambda that is tried, in the unit of parameters."""


def krum_chooses(between: Vector, away: Vector, copies: int) -> bool:
    """Tell whether Krum, for as many malicious models as there are copies, chooses a copy.

    Parameters
    ----------
    between : array of shape (m, m)
        Squared distances between the other models, infinite on the diagonal.
    away : array of shape (m,)
        Those from the copies to each.
    copies : int
        c, at most m - 2. Of n = m + c models the nearest n - c - 2 count.
    """
    nearest = len(between) - 2
    copy = np.sort(away)[: nearest - copies + 1].sum()
    others = np.hstack([between, np.tile(away[:, None], copies)])
    return bool(copy < np.sort(others, axis=1)[:, :nearest].sum(axis=1).min())


def greatest_lambda(models: Vector, s: Vector, copies: int) -> float:
    """Halve lambda, from its upper bound, until Krum chooses -lambda s among m models (m, d).

    Returns
    -------
    float
        In the unit of the models; 0 where that is under `FLOOR`, or m < c + 2 and so without bound.
    """
    if len(models) < copies + 2:
        return 0.0
    between = squared_distances(models)
    np.fill_diagonal(between, np.inf)
    lengths, along, d = (models**2).sum(axis=1), models @ s, float(s @ s)
    score = np.sort(between, axis=1)[:, : len(models) - 2].sum(axis=1).min()
    lam = float(np.sqrt(score / ((len(models) - copies - 1) * d)) + np.sqrt(lengths.max() / d))
    while lam >= FLOOR:
        if krum_chooses(between, lengths + 2 * lam * along + lam**2 * d, copies):
            return lam
        lam /= 2
    return 0.0
