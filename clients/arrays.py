"""Arrays of a Flower message, read and written without numpy's parsing of each header.

`Array.numpy()` and `Array(ndarray)` spend most of their time on a header that all arrays of a
layer share; here it is parsed once. What is written has the bytes of ``numpy.save``.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]

_STYPE = "numpy.ndarray"
_VERSION_1 = b"\x93NUMPY\x01\x00"
_PREFIX = len(_VERSION_1) + 2


def decode(array: Array) -> NDArray[Any]:
    """Return what an Array holds; read-only, and not a copy where it need not be."""
    data = array.data
    if array.stype == _STYPE and data.startswith(_VERSION_1):
        start = _PREFIX + int.from_bytes(data[_PREFIX - 2 : _PREFIX], "little")
        shape, fortran, dtype = _parsed(data[:start])
        count = math.prod(shape)
        if count and not fortran and not dtype.hasobject:
            return np.frombuffer(data, dtype, count, start).reshape(shape)
    decoded = array.numpy()
    decoded.flags.writeable = False
    return decoded


def decoded(record: ArrayRecord) -> Arrays:
    """Return all arrays of a record, by name."""
    return {name: decode(array) for name, array in record.items()}


def encode(array: NDArray[Any]) -> Array:
    """Return the Array that holds an array."""
    array = np.asarray(array)
    return Array(
        dtype=str(array.dtype),
        shape=tuple(array.shape),
        stype=_STYPE,
        data=_header(array.dtype, array.shape) + array.tobytes(),
    )


def encoded(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return the record that holds arrays."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = encode(array)
    return record


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array: float32 for bfloat16, which numpy does not have."""
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


@lru_cache(maxsize=4096)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = BytesIO(header)
    np.lib.format.read_magic(stream)
    return np.lib.format.read_array_header_1_0(stream)


@lru_cache(maxsize=4096)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()
