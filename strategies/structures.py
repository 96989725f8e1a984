"""What a model is made of, and what to say where two differ."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

Values = dict[str, NDArray[Any]]
"""The arrays of a model, read."""

Structure = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, shape and kind of each array of a model, by name."""


def structure_of(arrays: Mapping[str, Array] | Values, *, exact: bool = False) -> Structure:
    """Return the structure of a model; floating-point arrays of any precision are alike.

    Unless it has to be ``exact``: where no model was sent, the clients' says the precision.
    """
    kind = str if exact else _kind
    return tuple(
        (name, tuple(arrays[name].shape), kind(np.dtype(arrays[name].dtype)))
        for name in sorted(arrays)
    )


def complaint(structure: Structure, sent: ArrayRecord | None) -> str:
    """Say why a model is neither the one that was sent nor a part of it; nothing if it is."""
    if sent is None:
        return ""
    if not structure or not {name for name, _, _ in structure} <= set(sent):
        return "array names differ from the model's"
    for name, shape, kind in structure:
        like = sent[name]
        if (shape, kind) != (tuple(like.shape), _kind(np.dtype(like.dtype))):
            return (
                f"array {name!r:.60} is {kind} {shape} instead of {like.dtype} {tuple(like.shape)}"
            )
    return ""


def disagreement(structures: Sequence[Structure], sent: ArrayRecord | None, answered: int) -> str:
    """Say what most clients that answered sent, and what was sent to them.

    Nothing if there is no such most: one client alone, say, where others failed.
    """
    (structure, count), *_ = Counter(structures).most_common(1) or [((), 0)]
    if sent is None or 2 * count <= answered:
        return ""
    asked = structure_of(sent)
    clients = "all clients" if count == answered else f"{count} clients"
    return (
        f"{clients} sent {_described(structure, asked)}; the strategy sent "
        f"{_described(asked, structure)}"
    )


def _kind(dtype: np.dtype[Any]) -> str:
    return "float" if dtype.kind == "f" else str(dtype)


def _described(structure: Structure, other: Structure) -> str:
    """Name the arrays that another model does not have, the first few of them."""
    own = [part for part in structure if part not in set(other)]
    if not own:
        return f"the {len(structure)} others" if structure else "no arrays"
    named = ", ".join(f"{name!r:.60} ({kind} {shape})" for name, shape, kind in own[:3])
    return named + (f" and {len(own) - 3} more" if len(own) > 3 else "")
