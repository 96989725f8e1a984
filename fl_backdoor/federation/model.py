"""The model, built from a configuration: architecture, first weights, and a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from clients.training import Seeded

from ..config import accepted, build
from ..errors import UserError
from ..models.checkpoint import load_checkpoint

CHECKPOINT, DIGEST = "checkpoint", "checkpoint_digest"
"""Keys of ``model`` that are no arguments: weights to start from, and their SHA-256."""


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
