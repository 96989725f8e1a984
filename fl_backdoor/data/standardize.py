"""Columns with mean 0 and standard deviation 1, fitted on the training rows only."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = float(np.finfo(np.float32).max)
"""The largest feature that float32 holds."""


def standardize(train: NDArray[Any], test: NDArray[Any]) -> None:
    """Scale both splits in place; a column that is constant in training becomes 0 in both.

    Parameters
    ----------
    train, test
        Shapes (n, d) and (m, d), floating point, of one type, n at least 1.
    """
    mean = train.mean(axis=0, dtype=np.float64).astype(train.dtype)
    deviation = train.std(axis=0, dtype=np.float64).astype(train.dtype)
    # Compared too, because rounding may keep the deviation of a constant from being 0.
    constant = (train.min(axis=0) == train.max(axis=0)) | (deviation == 0)
    deviation[constant] = 1
    for split in (train, test):
        split -= mean
        split /= deviation
        split[:, constant] = 0
