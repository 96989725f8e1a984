"""Robust Aggregation for Federated Learning [Pillutla, Kakade, Harchaoui, 2022].

The geometric median by the smoothed Weiszfeld algorithm.

Paper: https://arxiv.org/abs/1912.13445
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count, check_positive
from ..robust import Robust
from ..round import Outcome, Round
from ..vectors import distances_to, weighted_sum


def weiszfeld(
    models: NDArray[np.floating],
    alpha: NDArray[np.float64],
    z: NDArray[Any],
    nu: float,
    budget: int,
    order: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Approximate ``argmin_z sum_i alpha_i |z - w_i|``.

    ``z <- sum_i beta_i w_i / sum_i beta_i``, where ``beta_i = alpha_i / max(nu, |z - w_i|)``.

    Parameters
    ----------
    models : array of shape (n, p)
        w_i, one row a model, finite.
    alpha : array of shape (n,)
        Weights, 0 or larger, not all of them 0.
    z : array of shape (p,)
        Where to begin.
    nu : float
        The least distance that counts, in the models' unit.
    budget : int
        R, how many times to do it, from 1.
    order : sequence of int
        The rows in the order of summation.

    Returns
    -------
    z : array of shape (p,)
        The new point.
    beta : array of shape (n,)
        The weights that made it, summing to 1.
    """
    for _ in range(budget):
        beta = alpha / np.maximum(nu, distances_to(models, z))
        beta /= beta.sum()
        del z  # two of them at once would be the largest thing here beside the models
        z = weighted_sum(models, beta, order)
    return z, beta


class GeometricMedian(Robust):
    """Take the point whose distances to all models have the least sum, nearly.

    Parameters
    ----------
    nu : float (default: 1e-6)
        nu, in the models' unit: models nearer than this count as if they were so far away.
    budget : int (default: 3)
        R, the iterations of the Weiszfeld algorithm.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If ``nu`` is not a positive finite number, or ``budget`` no integer from 1.

    Notes
    -----
    *Threat model*: fewer than half of the clients, by votes, send anything. *Assumes* nothing of
    their number; the paper's bound is for data whose spread between clients is bounded. *Cost*:
    2 R passes over n models of d parameters.

    It votes for each model by its last beta. It always acts: with one model, the answer is that.

    The paper leaves the first z open. Here it is the global model, where an update of any length
    counts as one step of unit length: after any R, the result is in reach of the honest updates.
    The authors' code begins with the mean, which one immense update carries away, and of which R
    iterations undo a factor of f / (n - f) each; it also stops before R where the objective no
    longer falls. FedML keeps weights in a set, where equal ones collapse.

    *Known weaknesses*: with few iterations it is between the normalised mean and the median.
    Updates that are not longer than others, as of a backdoor in data, count nearly as much as
    they do in the mean.
    """

    exceptions: ClassVar[dict[str, str]] = {
        "few replies": "the geometric median of one model is that model, by definition"
    }

    def __init__(self, nu: float = 1e-6, budget: int = 3, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_positive(nu=nu)
        check_count(1, budget=budget)
        self.nu, self.budget = nu, budget

    def aggregate(self, round: Round) -> Outcome:
        """Return the median; each model's vote is its weight in it."""
        alpha = round.shares(round.votes)
        arguments = (alpha, round.center, self.nu, self.budget, round.order)
        return Outcome(*weiszfeld(round.models, *arguments))
