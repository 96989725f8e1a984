"""Whether something grows with something else: a regression, and a permutation test of it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

RESAMPLES = 9_999
"""Permutations of which the p value is estimated, where there are more."""


@dataclass(frozen=True)
class Effect:
    """A slope, and how sure it is.

    Attributes
    ----------
    slope, stderr : float
        Of ordinary least squares, in units of y for one of x.
    p : float
        Of a slope that is not above 0, by the t distribution.
    p_permuted : float
        The same by permutation of what the controls leave of y.
    runs : int
        Number of rows.
    """

    slope: float
    stderr: float
    p: float
    p_permuted: float
    runs: int


def effect(y: Floats, x: Floats, controls: Floats, seed: int = 0) -> Effect | None:
    """Return the slope of y over x with the controls held fixed.

    What the controls explain is taken out of both (Frisch, Waugh, Lovell), and the permutation
    test permutes what is left of y (Freedman, Lane 1983).

    Parameters
    ----------
    y, x : array of shape (n,)
        What may grow, and with what.
    controls : array of shape (n, k)
        Columns that are held fixed; a constant is one of them.
    seed : int
        Decides the permutations.

    Returns
    -------
    Effect or None
        None where x does not vary beside the controls, or no degree of freedom is left.
    """
    basis = _basis(controls)
    own, rest = x - basis @ (basis.T @ x), y - basis @ (basis.T @ y)
    size, freedom = float(own @ own), len(y) - basis.shape[1] - 1
    if size <= 1e-9 * float(x @ x) or freedom < 1:
        return None
    if float(rest @ rest) <= 1e-18 * float(y @ y):  # nothing is left that could grow
        return Effect(0.0, 0.0, 1.0, 1.0, len(y))
    slope = float(own @ rest) / size
    left = rest - slope * own
    stderr = float(np.sqrt(left @ left / freedom / size))
    p = float(stats.t.sf(slope / stderr, freedom)) if stderr else float(slope <= 0)
    permuted = stats.permutation_test(
        (rest,),
        lambda values, axis: (own * values).sum(axis),
        vectorized=True,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return Effect(slope, stderr, p, float(permuted.pvalue), len(y))


def proposition1(runs: pd.DataFrame) -> Effect | None:
    """Test that attack success grows with S, in points for a sample; seeds and P held fixed.

    Parameters
    ----------
    runs : DataFrame
        A row a run of one goal: columns ``S``, ``P``, ``seed`` and ``success`` in points.
    """
    return fitted(runs, runs["S"], ["seed", "P"])


def proposition2(runs: pd.DataFrame) -> Effect | None:
    """Test that it grows with P at the same S, in points for an attacker; see `proposition1`."""
    return fitted(runs, runs["P"], ["seed", "S"])


def proposition3(runs: pd.DataFrame) -> Effect | None:
    """Test that its slope over S grows with P: their product, beside both of them."""
    product = (runs["S"] - runs["S"].mean()) * (runs["P"] - runs["P"].mean())
    return fitted(runs, product, ["seed", "P", "S"])


def bend(runs: pd.DataFrame) -> Effect | None:
    """Return how far attack success over S is from a line: its square, beside S itself."""
    square = (runs["S"] - runs["S"].mean()) ** 2
    return fitted(runs, square, ["seed", "P"], runs[["S"]])


def fitted(
    runs: pd.DataFrame, x: pd.Series, groups: list[str], linear: pd.DataFrame | None = None
) -> Effect | None:
    """Return the effect of ``x`` on the column ``success``; see `effect`.

    Parameters
    ----------
    runs : DataFrame
        A row a run; those without success are left out.
    x : Series
        With what it may grow, a value for each row.
    groups : list of str
        Columns of which every value is held fixed.
    linear : DataFrame, optional
        Columns that are held fixed as numbers.
    """
    known = runs["success"].notna()
    runs, x = runs[known], x[known]
    if not len(runs):
        return None
    dummies = [pd.get_dummies(runs[group]).to_numpy(np.float64) for group in groups]
    columns = [] if linear is None else [linear[known].to_numpy(np.float64)]
    controls = np.concatenate([np.ones((len(runs), 1)), *dummies, *columns], axis=1)
    return effect(runs["success"].to_numpy(np.float64), np.asarray(x, np.float64), controls)


def _basis(columns: Floats) -> Floats:
    """Return orthonormal columns of the same span, however many of them depend on others."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, sizes > 1e-9 * sizes[0]])
