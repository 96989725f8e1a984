"""Data sets from Python: any callable that returns two torch data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ..config import build, one_line
from ..errors import UserError
from ..schema import bounded
from .arrays import KINDS, Part, assembled
from .base import Choice, Data, Source
from .labels import by_name

BATCH = 1_024
"""Rows that are read at a time."""


@dataclass(kw_only=True)
class Python(Source):
    """The training and the test rows that a callable returns, each a torch data set of pairs.

    A row is its input, a tensor, array or image, and its label. All are read once a process. The
    classes are named by the attribute ``classes`` of the training rows, if they have it.

    Attributes
    ----------
    function : str
        Where the callable is: ``module.name``.
    arguments : dict or None
        What it is called with; None: nothing.
    kind, channels
        What inputs are, see `fl_backdoor.data.arrays.assembled`.
    """

    function: str
    arguments: dict[str, Any] | None = None
    kind: str = bounded("auto", choices=KINDS)
    channels: str = bounded("auto", choices=("auto", "first", "last"))

    def read(self) -> Data:
        """Call it, and read the rows."""
        place = f"dataset.function={self.function}"
        try:
            returned = instantiate({"_target_": self.function, **(self.arguments or {})})
        except UserError:
            raise
        except Exception as error:  # a function of the user's own: whatever it raises
            raise UserError(f"{place}: {one_line(error)}") from error
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise UserError(
                f"{place}: returned {type(returned).__name__}; allowed are two data sets"
            )
        parts = [_rows(rows, f"{place}: {s}") for rows, s in zip(returned, SPLITS, strict=True)]
        names = getattr(returned[0], "classes", None)
        if names is not None:
            names = tuple(map(str, names))
            parts = [replace(p, labels=by_name(p.labels, names, p.labels_place)) for p in parts]
        return assembled(
            self.function.rpartition(".")[2],
            parts[0],
            parts[1],
            origin=f"from {self.function}",
            kind=self.kind,
            channels=self.channels,
            order=names,
        )


SPLITS = ("train", "test")


def _rows(rows: Dataset[Any], place: str) -> Part:
    """Read all rows."""
    if isinstance(rows, TensorDataset) and len(rows.tensors) == 2:
        whole = [tensor.numpy(force=True) for tensor in rows.tensors]
        return Part(whole[0], whole[1], place, place)
    batches = []
    try:
        for pairs in DataLoader(rows, batch_size=BATCH, collate_fn=list):
            inputs, labels = zip(*pairs, strict=True)
            batches.append((np.stack([_array(row) for row in inputs]), [_label(y) for y in labels]))
    except Exception as error:  # a data set of the user's own: whatever it raises
        raise UserError(
            f"{place}: rows that cannot be read ({one_line(error)}); allowed are pairs of an "
            "input, all of one shape, and a label"
        ) from error
    if not batches:
        raise UserError(f"{place}: no rows, allowed is one or more")
    answers = np.array([label for _, part in batches for label in part])
    return Part(np.concatenate([part for part, _ in batches]), answers, place, place)


def _array(value: Any) -> Any:
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else np.asarray(value)


def _label(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


def build_source(key: str, node: Any) -> Source:
    """Build a source from its config node, whose ``_target_`` may be any callable too.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    source: Source = build(key, choice_node(node), Source)
    return source


def choice_node(node: Any) -> Any:
    """Return the node of a `Choice`: of `Python`, for a node whose ``_target_`` is no such class.

    Its other keys become the callable's arguments, but for those that `Python` has itself.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return node
    try:
        target = get_object(node["_target_"])
    except (HydraException, ImportError, ValueError):
        return node  # which `build` refuses
    if not callable(target) or (isinstance(target, type) and issubclass(target, Choice)):
        return node
    own = {part.name for part in fields(Python)} - {"function", "arguments"}
    return {name: node[name] for name in own & node.keys()} | {
        "_target_": f"{Python.__module__}.{Python.__name__}",
        "function": node["_target_"],
        "arguments": {name: node[name] for name in node.keys() - own - {"_target_"}},
    }
