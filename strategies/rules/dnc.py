"""Manipulating the Byzantine [Shejwalkar and Houmansadr, 2021].

Divide-and-Conquer, a spectral filter on random coordinates.

Paper: https://www.ndss-symposium.org/ndss-paper/manipulating-the-byzantine-optimizing-model-poisoning-attacks-and-defenses-for-federated-learning/
"""

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_allowed, check_count, check_positive, check_seed
from ..robust import Robust
from ..round import Outcome, Round


def outlier_scores(sampled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``s_i = <x_i - mu, v>^2``, v the top right singular vector of the rows ``x_i - mu``.

    Parameters
    ----------
    sampled : array of shape (n, b)
        Updates at the sampled coordinates.

    Returns
    -------
    array of shape (n,)
    """
    from scipy.linalg import eigh  # slow to import, and not every rule's need

    centered = sampled - sampled.mean(axis=0)
    n = len(centered)
    # Rows times their right singular vector are the left one times its value: n x n is enough.
    values, vectors = eigh(centered @ centered.T, subset_by_index=[n - 1, n - 1])
    scores: NDArray[np.float64] = values[0] * vectors[:, 0] ** 2
    return scores


class DnC(Robust):
    """Average the updates that are no outliers along the main direction, in any of the draws.

    Each of several times, b coordinates are drawn, and the ``c f`` updates of the largest scores
    are left out.

    Parameters
    ----------
    num_malicious : int
        f, the malicious clients to withstand.
    filter_factor : float (default: 1)
        c: ``c f`` updates are left out each time, rounded up.
    iterations : int (default: 5)
        niters, how many times.
    dimension : int (default: 10000)
        b, coordinates that are drawn each time; all of a smaller model.
    seed : int, optional
        Makes the draws repeatable, for experiments. Leave it out in a deployment: coordinates
        that an attacker can compute can be left alone.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    *Threat model*: fewer than half of the clients, all in collusion, send anything, and know the
    others' updates. *Assumes* that f is known, IID data, and that any number takes part. *Cost*:
    O(niters n^2 b), and one pass over n models of d parameters.

    It votes for the updates that are good in every draw. In a round of ``2 f`` models or fewer, or
    where no update is good in every draw, the rule cannot act.

    Blades and FLPoison draw 10,000 coordinates or a fifth of them; the code of SignGuard's authors
    draws 1,000 of them once.

    *Known weaknesses*: it leaves out as many in a round without attackers, those that matter most
    along the main direction. Attackers who do not share a direction are not found.
    """

    def __init__(
        self,
        num_malicious: int,
        filter_factor: float = 1.0,
        iterations: int = 5,
        dimension: int = 10_000,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_count(num_malicious=num_malicious)
        check_positive(filter_factor=filter_factor)
        check_count(1, iterations=iterations, dimension=dimension)
        check_seed(seed)
        self.num_malicious, self.filter_factor = num_malicious, filter_factor
        self.iterations, self.dimension, self.seed = iterations, dimension, seed

    def check(self, num_clients: int) -> None:
        """Refuse more malicious clients than a minority, and a factor by which nobody is kept."""
        check_allowed(self, "num_malicious", 0, (num_clients - 1) // 2, num_clients)
        if self.num_malicious:
            most = (num_clients - 1) / self.num_malicious
            check_allowed(self, "filter_factor", 0, most, num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Average the updates that are good in every draw."""
        (n, p), f = round.models.shape, self.num_malicious
        kept = n - ceil(self.filter_factor * f)
        if n <= 2 * f or kept < 1:
            return Outcome.refuse(self, f"{n} valid models; of them {f} may be malicious")
        rng, good = round.rng(self.seed), np.ones(n, np.bool_)
        for _ in range(self.iterations):
            columns = np.sort(rng.choice(p, min(p, self.dimension), replace=False))
            scores = outlier_scores(round.updates[:, columns])
            good[np.argsort(scores, kind="stable")[kept:]] = False
        votes = np.where(good, round.votes, 0)
        if not votes.any():
            return Outcome.refuse(self, "no update is good in every draw", votes)
        return Outcome(round.mean(votes), votes)
