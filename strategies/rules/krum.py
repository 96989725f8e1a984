"""Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent.

[Blanchard et al., 2017]: Krum and Multi-Krum.

Paper: https://papers.nips.cc/paper/6617-machine-learning-with-adversaries-byzantine-tolerant-gradient-descent
"""

from logging import WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from ..checks import check_allowed, check_count
from ..robust import Robust
from ..round import Outcome, Round


def krum_scores(squared: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Sum, for each model, its squared distances to its nearest neighbours: the paper's s(i).

    Parameters
    ----------
    squared : array of shape (n, n)
        Squared Euclidean distances between the models; symmetric, 0 for equal models only.
    neighbours : int
        How many of the others count, from 1: n - f - 2.

    Returns
    -------
    array of shape (n,)
        In the square of the models' unit. Equal models have equal scores.
    """
    # The distances of two equal models to a third may differ in the last bits: take the first's.
    first = squared.argmin(axis=1)
    others = squared[np.ix_(first, first)]
    np.fill_diagonal(others, np.inf)
    scores: NDArray[np.float64] = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return scores


def krum(squared: NDArray[np.float64], f: int, m: int = 1) -> NDArray[np.intp]:
    """Select the ``m`` models of lowest score, of which ``f`` may be malicious.

    Parameters
    ----------
    squared : array of shape (n, n)
        Squared Euclidean distances between the models, n > f + 2.
    f, m : int
        Malicious models, and models to select.

    Returns
    -------
    array of shape (m,)
        Rows, the best first; of equal scores the lowest row.
    """
    return np.argsort(krum_scores(squared, len(squared) - f - 2), kind="stable")[:m]


class MultiKrum(Robust):
    """Average the models that lie closest to their nearest neighbours.

    The distances are those of `strategies.graph.distances`: in float64, not cancelling however
    close the models are.

    Parameters
    ----------
    num_malicious : int
        f, the malicious clients to withstand. The paper's guarantee holds for n > 2 f + 2; with
        fewer valid models the rule acts all the same, with the note ``guarantee`` 0 and a warning,
        as long as there are f + 3 of them.
    num_selected : int
        m, the models to average. In a round of fewer the rule cannot act.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is not an integer, ``num_malicious`` is under 0 or ``num_selected`` under 1.

    Notes
    -----
    *Threat model*: f of n > 2 f + 2 clients send anything, and know all updates. *Assumes* f, and
    updates drawn independently from one distribution. *Cost*: O(n^2 (d + log n)).

    Public code differs: byzfl and FLPoison take one neighbour more, n - f - 1; Flower takes
    distances in the arrays' own precision, counters included.

    *Known weaknesses*: with unlike data an honest client that differs is never chosen. Attackers
    who send the same model lie at distance 0 from one another; those within the honest spread
    (ALIE, Min-Max) are chosen like others.
    """

    def __init__(self, num_malicious: int, num_selected: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_count(num_malicious=num_malicious)
        check_count(1, num_selected=num_selected)
        self.num_malicious = num_malicious
        self.num_selected = num_selected

    def check(self, num_clients: int) -> None:
        """Refuse settings for which the guarantee never holds, or that select too many."""
        check_allowed(self, "num_malicious", 0, (num_clients - 3) // 2, num_clients)
        check_allowed(self, "num_selected", 1, num_clients, num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Average the models selected."""
        n, f, m = len(round), self.num_malicious, self.num_selected
        if n < max(f + 3, m):
            settings = f"num_malicious {f} and num_selected {m}"
            return Outcome.refuse(self, f"{n} valid models; {settings} need {max(f + 3, m)}")
        guaranteed = n > 2 * f + 2
        if not guaranteed:
            log(
                WARNING,
                "%s: no guarantee: %d valid models, of which %d may be malicious",
                type(self).__name__,
                n,
                f,
            )
        votes = np.zeros(n)
        chosen = krum(round.distances.squared, f, m)
        votes[chosen] = round.votes[chosen]
        return Outcome(round.mean(votes), votes, {"guarantee": int(guaranteed)})


class Krum(MultiKrum):
    """Take over the one model that lies closest to its nearest neighbours.

    Parameters
    ----------
    num_malicious, **arguments
        As for `MultiKrum`.
    """

    def __init__(self, num_malicious: int, **arguments: Any) -> None:
        super().__init__(num_malicious, 1, **arguments)
