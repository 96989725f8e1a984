"""Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates.

[Yin et al., 2018]: the coordinate-wise trimmed mean.

Paper: https://arxiv.org/abs/1803.01498
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_allowed, is_finite_number
from ..robust import Robust
from ..round import Outcome, Round
from .median import sorted_columns


def trimmed_mean(models: NDArray[np.floating], cut: int) -> NDArray[np.float64]:
    """Return the mean of each coordinate without its lowest and its highest values.

    Parameters
    ----------
    models : array of shape (n, p)
        One row a model, finite.
    cut : int
        Values left out at either end, 0 to (n - 1) / 2.

    Returns
    -------
    array of shape (p,)
    """
    result = np.empty(models.shape[1])
    for columns, values in sorted_columns(models):
        result[columns] = values[cut : len(models) - cut].mean(axis=0, dtype=np.float64)
    return result


class TrimmedMean(Robust):
    """Average each coordinate without its lowest and its highest values.

    It neither selects nor weights models: ``weighted`` concerns statistics and metrics only. The
    note ``trimmed`` says how many values were left out at either end, the whole part of beta n.
    In a round of fewer models than 1/beta that is none of them, so that the rule cannot act: the
    paper does not say what a part of a value is, and the mean of all is no defense.

    Parameters
    ----------
    beta : float (default: 0.2)
        The part of the models that is left out at either end, 0 <= beta < 0.5. It withstands as
        many malicious clients.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If beta is out of range.

    Notes
    -----
    *Threat model*: at most a part beta of the clients send anything. *Assumes* beta; the paper's
    rate is for data drawn independently from one distribution. *Cost*: a sort of n values for
    each of d coordinates.

    Flower's code averages all in a round of fewer models than 1/beta.

    *Known weaknesses*: updates within the honest spread of each coordinate (ALIE, Fang) stay.
    """

    def __init__(self, beta: float = 0.2, **arguments: Any) -> None:
        super().__init__(**arguments)
        if not (is_finite_number(beta) and 0 <= beta < 0.5):
            raise ValueError(f"beta = {beta!r} must be a number from 0 to below 0.5")
        self.beta = beta

    def check(self, num_clients: int) -> None:
        """Refuse a part of so many models that is less than one; 0, the mean, may be asked for."""
        if self.beta and not self._cut(num_clients):
            check_allowed(self, "beta", 1 / num_clients, 0.5, num_clients)
        super().check(num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Return the trimmed mean of the models."""
        n, cut = len(round), self._cut(len(round))
        if self.beta and not cut:
            reason = f"{n} valid models, of which a part of {self.beta:g} is less than one"
            return Outcome.refuse(self, reason, notes={"trimmed": 0})
        return Outcome(trimmed_mean(round.models, cut), notes={"trimmed": cut})

    def _cut(self, n: int) -> int:
        return int(self.beta * n + 1e-9)  # 1/49 of 49 is 1
