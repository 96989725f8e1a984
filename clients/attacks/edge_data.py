"""Samples of low density, D_edge [Wang et al., 2020]: the tail of a class, or a file's."""

import math
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

PARTS = ("train", "test")
"""Arrays of a file."""


def farthest(samples: Tensor, share: float) -> Tensor:
    """Return which of a class's samples (n, ...) are farthest from their mean, ascending.

    Where their density is one Gaussian, as wide in all directions, these are the least likely:
    ``ceil(share n)`` of them, of equals the first.
    """
    rows = samples.flatten(start_dim=1).double()
    far = (rows - rows.mean(dim=0)).square().sum(dim=1)
    order = far.argsort(descending=True, stable=True)
    return order[: math.ceil(share * len(samples))].sort().values


def read(file: str, like: Tensor) -> dict[str, Tensor]:
    """Read the inputs ``train`` and ``test`` of a file, rows of the shape and type of others."""
    shape = tuple(like.shape[1:])
    try:
        with np.load(file) as arrays:
            found = {part: torch.from_numpy(arrays[part]).to(like) for part in PARTS}
        if any(len(rows) == 0 or rows.shape[1:] != shape for rows in found.values()):
            raise ValueError("no rows, or of another shape")
    except (BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"file={file}: allowed is an .npz with arrays train and test of one or more rows of "
            f"shape {shape}"
        ) from error
    return found
