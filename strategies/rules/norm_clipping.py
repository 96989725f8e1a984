"""Can You Really Backdoor Federated Learning? [Sun et al., 2019].

The defense by norm thresholding of updates.

Paper: https://arxiv.org/abs/1911.07963
"""

from logging import INFO
from typing import Any, Literal

import numpy as np
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from ..checks import is_finite_number
from ..round import Outcome, Round
from ..wrapper import Wrapper

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


class NormClipping(Clipping):
    """Clip each client's update against the global model to a norm, then aggregate.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates the clipped models.
    max_norm : float or "median"
        M, the clipping norm: a fixed Euclidean norm, or the median norm of the round's
        updates, which fewer than half of the clients cannot raise beyond an honest norm.
    weighted, statistics, on_round
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If max_norm is neither a positive finite number nor ``"median"``.

    Notes
    -----
    *Threat model*: attackers whose updates must be long to matter, as of model replacement.
    *Assumes* a norm that honest updates keep to; with ``"median"``, fewer than half attackers.
    *Cost*: two passes over n models of d parameters.

    In a round of one model its norm is the median, which clips nothing: there ``"median"`` cannot
    act. It is not the paper's, which has a fixed norm.

    *Known weaknesses*: a backdoor within the norm (PGD) is averaged, and grows over rounds.
    """

    def __init__(
        self,
        strategy: Strategy,
        max_norm: float | Literal["median"],
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        if max_norm != "median" and not (is_finite_number(max_norm) and max_norm > 0):
            raise ValueError(
                f"max_norm = {max_norm!r} must be a positive finite number or 'median'"
            )
        self.max_norm = max_norm

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        log(INFO, "\t├──> NormClipping: max_norm %s", self.max_norm)
        super().summary()

    def aggregate(self, round: Round) -> Outcome:
        """Clip and aggregate; the median of one norm would clip nothing."""
        if self.max_norm == "median" and len(round) < 2:
            return Outcome.refuse(self, "1 valid model, whose norm is the median of its own")
        return super().aggregate(round)

    def bound(self, norms: NDArray[np.float64]) -> float:
        """Return the norm of the setting, or the median of the round's."""
        return float(np.median(norms)) if self.max_norm == "median" else float(self.max_norm)
