"""A model as one vector: where each of its arrays lies, and which are parameters."""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

STATISTICS = ("*running_mean", "*running_var")
"""What PyTorch calls the statistics of BatchNorm."""

_LOOKALIKES = re.compile(r"moving_|running|batch_stats")
_LONGEST_HEADER = 10_000
"""Bytes, as numpy allows itself."""
_BLOCK = 2**16
"""Columns at a time: small enough for the processor's cache."""
_FEW = 2**17
"""Values of all rows at a time, for the same reason."""


class Layout:
    """The columns of a matrix of models: parameters first, then statistics.

    Arrays of integers (BatchNorm's number of batches) are *counters*, which no column holds:
    float32 counts to 2^24 only.

    Parameters
    ----------
    arrays : mapping of name to array
        A model, for its names, shapes and dtypes.
    statistics : iterable of str
        Patterns (as in file names) of floating-point arrays that are no parameters, beside
        PyTorch's names of BatchNorm's running mean and variance.

    Attributes
    ----------
    shapes : dict from name to shape
        The floating-point arrays, in the order of the columns.
    dtypes : dict from name to dtype
        Theirs.
    counters : tuple of str
        The other arrays.
    dtype : dtype
        Of the columns: one that holds them all.
    parameters, statistics, last_layer : slice
        Columns. The last layer is the last array of two or more axes and what follows it: the
        weights and the bias of the output.
    """

    def __init__(self, arrays: Mapping[str, Any], statistics: Iterable[str] = ()) -> None:
        self.counters = tuple(name for name, array in arrays.items() if not is_floating(array))
        floating = [name for name in arrays if name not in set(self.counters)]
        patterns = (*STATISTICS, *statistics)
        spared = {n for n in floating if any(fnmatchcase(n, pattern) for pattern in patterns)}
        names = [n for n in floating if n not in spared] + [n for n in floating if n in spared]
        self.shapes = {name: tuple(arrays[name].shape) for name in names}
        self.dtypes = {name: np.dtype(arrays[name].dtype) for name in names}
        self.dtype = np.dtype(np.result_type(np.float32, *self.dtypes.values()))
        self._starts: dict[str, int] = {}
        self.size = 0
        last = parameters = 0
        for name, shape in self.shapes.items():
            self._starts[name] = self.size
            if name not in spared:
                last = self.size if len(shape) >= 2 or not parameters else last
                parameters = self.size + math.prod(shape)
            self.size += math.prod(shape)
        self.parameters = slice(0, parameters)
        self.statistics = slice(parameters, self.size)
        self.last_layer = slice(last, parameters)

    def columns(self, name: str) -> slice:
        """Return the columns of a floating-point array."""
        start = self._starts[name]
        return slice(start, start + math.prod(self.shapes[name]))

    def holds(self, parameters: NDArray[np.float64]) -> bool:
        """Tell whether parameters, shape (p,), are finite in the precision of their arrays."""
        return all(
            has_finite_norm(parameters[self.columns(name)], self.dtypes[name])
            for name in self.parameter_names
        )

    def neurons(
        self, layer: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Part columns of the last layer by output neuron; None if it is no dense layer.

        Parameters
        ----------
        layer : array of shape (n, w)
            The columns `last_layer`.

        Returns
        -------
        weights : array of shape (n, P, h)
            Of each of the P neurons; in PyTorch's order (P, h), or in that of Keras and JAX.
        biases : array of shape (n, P)
            0 without a bias.
        """
        places = {start: name for name, start in self._starts.items()}
        shape = self.shapes.get(places.get(self.last_layer.start, ""), ())
        if len(shape) != 2:
            return None
        weights = layer[:, : math.prod(shape)].reshape(len(layer), *shape)
        biases = layer[:, math.prod(shape) :]
        if biases.shape[1] == shape[1] != shape[0]:
            weights = weights.swapaxes(1, 2)
        if biases.shape[1] not in (0, weights.shape[1]):
            return None
        return weights, biases if biases.size else np.zeros(weights.shape[:2])

    def fill(self, row: NDArray[np.floating], values: Mapping[str, NDArray[Any]]) -> None:
        """Lay a model's arrays into a row of shape ``(d,)``; what is missing is left as it was."""
        with np.errstate(over="ignore"):
            for name in self.shapes:
                if name in values:
                    row[self.columns(name)] = values[name].ravel()

    def arrays(
        self, parameters: NDArray[np.floating], statistics: NDArray[np.floating]
    ) -> Iterator[tuple[str, Array]]:
        """Yield the arrays of a model's parts (p,) and (s,), in their own dtypes and shapes."""
        for name, shape in self.shapes.items():
            columns = self.columns(name)
            part, before = parameters, 0
            if columns.start >= self.parameters.stop:
                part, before = statistics, self.parameters.stop
            values = part[columns.start - before : columns.stop - before].reshape(shape)
            yield name, to_array(values, self.dtypes[name])

    @property
    def parameter_names(self) -> list[str]:
        """The arrays that are parameters, in order."""
        return [n for n, start in self._starts.items() if start < self.parameters.stop]

    def lookalikes(self, values: Mapping[str, NDArray[Any]]) -> list[str]:
        """Return parameters that may be statistics by another framework's name.

        Keras and Flax name moving averages; lists of arrays have numbers for names, and a
        variance among them is a vector of nothing but positive values.
        """
        return [
            name
            for name in self.parameter_names
            if _LOOKALIKES.search(name)
            or (
                name.isdecimal()
                and values[name].ndim == 1
                and values[name].size > 1
                and bool((values[name] > 0).all())
            )
        ]


def decode(array: Array) -> NDArray[Any]:
    """View the bytes of a Flower array as a read-only numpy array, without a copy.

    Raises
    ------
    ValueError
        If the bytes are not exactly one plain (not pickled) numpy array.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"unknown serialization {array.stype!r:.40}")
    data = array.data
    # The length of the header stands in 2 bytes behind its version, or in 4.
    width = 2 if data[6:7] == b"\x01" else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > _LONGEST_HEADER:
        raise ValueError(f"a header of {start} bytes")
    shape, fortran_order, dtype = _header(data[:start])
    if dtype.hasobject:
        raise ValueError("pickled objects")
    flat = np.frombuffer(data, dtype, offset=start)
    values = flat.reshape(shape, order="F" if fortran_order else "C")
    if values.shape != shape:  # -1 stands for "whatever fits" here, and is an error in np.load
        raise ValueError(f"shape {shape}")
    return values


@lru_cache(maxsize=1024)
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and dtype; the headers of a model's arrays are alike for all clients."""
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"unknown array format {version}")


