"""Multi-Metrics Adaptively Identifies Backdoors in Federated Learning [Huang et al., 2023].

Three distances to the global model, weighted by their covariance.

Paper: https://arxiv.org/abs/2303.06601
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_allowed, check_share
from ..robust import Robust
from ..round import Outcome, Round
from ..updates import Updates


def features(updates: Updates, center: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ``(|w_i - w_0|_1, |w_i - w_0|_2, cos(w_0, w_i))`` of each model, shape (n, 3).

    Parameters
    ----------
    updates : Updates of shape (n, p)
        w_i - w_0.
    center : array of shape (p,)
        w_0, the global model; where it is 0 there is no cosine, and 0 stands for it.
    """
    part = np.square(center, dtype=np.float64)  # which all that follows is written over
    square, rows = float(np.sum(part)), []
    for i, norm in enumerate(updates.norms):
        update = updates[i]
        dot = square + float(np.sum(np.multiply(center, update, out=part)))
        np.square(np.add(center, update, out=part), out=part)
        length = np.sqrt(square) * np.sqrt(np.sum(part))
        first = np.sum(np.abs(update, out=update))
        rows.append([first, norm, dot / length if length else 0.0])
    return np.array(rows)


def scores(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``delta_i = sqrt(x'_i^T Sigma^-1 x'_i)``, shape (n,): the larger, the odder.

    ``x'_i = sum_j |x_i - x_j|`` in each metric, and Sigma is the covariance of all x'. Metrics
    that do not vary do not count, nor do combinations of them (the inverse is Moore and
    Penrose's).

    Parameters
    ----------
    x : array of shape (n, 3)
        Features, n of 2 or more.
    """
    apart: NDArray[np.float64] = np.abs(x[:, np.newaxis] - x).sum(axis=1)
    spread = apart.std(axis=0, ddof=1)
    # In units of their spread, which changes no score but keeps the inverse exact.
    varies = spread > 1e-12 * np.abs(x).max(axis=0)
    units = np.divide(apart, spread, out=np.zeros_like(apart), where=varies)
    inverse = np.linalg.pinv(np.cov(units.T), rcond=1e-12, hermitian=True)
    squares: NDArray[np.float64] = np.einsum("ni,ij,nj->n", units, inverse, units)
    return np.sqrt(np.maximum(squares, 0))


class MultiMetrics(Robust):
    """Average the part of the models that is least odd in three metrics at once.

    Parameters
    ----------
    fraction : float (default: 0.3)
        p: of n models the floor(p n) with the lowest scores are averaged, of equal ones the first.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If the fraction is not a number above 0, and 1 at most.

    Notes
    -----
    *Threat model*: a minority of clients plants backdoors of any kind. *Assumes* that fewer than 1
    - p of the clients are malicious, and the average of their metrics is that of the honest; any
    distribution of data. *Guarantee*: none. *Cost*: O(n d).

    In a round of fewer than 4 models, or of fewer than 1/p, the rule cannot act: three metrics
    have no covariance.

    The authors' code differs from the paper: it sums pairwise distances of models instead of the
    differences of distances to the global one, squares the cosine's, and inverts a covariance that
    may be singular. Here it is as in the paper. The score is a distance from 0, not from the mean,
    in both.

    *Known weaknesses*: of an honest round it drops 1 - p as well, and with them what only they
    know. Attackers with clean metrics, as in PGD, are kept if they are many.
    """

    least_clients: ClassVar[int] = 4

    def __init__(self, fraction: float = 0.3, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_share(fraction=fraction)
        self.fraction = fraction

    def check(self, num_clients: int) -> None:
        """Refuse a fraction of which no model is left."""
        super().check(num_clients)
        check_allowed(self, "fraction", 1 / num_clients, 1, num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Score the models, and average those of the lowest scores."""
        n = len(round)
        kept = int(self.fraction * n + 1e-9)
        if n < self.least_clients or not kept:
            return Outcome.refuse(self, f"{n} valid models; of {n} it would keep {kept}")
        delta = scores(features(round.updates, round.center))
        votes, best = np.zeros(n), np.argsort(delta, kind="stable")[:kept]
        votes[best] = round.votes[best]
        return Outcome(round.mean(votes), votes, {"score": delta})
