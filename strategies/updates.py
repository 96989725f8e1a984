"""What clients changed, made block by block as it is asked for."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph.distances import distances_from

_BLOCK_SIZE = 2**20
"""Values in a block of updates."""


class Updates:
    """What clients changed, models - center in float64, of which only what is asked for is made.

    ``updates[rows]`` and ``updates[rows, columns]`` are arrays. Stored whole it would be twice the
    models; rounded to their float32 it would be another one than the models say.

    Parameters
    ----------
    models : array of shape (n, p)
        One row a client.
    center : array of shape (p,)
        The global model that they started from.
    """

    def __init__(self, models: NDArray[np.floating], center: NDArray[np.floating]) -> None:
        self._models = models
        self._center = center
        self.shape = models.shape

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, index: Any) -> NDArray[np.float64]:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        difference: NDArray[np.float64] = np.subtract(
            self._models[rows][..., columns], self._center[columns], dtype=np.float64
        )
        return difference

    def __matmul__(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the inner product of each update with a vector of shape (p,), shape (n,)."""
        products = np.zeros(len(self))
        for columns, block in self.blocks():
            products += block @ vector[columns]
        return products

    def blocks(
        self, within: slice = slice(None), size: int = _BLOCK_SIZE
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield columns, of some or all, and the updates of all clients there, shape (n, w).

        A block holds ``size`` values at most, if a column does.
        """
        first, last, _ = within.indices(self.shape[1])
        width = max(1, size // max(1, len(self)))
        for start in range(first, last, width):
            columns = slice(start, min(start + width, last))
            yield columns, self[:, columns]

    @cached_property
    def cosines(self) -> NDArray[np.float64]:
        """The cosine of each two updates, shape (n, n); 0 where one of them is 0."""
        gram = np.zeros((len(self), len(self)))
        for _, block in self.blocks():
            gram += block @ block.T
        return cosines(gram)

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """The Euclidean norm of each update, shape (n,)."""
        return distances_from(self._center, self._models)


def cosines(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of each two vectors, from -1 to 1; 0 where one of them is 0.

    Parameters
    ----------
    gram : array of shape (n, n)
        Their inner products.
    """
    norms = np.sqrt(np.diagonal(gram))
    units = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    bounded: NDArray[np.float64] = np.clip(units[:, np.newaxis] * gram * units, -1, 1)
    return bounded
