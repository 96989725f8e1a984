"""Batches of anybody's torch ``DataLoader``: what is in them, and how an attacker changes them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Makes other inputs ``(n, ...)`` and labels ``(n,)`` of those of a batch."""


class UnseenError(Exception):
    """Why a batch cannot be attacked."""


class Batches:
    """What the DataLoaders of this process give, while somebody changes it.

    Parameters
    ----------
    inputs, labels : str, int or None
        The key or the position of each in a batch. None: the labels are its one integer tensor of
        shape ``(n,)``, and the inputs its one other tensor of n rows; where there are more, the
        one of floats.

    Attributes
    ----------
    changed : int
        Batches that were changed.
    why : str
        Why a batch was not.
    classes : int
        One more than the greatest label seen.
    first : Tensor
        Inputs ``(n, ...)`` of the first batch.
    """

    first: Tensor

    def __init__(self, inputs: str | int | None = None, labels: str | int | None = None) -> None:
        self._keys = inputs, labels
        self._change: Change | None = None
        self.changed, self.classes = 0, 0
        self.why = "no torch DataLoader was read in a client's turn"

    @contextmanager
    def changing(self, change: Change | None) -> Iterator[None]:
        """Change the batches that are read meanwhile."""
        before, self._change = self._change, change
        try:
            yield
        finally:
            self._change = before

    @contextmanager
    def seen(self) -> Iterator[None]:
        """See the batches of all DataLoaders meanwhile."""
        original = DataLoader.__iter__

        def read(loader: DataLoader[Any]) -> Any:
            return map(self._read, original(loader))

        DataLoader.__iter__ = read  # type: ignore[method-assign]
        try:
            yield
        finally:
            DataLoader.__iter__ = original  # type: ignore[method-assign]

    def _read(self, batch: Any) -> Any:
        try:
            input_key, label_key = find(batch, *self._keys)
        except UnseenError as error:
            self.why = str(error)
            return batch
        labels = batch[label_key]
        if not self.classes:
            self.first = batch[input_key].detach().cpu()
        self.classes = max(self.classes, int(labels.max()) + 1)
        if self._change is None:
            return batch
        try:
            inputs, labels = self._change(batch[input_key], labels)
        except UnseenError as error:
            self.why = str(error)
            return batch
        self.changed += 1
        return _with(batch, {input_key: inputs, label_key: labels})


def find(batch: Any, inputs: str | int | None, labels: str | int | None) -> tuple[Any, Any]:
    """Return the keys, or positions, of inputs and labels in a batch.

    Raises
    ------
    UnseenError
        If they are not there, or cannot be told.
    """
    if isinstance(batch, Mapping):
        parts: dict[Any, Any] = dict(batch)
    elif isinstance(batch, tuple | list):
        parts = dict(enumerate(batch))
    else:
        raise UnseenError(f"a batch is a {type(batch).__name__}: neither a dictionary nor a tuple")
    tensors = {k: v for k, v in parts.items() if isinstance(v, Tensor) and v.ndim and len(v)}
    for name, key in (("inputs", inputs), ("labels", labels)):
        if key is not None and key not in tensors:
            raise UnseenError(
                f"{name}={key}: a batch has {', '.join(map(str, tensors)) or 'no tensor'}"
            )
    if labels is None:
        whole = [k for k, v in tensors.items() if v.ndim == 1 and v.dtype == torch.int64]
        labels = _only(whole, "labels", tensors)
    if inputs is None:
        rest = [k for k, v in tensors.items() if k != labels and len(v) == len(tensors[labels])]
        floats = [k for k in rest if tensors[k].is_floating_point()]
        inputs = _only(rest if len(rest) == 1 else floats, "inputs", tensors)
    return inputs, labels


def _only(keys: list[Any], name: str, tensors: dict[Any, Tensor]) -> Any:
    if len(keys) != 1:
        raise UnseenError(
            f"which are the {name} of a batch cannot be told of {', '.join(map(str, tensors))}: "
            f"set {name} in [tool.fl-backdoor]"
        )
    return keys[0]


def _with(batch: Any, changes: dict[Any, Tensor]) -> Any:
    """Return a batch of the same kind with other parts."""
    if isinstance(batch, Mapping):
        copy: Any = type(batch)(batch)  # type: ignore[call-arg]
        for key, value in changes.items():
            copy[key] = value
        return copy
    parts = [changes.get(place, part) for place, part in enumerate(batch)]
    if hasattr(batch, "_fields"):
        return type(batch)(*parts)
    return type(batch)(parts)
