"""Files of arrays: safetensors that keep the order of their names, and a note."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UserError
from ..files import write

_NOTE = "fl-backdoor"


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], note: Mapping[str, Any]) -> None:
    """Replace a file by arrays, and a note that JSON can hold."""
    # safetensors stores memory as it lies, and sorts the names: both must be put right.
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # One entry of metadata: safetensors writes several in random order, other bytes each time.
    text = json.dumps({**note, "order": list(tensors)}, allow_nan=False)
    write(path, save(tensors, metadata={_NOTE: text}))


def load_arrays(
    path: Path, names: Iterable[str] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays in their order, or those of these names, and the note.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            note: dict[str, Any] = dict(json.loads(file.metadata()[_NOTE]))
            names = note["order"] if names is None else names
            return {name: file.get_tensor(name) for name in names}, note
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
