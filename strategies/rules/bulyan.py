"""The Hidden Vulnerability of Distributed Learning in Byzantium.

[El Mhamdi et al., 2018]: Bulyan on top of Krum.

Paper: https://proceedings.mlr.press/v80/mhamdi18a.html
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_allowed, check_count
from ..robust import Robust
from ..round import Outcome, Round
from .krum import krum_scores
from .median import sorted_columns


def bulyan_selection(squared: NDArray[np.float64], f: int) -> NDArray[np.intp]:
    """Take theta = n - 2 f models one by one, each the choice of Krum among those left.

    Parameters
    ----------
    squared : array of shape (n, n)
        Squared Euclidean distances between the models.
    f : int
        Malicious models.

    Returns
    -------
    array of shape (theta,)
        Rows, in the order in which they were taken; of equal scores the lowest row.
    """
    left = np.arange(len(squared))
    taken = []
    for _ in range(len(squared) - 2 * f):
        # With f < 2 the last choices have fewer than one neighbour; then the nearest decides.
        neighbours = max(1, len(left) - f - 2)
        best = int(krum_scores(squared[np.ix_(left, left)], neighbours).argmin())
        taken.append(left[best])
        left = np.delete(left, best)
    return np.array(taken)


def mean_around_median(
    models: NDArray[np.floating], rows: NDArray[np.intp], beta: int
) -> NDArray[np.float64]:
    """Average, in each coordinate, the values nearest to the median.

    Parameters
    ----------
    models : array of shape (n, p)
        One row a model, finite.
    rows : array of shape (theta,)
        The models that count.
    beta : int
        How many of their values to average, 1 to theta; of two equally near the smaller.

    Returns
    -------
    array of shape (p,)
    """
    result = np.empty(models.shape[1])
    for columns, block in sorted_columns(models, rows):
        result[columns] = nearest_to_median(block.astype(np.float64), beta).mean(axis=0)
    return result


def nearest_to_median(values: NDArray[np.float64], beta: int) -> NDArray[np.float64]:
    """Return the beta values of each sorted column nearest to its median, the nearest first."""
    theta, width = values.shape
    middle = (values[(theta - 1) // 2] + values[theta // 2]) / 2
    beyond = np.full((1, width), np.inf)
    padded = np.concatenate([-beyond, values, beyond])
    nearest = np.empty((beta, width))
    # Those taken lie side by side; the next is the nearer of the two around them.
    below = (theta + 1) // 2 * width + np.arange(width)
    for k in range(beta):
        lower, upper = padded.take(below), padded.take(below + (k + 1) * width)
        down = middle - lower <= upper - middle
        nearest[k] = np.where(down, lower, upper)
        below -= width * down
    return nearest


class Bulyan(Robust):
    """Average around the median of the models that Krum chooses one after the other.

    It votes for the models chosen, of which each counts once: ``weighted`` concerns statistics and
    metrics only.

    Parameters
    ----------
    num_malicious : int
        f, the malicious clients to withstand. In a round of fewer than 4 f + 3 valid models the
        rule cannot act.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If ``num_malicious`` is not an integer from 0.

    Notes
    -----
    *Threat model*: f of n >= 4 f + 3 clients send anything, and know all updates. *Assumes* f, and
    updates drawn independently from one distribution. *Cost*: O(n^2 d), n - 2 f sorts of the
    distances, and one of each coordinate.

    Flower's code takes the n - 2 f of least score at once, without choosing anew among those left.

    *Known weaknesses*: as of Krum; of each coordinate it averages n - 4 f values, 3 of n at worst,
    which costs accuracy where clients hold unlike data.
    """

    def __init__(self, num_malicious: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_count(num_malicious=num_malicious)
        self.num_malicious = num_malicious

    def check(self, num_clients: int) -> None:
        """Refuse more malicious clients than the rule can ever withstand."""
        check_allowed(self, "num_malicious", 0, (num_clients - 3) // 4, num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Average theta - 2 f values of each coordinate."""
        n, f = len(round), self.num_malicious
        if n < 4 * f + 3:
            return Outcome.refuse(self, f"{n} valid models; num_malicious {f} needs {4 * f + 3}")
        taken = bulyan_selection(round.distances.squared, f)
        votes = np.zeros(n)
        votes[taken] = round.votes[taken]
        return Outcome(mean_around_median(round.models, taken, n - 4 * f), votes)
