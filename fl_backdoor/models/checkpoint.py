"""Weights to start from: a file or folder is read here, and nothing in it is run."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""The file that is read in a folder: a run directory's newest model, or Hugging Face's."""

_SHOWN = 3
"""Differences of either kind that an error names."""


def checkpoint_file(path: Path) -> Path:
    """Return the file of weights that a path means.

    Raises
    ------
    UserError
        If there is none.
    """
    if path.is_file():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    if path.is_dir():
        raise UserError(
            f"model.checkpoint={path}: allowed is a folder with {' or '.join(IN_FOLDER)}"
        )
    raise UserError(f"model.checkpoint={path}: no such file or folder")


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read tensors by name: from safetensors, or from what ``torch.save`` wrote of a state dict.

    Raises
    ------
    UserError
        If they cannot be read, or the file holds anything else.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle of another protocol
            weights: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"model.checkpoint={file}: cannot be read ({error})") from error
    except Exception as error:  # of a dozen kinds, and some advise to run what the file holds
        raise UserError(
            f"model.checkpoint={file}: allowed are safetensors, or a state dict of nothing but "
            "tensors that torch.save wrote"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        held = ", ".join(map(str, weights)) if isinstance(weights, dict) else type(weights).__name__
        raise UserError(
            f"model.checkpoint={file}: allowed is a state dict, tensors by name; "
            f"it holds {held:.60}"
        )
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise UserError(
                f"model.checkpoint={file}: {name} is sparse, quantized, or without values; allowed "
                "are dense tensors"
            )
    return {str(name): tensor for name, tensor in weights.items()}


def load_checkpoint(model: nn.Module, path: Path) -> str:
    """Give a model the weights in a file or folder; return the SHA-256 of the file.

    Raises
    ------
    UserError
        If it cannot be read, is of another architecture, or holds what is not finite.
    """
    file = checkpoint_file(path)
    weights = read_weights(file)
    own = model.state_dict()
    if found := [*filter(None, map(_first, differences(own, weights)))]:
        raise UserError(
            f"model.checkpoint={file}: of another architecture than {type(model).__name__}: "
            + "; ".join(found)
        )
    for name, tensor in weights.items():
        kind = own[name].dtype  # in which a larger number may be infinite
        if not torch.isfinite(tensor.to(kind)).all():
            raise UserError(f"model.checkpoint={file}: {name} is not finite as {kind}")
    model.load_state_dict(weights, strict=False)
    return digest(file)


def differences(own: dict[str, Tensor], weights: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Say which names and shapes differ: in the order of the model, and what it does not have.

    BatchNorm's counters may be missing, as in files from before torch counted.
    """
    found = []
    for name, tensor in own.items():
        shape = tuple(tensor.shape)
        if name not in weights:
            if not name.endswith("num_batches_tracked"):
                found.append(f"{name} {shape} is missing")
        elif shape != (other := tuple(weights[name].shape)):
            found.append(f"{name} is {other} and not {shape}")
        elif tensor.is_floating_point() != weights[name].is_floating_point():
            found.append(f"{name} is {weights[name].dtype} and not {tensor.dtype}")
    return found, [
        f"{name} {tuple(tensor.shape)} is unknown"
        for name, tensor in weights.items()
        if name not in own
    ]


def _first(found: list[str]) -> str:
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
