"""The Hessian of what a federation minimizes, as its past rounds show it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Vectors = Sequence[NDArray[np.floating]]

_BLOCK = 2**16
"""Columns at a time."""


def hessian_product(s: Vectors, y: Vectors, v: NDArray[np.floating]) -> Vector:
    """Return the L-BFGS approximation of H v, shape (p,) (Byrd et al. 1994, compact).

    Parameters
    ----------
    s, y : sequence of array of shape (p,)
        Differences of the global model over some rounds, the last at the end, and those of the
        global update; in the last ``s`` is not 0.
    v : array of shape (p,)
        Another difference of the global model.
    """
    m, vectors = len(s), [*s, *y, v]
    gram = np.zeros((2 * m + 1, 2 * m + 1))
    for start in range(0, len(v), _BLOCK):
        block = np.array([z[start : start + _BLOCK] for z in vectors], dtype=np.float64)
        gram += block @ block.T
    ss, sy = gram[:m, :m], gram[:m, m:-1]
    sigma = sy[-1, -1] / ss[-1, -1]
    lower = np.tril(sy, -1)
    matrix = np.block([[sigma * ss, lower], [lower.T, -np.diag(np.diagonal(sy))]])
    scale = np.repeat([sigma, 1], m)
    weights = scale * np.linalg.lstsq(matrix, scale * gram[:-1, -1], rcond=None)[0]
    product: Vector = sigma * v.astype(np.float64)
    for weight, z in zip(weights, vectors, strict=False):
        product -= weight * z
    return product


def move(memory: dict[str, NDArray[Any]], center: NDArray[np.floating]) -> Vector | None:
    """Return ``H (w_t - w_{t-1})``, shape (p,), by what `remember_step` has kept.

    None at first, and where it is not finite.

    Parameters
    ----------
    memory : dict of str to array
        A rule's.
    center : array of shape (p,)
        w_t.
    """
    numbers = sorted(key.removeprefix("s/") for key in memory if key.startswith("s/"))
    if not numbers:
        return None
    s, y = ([memory[f"{name}/{number}"] for number in numbers] for name in "sy")
    with np.errstate(over="ignore", invalid="ignore"):
        hv = hessian_product(s, y, np.subtract(center, memory["center"], dtype=np.float64))
    return hv if np.isfinite(hv).all() else None


def bounded(vector: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Return a vector in another precision; what is too large for it is its largest number."""
    most = np.finfo(dtype).max
    within: NDArray[np.floating] = np.clip(vector, -most, most).astype(dtype)
    return within


def remember_step(
    memory: dict[str, NDArray[Any]],
    number: int,
    center: NDArray[np.floating],
    step: NDArray[np.floating],
    window: int,
) -> None:
    """Keep what the global model did in the last rounds, in its precision.

    A difference that is not finite there, as attackers may cause, is left out.

    Parameters
    ----------
    memory : dict of str to array
        A rule's.
    number : int
        The round.
    center, step : array of shape (p,)
        The model that was sent, and the update that the rule made of it; 0 where the model stays.
    window : int
        Rounds to keep.
    """
    step = bounded(step, center.dtype)
    if "center" in memory:
        with np.errstate(over="ignore"):
            moved, bent = center - memory["center"], step - memory["step"]
        if moved.any() and np.isfinite(moved).all() and np.isfinite(bent).all():
            memory[f"s/{number:09}"], memory[f"y/{number:09}"] = moved, bent
    for name in "sy":
        for old in sorted(key for key in memory if key.startswith(f"{name}/"))[:-window]:
            del memory[old]
    memory["center"], memory["step"] = center.copy(), step
