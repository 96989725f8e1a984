"""The model, built from a configuration: architecture, first weights, and a checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clients.training import Seeded

from ..config import accepted, build
from ..errors import UserError
from ..models.checkpoint import load_checkpoint

CHECKPOINT, DIGEST = "checkpoint", "checkpoint_digest"
"""Keys of ``model`` that are no arguments: weights to start from, and their SHA-256."""


def repeat_bits(device: str) -> None:
    """Let this process come to the same bits whenever it computes the same.

    With one thread sums have one order everywhere. A GPU is asked for deterministic kernels, which
    is a setting of the process; torch warns of what has none. Its convolutions are in float32: the
    10 bits of torch's own choice, TF32, move a round of ResNet-18 away from the CPU's.
    """
    torch.set_num_threads(1)
    if device != "cpu":
        # cuBLAS reads it when it begins.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False


def new_model(node: Mapping[str, Any], seed: int, **offered: Any) -> nn.Module:
    """Build a model; the generators of the process stay what they are.

    Parameters
    ----------
    node : mapping
        Any ``torch.nn.Module`` as ``_target_``, and its arguments.
    seed : int
        Decides the weights.
    **offered
        What is known of the data; with ``seed`` each goes where the class takes it by name.

    Raises
    ------
    UserError
        Naming what the class refuses.
    """
    own = {key: value for key, value in node.items() if key not in (CHECKPOINT, DIGEST)}
    arguments = accepted("model", own, offered | {"seed": seed})
    with Seeded(seed):
        model: nn.Module = build("model", {"_convert_": "all"} | own, nn.Module, **arguments)
    return model


def start_from_checkpoint(model: nn.Module, node: dict[str, Any]) -> dict[str, Any]:
    """Give a model the weights that its node names, if it does; return the node with their digest.

    Raises
    ------
    UserError
        If they cannot be had, or are of another architecture.
    """
    path = node.get(CHECKPOINT)
    if path is None:
        return node
    if not isinstance(path, str):
        raise UserError(f"model.checkpoint={path}: allowed is a file or folder, or null")
    return node | {DIGEST: load_checkpoint(model, Path(path))}
