"""Updates without their smallest coordinates."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .updates import Updates


def smallest_kept(updates: Updates, sparsity: float) -> NDArray[np.float64]:
    """Return the size of the smallest coordinate in the top ``(1 - s) p`` of each update."""
    p = updates.shape[1]
    dropped = min(p - 1, int(sparsity * p))
    return np.array(
        [np.partition(np.abs(updates[i]), dropped)[dropped] for i in range(len(updates))]
    )


def sparsified(
    updates: Updates, least: NDArray[np.float64], layer: slice
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield columns of a layer, and the updates there without coordinates below the least."""
    for columns, block in updates.blocks(layer):
        block[np.abs(block) < least[:, np.newaxis]] = 0
        yield columns, block