def decoded(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """View all arrays of a record; those of a record of our own cannot fail."""
    return {name: decode(array) for name, array in arrays.items()}


def is_floating(array: Array | NDArray[Any]) -> bool:
    """Tell trained parameters from counters (such as BatchNorm's number of batches)."""
    return np.issubdtype(np.dtype(array.dtype), np.floating)


def to_array(values: NDArray[Any] | np.float64, dtype: np.dtype[Any]) -> Array:
    """Convert to a dtype: counters are rounded, and stop short of wrapping around."""
    if dtype.kind in "biu" and dtype != values.dtype:
        values = np.rint(values)
    if dtype.kind in "iu" and dtype != values.dtype:
        info = np.iinfo(dtype)
        largest = float(info.max)
        if largest > info.max:  # float64 rounds the largest 64-bit integers up
            largest = float(np.nextafter(largest, 0))
        values = np.clip(values, info.min, largest)
    with np.errstate(over="ignore"):
        return Array(np.asarray(values).astype(dtype, copy=False))


def has_finite_norm(values: NDArray[np.floating], dtype: np.dtype[Any] | None = None) -> bool:
    """Check that squared distances to these values stay finite in float64.

    With a ``dtype`` also that they fit into it, to which they are to be converted.
    """
    if not values.size:
        return True
    largest = max(abs(float(values.max())), abs(float(values.min())))  # NaN wins both
    narrow = dtype is not None and dtype.kind == "f"
    return largest < 1e140 and not (narrow and largest > float(np.finfo(dtype).max))


def weighted_sum(
    rows: NDArray[np.floating], weights: NDArray[np.float64], order: Iterable[int]
) -> NDArray[np.float64]:
    """Return the sum of ``weights[i] * rows[i]``, shape (d,), accumulated in float64 in an order.

    Rows of weight 0 are left out: they may hold what is not finite.
    """
    total = np.zeros(rows.shape[1])
    chosen = [i for i in order if weights[i]]
    part = np.empty(min(_BLOCK, total.size))
    for start in range(0, total.size, _BLOCK):
        block = total[start : start + _BLOCK]
        term = part[: block.size]
        for i in chosen:
            np.multiply(rows[i, start : start + _BLOCK], weights[i], out=term, dtype=np.float64)
            np.add(block, term, out=block)
    return total


def distances_to(rows: NDArray[np.floating], point: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Euclidean distance of each row (d,) to a point (d,), shape (n,), in float64.

    A block of columns at a time, which takes no memory of a row's size.
    """
    squares = np.zeros(len(rows))
    part = np.empty(min(_BLOCK, rows.shape[1]))
    for start in range(0, rows.shape[1], _BLOCK):
        there = point[start : start + _BLOCK]
        difference = part[: there.size]
        for i, row in enumerate(rows[:, start : start + _BLOCK]):
            np.subtract(row, there, out=difference, dtype=np.float64)
            squares[i] += np.sum(np.square(difference, out=difference))
    return np.sqrt(squares)


def overwrite(
    rows: NDArray[np.floating], mix: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.floating]:
    """Replace rows by mixtures of them, in place; return those that are left, shape (m, d).

    Parameters
    ----------
    rows : array of shape (n, d)
        Overwritten.
    mix : callable
        Of columns of all rows, shape (n, w), makes those of the m <= n mixtures, shape (m, w).
    """
    left, width = len(rows), max(1, _FEW // len(rows))
    for start in range(0, rows.shape[1], width):
        block = rows[:, start : start + width]
        mixed = mix(block.astype(np.float64))
        left = len(mixed)
        block[:left] = mixed
    return rows[:left]


def content_order(rows: NDArray[np.floating]) -> list[int]:
    """Order rows by their bytes, so that no sum depends on who answered first."""
    groups = [list(range(len(rows)))]
    start, width = 0, 64
    while start < rows.shape[1] and any(len(group) > 1 for group in groups):
        finer = []
        for group in groups:
            keys = {i: rows[i, start : start + width].tobytes() for i in group}
            group.sort(key=keys.__getitem__)
            finer += [list(equal) for _, equal in groupby(group, key=keys.__getitem__)]
        groups = finer
        start, width = start + width, 4 * width
    return [i for group in groups for i in group]
