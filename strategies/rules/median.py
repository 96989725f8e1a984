"""Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates.

[Yin et al., 2018]: the coordinate-wise median.

Paper: https://arxiv.org/abs/1803.01498
"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..robust import Robust
from ..round import Outcome, Round

_BLOCK_SIZE = 2**17
"""Values that are sorted at a time: few enough for the processor's cache."""


def sorted_columns(
    models: NDArray[np.floating], rows: NDArray[np.intp] | slice = slice(None)
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Sort each coordinate of models, shape (n, p), a block of columns at a time.

    Yields
    ------
    tuple of slice and array of shape (n, w)
        Columns, and their values sorted along axis 0, in the models' dtype.
    """
    width = max(1, _BLOCK_SIZE // len(models))
    for start in range(0, models.shape[1], width):
        columns = slice(start, start + width)
        yield columns, np.sort(models[:, columns][rows], axis=0)


def median(models: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the median of each coordinate; of an even number the mean of the middle two.

    Parameters
    ----------
    models : array of shape (n, p)
        One row a model, finite.

    Returns
    -------
    array of shape (p,)
    """
    n = len(models)
    result = np.empty(models.shape[1])
    for columns, values in sorted_columns(models):
        result[columns] = values[[(n - 1) // 2, n // 2]].mean(axis=0, dtype=np.float64)
    return result


class Median(Robust):
    """Take the coordinate-wise median of the models.

    It neither selects nor weights models: ``weighted`` concerns statistics and metrics only.

    Parameters
    ----------
    **arguments
        As for `strategies.Robust`.

    Notes
    -----
    *Threat model*: fewer than half of the clients send anything. *Assumes* nothing of their number;
    the paper's rate is for data drawn independently from one distribution. *Cost*: a sort of n
    values for each of d coordinates.

    BackFed takes torch's median, the lower of the middle two.

    *Known weaknesses*: where clients hold unlike data the median of a coordinate can be far from
    its mean. Updates within the honest spread of each coordinate (ALIE) shift it.
    """

    exceptions: ClassVar[dict[str, str]] = {
        "few replies": "the median of two values is their mean, by definition"
    }

    def aggregate(self, round: Round) -> Outcome:
        """Return the median of the models."""
        return Outcome(median(round.models))
