"""Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity [Allouah et al., 2023].

Nearest neighbor mixing before any rule.

Paper: https://arxiv.org/abs/2302.01772
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_allowed, check_count
from ..round import Outcome, Round
from ..vectors import overwrite
from ..wrapper import Wrapper


def neighbourhoods(squared: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """Tell the ``n - f`` nearest of each model, itself among them: 1 or 0, shape (n, n).

    Parameters
    ----------
    squared : array of shape (n, n)
        Squared Euclidean distances between the models; of equal ones the lower row is nearer.
    f : int
        Malicious models, fewer than n.
    """
    nearest = np.argsort(squared, axis=1, kind="stable")[:, : len(squared) - f]
    members = np.zeros_like(squared)
    np.put_along_axis(members, nearest, 1, axis=1)
    return members


class NearestNeighborMixing(Wrapper):
    """Replace each model by the mean of those nearest to it, then aggregate.

    ``y_i = sum_{j in N_i} x_j / (n - f)``, where N_i are the n - f models nearest to x_i, itself
    included.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates the mixtures: any that withstands f of n by itself.
    num_malicious : int
        f, the malicious clients to withstand.
    weighted, statistics, on_round
        As for `strategies.Robust`. Mixtures are not weighted.

    Raises
    ------
    ValueError
        If ``num_malicious`` is not an integer from 0.

    Notes
    -----
    *Threat model*: fewer than half of the clients send anything. *Assumes* that f is known; data
    of bounded heterogeneity, for which the error of the rule inside becomes of the best order.
    *Cost*: O(n^2 d), twice: the distances and the mixtures.

    A client's vote is what the mixtures that it is in have got. In a round of ``2 f`` models or
    fewer there is no honest majority, and the wrapper cannot act. byzfl mixes likewise; of two
    equally near models it may take either.

    *Known weaknesses*: the cost of the square. A malicious model within the spread of the honest
    is in most mixtures, and counts as much as in the mean.
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

    def aggregate(self, round: Round) -> Outcome:
        """Mix the models in place, and aggregate the mixtures."""
        n, f = len(round), self.num_malicious
        if n <= 2 * f:
            return Outcome.refuse(self, f"{n} valid models; of them {f} may be malicious")
        members = neighbourhoods(round.distances.squared, f)
        mixtures = overwrite(round.models, lambda block: members @ block / (n - f))
        outcome = self.inner.aggregate(round.with_models(mixtures))
        if outcome.votes is not None:
            outcome.votes = outcome.votes @ members
        return outcome
