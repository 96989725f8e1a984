"""What a strategy remembers between rounds, so that a resumed run goes on with it.

Flower's `FedAvgM` has a momentum, its `FedAdam` moments: arrays in public attributes, set anew in
every round. Whatever else a strategy may keep is not seen here.
"""

from collections.abc import Iterator

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

RECORD, LIST, DICT = "record", "list", "dict"


def wrapped(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and those inside it, the one that averages last."""
    yield strategy
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
        yield strategy


def remembered(strategy: Strategy) -> ArrayRecord:
    """Return the arrays of a strategy and of those inside it, named for `remind`."""
    memory = ArrayRecord()
    for depth, part in enumerate(wrapped(strategy)):
        for attribute, value in vars(part).items():
            if attribute.startswith("_"):
                continue
            for kind, name, array in _arrays(value):
                memory[f"{depth}.{attribute}.{kind}.{name}"] = array
    return memory


def remind(strategy: Strategy, memory: ArrayRecord) -> None:
    """Give a new strategy of the same settings the arrays that `remembered` returned."""
    found: dict[tuple[int, str, str], dict[str, Array]] = {}
    for key, array in memory.items():
        depth, attribute, kind, name = key.split(".", 3)
        found.setdefault((int(depth), attribute, kind), {})[name] = array
    parts = list(wrapped(strategy))
    for (place, attribute, kind), arrays in found.items():
        value: object = ArrayRecord(arrays)
        if kind == DICT:
            value = {name: array.numpy() for name, array in arrays.items()}
        elif kind == LIST:
            value = [array.numpy() for array in arrays.values()]
        setattr(parts[place], attribute, value)


def _arrays(value: object) -> Iterator[tuple[str, str, Array]]:
    if isinstance(value, ArrayRecord):
        for name, array in value.items():
            yield RECORD, name, array
    elif isinstance(value, dict) and all(
        isinstance(v, np.generic | np.ndarray) for v in value.values()
    ):
        for name, array in value.items():
            yield DICT, str(name), Array(np.asarray(array))
    elif isinstance(value, list) and all(isinstance(v, np.generic | np.ndarray) for v in value):
        for number, array in enumerate(value):
            yield LIST, str(number), Array(np.asarray(array))
