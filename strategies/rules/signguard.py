"""Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering.

[Xu et al., 2022]: SignGuard.

Paper: https://arxiv.org/abs/2109.05872
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_installed, check_positive, check_seed, check_share
from ..clipping import clip_factors
from ..clusters import largest_shift
from ..robust import Robust
from ..round import Outcome, Round

_BLOCK = 2**20
"""Values at a time."""


def sign_statistics(
    models: NDArray[np.floating], center: NDArray[np.floating], chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the parts of the chosen coordinates where updates are positive, 0, negative.

    Parameters
    ----------
    models : array of shape (n, p)
        Local models.
    center : array of shape (p,)
        The global model.
    chosen : array of shape (k,)
        Coordinates, k from 1.

    Returns
    -------
    array of shape (n, 3)
    """
    counts = np.zeros((2, len(models)))
    for part in np.array_split(chosen, 1 + len(models) * len(chosen) // _BLOCK):
        block, middle = models[:, part], center[part]
        counts += [np.count_nonzero(block > middle, 1), np.count_nonzero(block < middle, 1)]
    positive, negative = counts / len(chosen)
    return np.column_stack([positive, 1 - positive - negative, negative])


class SignGuard(Robust):
    """Average the updates of usual length whose signs are as the most have them, clipped.

    Of n updates those are kept whose norm is between L and R times the median norm M, and whose
    sign statistics, on a random part of the coordinates, are in the largest of MeanShift's
    clusters: ``sum_{i in S'} g_i min(1, M / |g_i|) / |S'|``.

    Parameters
    ----------
    lower, upper : float (default: 0.1, 3)
        L and R, as parts of the median norm; L below R.
    fraction : float (default: 0.1)
        The part of the coordinates whose signs are looked at.
    seed : int, optional
        Makes the draw repeatable, for experiments. Leave it out in a deployment.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    *Threat model*: fewer than half of the clients send anything, in collusion. *Assumes* nothing
    of their number; IID data, or of little skew; full participation is not needed. *Cost*: two
    passes over n models of d parameters, and MeanShift on n points in three dimensions.

    This is the plain SignGuard; its forms with a similarity (SignGuard-Sim, -Dist) are not here.
    In a round of fewer than 4 models, of which no bandwidth can be estimated, or where nobody
    passes both filters, the rule cannot act.

    The authors' code differs from the paper: it takes one run of coordinates at a random place
    instead of random ones, divides each statistic by its largest, does not count norms equal to a
    bound as within, and clips to the lower of two middle norms. Here it is as in the paper. The
    bandwidth is as in the code, scikit-learn's estimate at the quantile 0.5 (there of 50 updates at
    most); points outside of all clusters are dropped, as there.

    *Known weaknesses*: an attack whose signs are those of honest updates, as of a backdoor in
    data, or made to be alike, passes. In a round without attackers MeanShift drops whoever is at
    the edge.
    """

    least_clients: ClassVar[int] = 4

    def __init__(
        self,
        lower: float = 0.1,
        upper: float = 3.0,
        fraction: float = 0.1,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_installed("SignGuard", "sklearn", "scikit-learn")
        check_positive(lower=lower, upper=upper)
        if lower >= upper:
            raise ValueError(f"lower = {lower!r} must be below upper = {upper!r}")
        check_share(fraction=fraction)
        check_seed(seed)
        self.lower, self.upper, self.fraction, self.seed = lower, upper, fraction, seed

    def aggregate(self, round: Round) -> Outcome:
        """Filter by norms and by signs, then clip and average."""
        (n, p), norms = round.models.shape, round.updates.norms
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a cluster needs 4")
        bound = float(np.median(norms))
        count = max(1, int(self.fraction * p))
        chosen = np.sort(round.rng(self.seed).choice(p, count, replace=False))
        usual = largest_shift(sign_statistics(round.models, round.center, chosen))
        usual &= (norms >= self.lower * bound) & (norms <= self.upper * bound)
        votes = np.where(usual, round.votes, 0)
        if not votes.any():
            return Outcome.refuse(self, "no update passes both filters", votes)
        model = round.moved(round.shares(votes) * clip_factors(norms, bound))
        return Outcome(model, votes, {"clipping-norm": bound, "clipped": norms > bound})
