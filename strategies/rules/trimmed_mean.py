"""Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates.

[Yin et al., 2018], Definition 2 and Algorithm 1, option II: the coordinate-wise trimmed mean.

Paper: https://arxiv.org/abs/1803.01498
"""

from logging import INFO
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from ..checks import is_finite_number
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
    rate is for data drawn independently from one distribution. *Cost*: two selections among n
    values for each of d coordinates.

    *Known weaknesses*: updates within the honest spread of each coordinate (ALIE, Fang) stay.
    """

    def __init__(self, beta: float = 0.2, **arguments: Any) -> None:
        super().__init__(**arguments)
        if not (is_finite_number(beta) and 0 <= beta < 0.5):
            raise ValueError(f"beta = {beta!r} must be a number from 0 to below 0.5")
        self.beta = beta

    def summary(self) -> None:
        """Log the settings of the strategy."""
        log(INFO, "\t├──> TrimmedMean: beta %g", self.beta)
        super().summary()

    def aggregate(self, round: Round) -> Outcome:
        """Return the trimmed mean of the models."""
        cut = int(self.beta * len(round))
        return Outcome(trimmed_mean(round.models, cut), notes={"trimmed": cut})
