"""What an attacker sends: the model received plus a crafted update.

An update is the trained model minus the model received, in float64, of parameters only.
Integer arrays (counters) and BatchNorm's running mean and variance are sent as trained: a
scaled variance can fall below 0, and statistics are most of such an update's norm.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from .arrays import decoded, encode
from .attacker import Attack
from .seat import Seat, Update

STATISTICS = ("running_mean", "running_var")
"""Ends of the names that PyTorch gives to BatchNorm's statistics."""

NOTHING = "nothing that was trained is a float parameter that was received, of its name and shape"
"""What there is to say where there is nothing to craft."""


def is_statistic(name: str, spared: Collection[str] = ()) -> bool:
    """Tell whether an array is a statistic, by its name or because it is to be spared."""
    return name in spared or name.endswith(STATISTICS)


def centers(
    received: Mapping[str, NDArray[Any]],
    trained: Mapping[str, NDArray[Any]],
    spared: Collection[str] = (),
) -> Update:
    """Return what each parameter in ``trained`` was when received, in float64.

    Arrays are matched by name; if no name occurs in both, by position, where the number of
    arrays and their shapes agree. Those without a match are left out.

    Parameters
    ----------
    received, trained : mapping of str to array
        Two models, or parts of one; dtypes may differ.
    spared : collection of str
        Names of arrays that are no parameters, for models whose statistics have names that
        PyTorch does not use.
    """
    names = {name: name for name in trained if name in received}
    if not names and [a.shape for a in trained.values()] == [a.shape for a in received.values()]:
        names = dict(zip(trained, received, strict=True))
    return {
        name: received[origin].astype(np.float64)
        for name, origin in names.items()
        if not is_statistic(name, spared)
        and not is_statistic(origin, spared)
        and trained[name].shape == received[origin].shape
        and np.issubdtype(trained[name].dtype, np.floating)
        and np.issubdtype(received[origin].dtype, np.floating)
    }


def crafted(
    attack: Attack,
    seat: Seat,
    received: ArrayRecord,
    trained: ArrayRecord,
    spared: Collection[str] = (),
) -> ArrayRecord | None:
    """Return the model that an attack sends instead of the one trained.

    Each attack of a nest crafts the update that would be sent without it, so in the model's
    dtype. An array that it returns as it was is sent to the bit as trained.

    Returns
    -------
    ArrayRecord or None
        None if there is nothing to craft: nothing in ``trained`` is a parameter that was received,
        or none of them was trained, and the attack would leave them so.
    """
    hooks = attack.hooks("craft")
    if not hooks:
        return trained
    arrays = decoded(trained)
    start = centers(decoded(received), arrays, spared)
    if not start:
        return None
    idle = all(np.array_equal(arrays[name], center) for name, center in start.items())
    changed = set()
    for craft in hooks:
        update = {name: np.asarray(arrays[name] - center) for name, center in start.items()}
        for array in update.values():
            array.flags.writeable = False  # in place it would pass for unchanged
        for name, array in craft(update, seat).items():
            if array is not update[name]:
                arrays[name] = (start[name] + array).astype(arrays[name].dtype)
                changed.add(name)
    if idle and all(np.array_equal(arrays[name], center) for name, center in start.items()):
        return None
    sent = ArrayRecord(dict(trained))
    for name in changed:
        sent[name] = encode(arrays[name])
    return sent


def norm(update: Update) -> float:
    """Return the Euclidean norm of an update."""
    return float(np.sqrt(sum(float(np.sum(array**2)) for array in update.values())))
