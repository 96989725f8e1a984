"""Euclidean distances between every pair of client models, fast and with exact threshold tests.

The Sniper defense draws an edge between two clients when Dis(M_i, M_j) < gamma (Cao et al. 2019,
Eq. 6 and Algorithm 2) for several gamma in turn. With b_i = M_i - c for some centre c,

    Dis(M_i, M_j)^2 = b_i.b_i + b_j.b_j - 2 b_i.b_j

takes one matrix product, but cancels where two models are much closer to each other than to c.
The rounding bound of an inner product (Higham 2002) tells which pairs those are. They
form clusters, and a cluster is done again centred on one of its own members.
"""

import numpy as np
from numpy.typing import NDArray

# Largest relative error of a distance. Far tighter than a report needs, so that next to no pair
# is too close to a threshold to be decided without looking at its models again.
TOLERANCE = 1e-8
# Models of at least this norm have squared distances that may overflow float64.
NORM_LIMIT = 1e150
# Under this distance the squares underflow float64 (differences of float32 never do).
_TINY = 1e-150
# Values per block of columns (8 MiB): small beside the models, but few calls of the product,
# each of which waits for all threads.
_BLOCK_SIZE = 2**20
# Values of a row at a time that stay in the processor's cache; over 128, numpy's last halves.
_IN_CACHE = 2**15
# Rounding steps outside the inner products: centring, the three-term sum, and those of the
# float64 differences that thresholds are defined by (numpy sums these pairwise, log2(d) deep).
_OTHER_ROUNDINGS = 64


def distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the Euclidean distance of two vectors of shape ``(d,)``, Eq. 6, in float64.

    Not ``numpy.linalg.norm``: its last bits depend on the number of threads.
    """
    difference = np.subtract(first, second, dtype=np.float64)
    return float(np.sqrt(np.sum(np.square(difference, out=difference))))


def distances_from(point: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the `distance` of a point (d,) from each row (d,), shape (n,), to the same bits.

    The point is converted once for all rows, and a block of columns stays in the cache.
    """
    return np.sqrt(_squares(point, rows))


