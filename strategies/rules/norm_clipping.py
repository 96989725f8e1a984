"""Can You Really Backdoor Federated Learning? [Sun et al., 2019].

The defense by norm thresholding of updates.

Paper: https://arxiv.org/abs/1911.07963
"""

from typing import Any, Literal

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import is_finite_number
from ..clipping import Clipping
from ..round import Outcome, Round


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

    def aggregate(self, round: Round) -> Outcome:
        """Clip and aggregate; the median of one norm would clip nothing."""
        if self.max_norm == "median" and len(round) < 2:
            return Outcome.refuse(self, "1 valid model, whose norm is the median of its own")
        return super().aggregate(round)

    def bound(self, norms: NDArray[np.float64]) -> float:
        """Return the norm of the setting, or the median of the round's."""
        return float(np.median(norms)) if self.max_norm == "median" else float(self.max_norm)
