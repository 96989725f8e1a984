"""Adaptive Gradient Clipping for Robust Federated Learning [Allouah et al., 2025].

Adaptive robust clipping (ARC) before any rule.

Paper: https://arxiv.org/abs/2405.14432
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_allowed, check_count
from ..clipping import Clipping
from ..round import Outcome, Round


def clipping_norm(norms: NDArray[np.float64], f: int) -> float:
    """Return the ``k + 1`` largest of n norms, where ``k = floor(2 f (n - f) / n)``.

    Parameters
    ----------
    norms : array of shape (n,)
        Of the updates.
    f : int
        Malicious updates, fewer than n / 2.
    """
    n = len(norms)
    return float(np.sort(norms)[n - 1 - 2 * f * (n - f) // n])


class AdaptiveClipping(Clipping):
    """Clip the longest updates to the norm of the longest that is left, then aggregate.

    ``C = |x_pi(k + 1)|``, where pi sorts the updates by falling norm and
    ``k = floor(2 (f / n) (n - f))``; every update longer than C is clipped to it.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates the clipped models: any that withstands f of n, such as
        `NearestNeighborMixing` around `TrimmedMean`, as the paper does.
    num_malicious : int
        f, the malicious clients to withstand.
    weighted, statistics, on_round
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If ``num_malicious`` is not an integer from 0.

    Notes
    -----
    *Threat model*: fewer than half of the clients send anything. *Assumes* that f is known; any
    data: it keeps the guarantee of the rule inside, and bounds what it returns by an honest norm.
    *Cost*: one pass over n models of d parameters, and another over those clipped.

    In a round of ``2 f`` models or fewer there is no honest majority, and the wrapper cannot act.

    byzfl's class clips the caller's own array.

    *Known weaknesses*: alone it is no defense: a backdoor in data makes no update long. It clips
    up to n / 2 updates in a round without attackers.
    """

    def __init__(
        self,
        strategy: Strategy,
        num_malicious: int,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        check_count(num_malicious=num_malicious)
        self.num_malicious = num_malicious

    def check(self, num_clients: int) -> None:
        """Refuse more malicious clients than a minority."""
        check_allowed(self, "num_malicious", 0, (num_clients - 1) // 2, num_clients)
        super().check(num_clients)

    def bound(self, norms: NDArray[np.float64]) -> float:
        """Return the norm that the paper's k leaves as the largest."""
        return clipping_norm(norms, self.num_malicious)

    def aggregate(self, round: Round) -> Outcome:
        """Clip the updates in place, and aggregate."""
        n, f = len(round), self.num_malicious
        if n <= 2 * f:
            return Outcome.refuse(self, f"{n} valid models; of them {f} may be malicious")
        return super().aggregate(round)