def _squares(point: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Halve columns where numpy's pairwise sum does, so that blocks do not change its order."""
    if len(point) > _IN_CACHE:
        half = len(point) // 2 - len(point) // 2 % 8
        return _squares(point[:half], rows[:, :half]) + _squares(point[half:], rows[:, half:])
    center, difference = point.astype(np.float64), np.empty(len(point))
    squares = np.empty(len(rows))
    for i, row in enumerate(rows):
        np.subtract(row, center, out=difference)
        squares[i] = np.sum(np.square(difference, out=difference))
    return squares


class PairwiseDistances:
    """Distances between the rows of a matrix of client models.

    The rows are read again by `below`: do not change them while this object is in use. For a
    fixed number of BLAS threads the same input gives the same output, bit for bit.

    Parameters
    ----------
    models : ndarray of float16, float32 or float64, shape (n, d)
        One client model M_i per row, in the unit of the parameters. Never written to.

    Raises
    ------
    ValueError
        If `models` is not a matrix of that kind with n, d >= 1, or a row holds NaN or infinity or
        has a norm of `NORM_LIMIT` or more; the message names the first such row.
    """

    def __init__(self, models: NDArray[np.floating]) -> None:
        if models.ndim != 2 or models.size == 0:
            raise ValueError(f"models must be a non-empty (n, d) matrix, got shape {models.shape}")
        if models.dtype.kind != "f" or models.dtype.itemsize > 8:
            raise ValueError(f"models must be float16, float32 or float64, got {models.dtype}")
        n = len(models)
        self._models = models
        with np.errstate(over="ignore", invalid="ignore"):
            self._norms = distances_from(np.broadcast_to(0.0, models.shape[1]), models)
        for i in np.flatnonzero(~(self._norms < NORM_LIMIT)):
            raise ValueError(f"row {i} holds NaN or infinity, or values too large to square")
        self._squared = np.zeros((n, n))
        self._is_direct = np.eye(n, dtype=np.bool_)

        clusters = [np.arange(n)]
        while clusters:
            clusters += self._measure(clusters.pop())

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Distances Dis(M_i, M_j), shape (n, n), in the unit of the models; a copy.

        Symmetric with a zero diagonal, 0 for equal rows, and within a relative `TOLERANCE` of the
        float64 differences (an absolute 1e-150 for distances under 1e-140).
        """
        return np.sqrt(self._squared)

    @property
    def squared(self) -> NDArray[np.float64]:
        """Squared distances, shape (n, n): as `matrix`, without the rounding of the root."""
        return self._squared.copy()

    def below(self, threshold: float) -> NDArray[np.bool_]:
        """Tell which pairs are closer than a threshold, as the float64 differences decide it.

        Parameters
        ----------
        threshold : float
            gamma of Eq. 6, in the unit of the models. Nothing is below 0 or NaN.

        Returns
        -------
        ndarray of bool, shape (n, n)
            Symmetric; False on the diagonal.
        """
        if not threshold > 0:
            return np.zeros_like(self._is_direct)
        distances = self.matrix
        slack = TOLERANCE * distances + _TINY
        near = np.abs(distances - threshold) <= slack
        self._measure_directly(*np.nonzero(np.triu(near & ~self._is_direct)))
        edges: NDArray[np.bool_] = self.matrix < threshold
        np.fill_diagonal(edges, False)
        return edges

    def release(self) -> None:
        """Let go of the models: `matrix` stays, `below` is not to be asked any more."""
        del self._models

    def _measure(self, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Set the distances among `rows`; return the clusters in it that need a nearer centre."""
        # The row of median norm, so that a few huge ones cannot spoil the centre for the others.
        # Its own distances never cancel: each returned cluster lacks it, so this comes to an end.
        centre = rows[np.argsort(self._norms[rows], kind="stable")[len(rows) // 2]]
        d = self._models.shape[1]
        gram = np.zeros((len(rows), len(rows)))
        width = min(d, max(1, _BLOCK_SIZE // len(rows)))
        buffer = np.empty(len(rows) * width)  # touched once, not once a block
        for start in range(0, d, width):
            columns = self._models[:, start : start + width]
            some = columns if len(rows) == len(columns) else columns[rows]
            block = buffer[: some.size].reshape(some.shape)
            np.copyto(block, some)
            block -= columns[centre].astype(np.float64)
            gram += block @ block.T  # numpy turns this into syrk: half the work, and symmetric

        squares = np.diagonal(gram)
        squared = np.maximum(np.add.outer(squares, squares) - 2 * gram, 0)
        norms = np.sqrt(squares)
        roundings = width + -(-d // width) + _OTHER_ROUNDINGS
        error = roundings * np.finfo(np.float64).eps / 2 * np.add.outer(norms, norms) ** 2
        cancelled = error > TOLERANCE * squared
        np.fill_diagonal(cancelled, False)
        np.fill_diagonal(squared, 0)
        self._squared[np.ix_(rows, rows)] = squared

        if not cancelled.any():
            return []
        from scipy.sparse import csr_array  # here, since it is slow to import and seldom needed
        from scipy.sparse.csgraph import connected_components

        _, labels = connected_components(csr_array(cancelled), directed=False)
        clusters = []
        for label in np.flatnonzero(np.bincount(labels) > 1):
            members = np.flatnonzero(labels == label)
            first, second = np.nonzero(np.triu(cancelled[np.ix_(members, members)]))
            # In units of one difference of two models, a new pass costs about this much.
            if len(first) > len(members) + len(members) ** 2 / 128:
                clusters.append(rows[members])
            else:
                self._measure_directly(rows[members[first]], rows[members[second]])
        return clusters

    def _measure_directly(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> None:
        """Set the distances of the pairs (first[k], second[k]) from float64 differences."""
        for i, j in zip(first, second, strict=True):
            difference = np.subtract(self._models[i], self._models[j], dtype=np.float64)
            np.multiply(difference, difference, out=difference)
            self._squared[i, j] = self._squared[j, i] = np.sum(difference)
            self._is_direct[i, j] = self._is_direct[j, i] = True
