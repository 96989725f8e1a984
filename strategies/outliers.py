"""How unusual numbers are among others."""

import numpy as np
from numpy.typing import NDArray


def mz_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``|x_i - median| / std``, shape (n,); 0 where all are equal up to rounding."""
    apart, std = np.abs(values - np.median(values)), np.std(values)
    if std <= 1e-12 * np.abs(values).max():
        return np.zeros_like(values)
    scores: NDArray[np.float64] = apart / std
    return scores
