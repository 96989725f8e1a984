"""Updates that are clipped to a norm."""

import numpy as np
from numpy.typing import NDArray

from .round import Outcome, Round
from .wrapper import Wrapper

_BLOCK = 2**15
"""Columns at a time: few enough for the processor's cache."""


def clip_factors(norms: NDArray[np.float64], max_norm: float) -> NDArray[np.float64]:
    """Return ``1 / max(1, |dw| / M)`` of norms |dw| of any shape."""
    return np.divide(max_norm, norms, out=np.ones_like(norms), where=norms > max_norm)


def clip(
    models: NDArray[np.floating],
    center: NDArray[np.floating],
    norms: NDArray[np.float64],
    max_norm: float,
) -> None:
    """Make each row ``w_t + dw`` to ``w_t + dw / max(1, |dw| / M)`` (norm thresholding).

    Parameters
    ----------
    models : array of shape (n, d)
        Local models; overwritten, those that are longer.
    center : array of shape (d,)
        The global model w_t.
    norms : array of shape (n,)
        |dw|.
    max_norm : float
        M, the clipping norm.
    """
    factors = clip_factors(norms, max_norm)
    for start in range(0, len(center), _BLOCK):
        columns = slice(start, start + _BLOCK)
        middle = center[columns].astype(np.float64)
        for row in np.flatnonzero(norms > max_norm):
            update = models[row, columns] - middle
            update *= factors[row]
            models[row, columns] = np.add(update, middle, out=update)


class Clipping(Wrapper):
    """Clip each client's update to a norm that the round's norms decide, then aggregate.

    A defense overrides `bound`.
    """

    def bound(self, norms: NDArray[np.float64]) -> float:
        """Return the clipping norm, given the norms of the round's updates, shape (n,)."""
        raise NotImplementedError

    def aggregate(self, round: Round) -> Outcome:
        """Clip the updates that are longer than the clipping norm, in place."""
        name = type(self).__name__
        if not round.sent and self._sent is None:
            raise RuntimeError(f"{name}.configure_train must run before aggregate_train")
        norms = round.updates.norms
        bound = self.bound(norms)
        clip(round.models, round.center, norms, bound)
        outcome = self.inner.aggregate(round.with_models(round.models))
        outcome.notes |= {"clipping-norm": bound, "update-norms": norms, "clipped": norms > bound}
        return outcome
