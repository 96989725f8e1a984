"""What any Flower strategy remembers: its attributes, as far as they are data.

Flower's ``FedAvgM`` has a momentum, its ``FedAdam`` moments, an adaptive clipping a bound, and
somebody's own strategy a counter or a generator of draws: attributes, set anew in every round.
"""

import json
import sys
from collections.abc import Iterable
from copy import copy
from itertools import zip_longest
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from .watch import Watch

_RECORDS = {"ArrayRecord": ArrayRecord, "ConfigRecord": ConfigRecord, "MetricRecord": MetricRecord}
_SEQUENCES: dict[str, Any] = {t.__name__: t for t in (list, tuple, set, frozenset)}

_TREE = "attributes"
"""Key of the JSON that says what the other entries are parts of."""


def snapshot(strategy: Strategy) -> dict[str, NDArray[Any]]:
    """Return the attributes of a strategy, of whatever it wraps as well, as arrays by path.

    Functions, classes, modules and paths are code or settings: a new strategy has its own.

    Raises
    ------
    ValueError
        Naming an attribute that cannot be kept: a resumed run would lose it.
    """
    found: dict[str, NDArray[Any]] = {}
    tree = _packed(strategy, type(strategy).__name__, found)
    found[_TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    return found


def restore(strategy: Strategy, memory: dict[str, NDArray[Any]]) -> None:
    """Give a new strategy of the same settings the attributes that `snapshot` returned.

    Raises
    ------
    ValueError
        Naming what is to be filled, and which the new strategy does not have.
    """
    if memory:
        _unpacked(json.loads(memory[_TREE].tobytes()), memory, strategy)


def _packed(value: Any, path: str, found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Describe a value by {kind: content}; arrays are put into ``found`` under their paths."""

    def parts(values: Iterable[Any], prefix: str = "") -> list[dict[str, Any]]:
        return [_packed(part, f"{path}/{prefix}{i}", found) for i, part in enumerate(values)]

    def array(kind: str, values: NDArray[Any]) -> dict[str, Any]:
        found[path] = values
        return {kind: path}

    name = type(value).__name__
    match value:
        case np.generic():
            return array("scalar", np.asarray(value))
        case None | bool() | int() | float() | str():
            return {"plain": value}
        case np.ndarray() if not value.dtype.hasobject:
            return array("array", value)
        case bytes():
            return array("bytes", np.frombuffer(value, np.uint8))
        case Array():
            return array("flower array", value.numpy())
        case dict() | ArrayRecord() | MetricRecord() | ConfigRecord():
            return {"mapping": [path, name, parts(value, "key"), parts(value.values())]}
        case list() | tuple() | set() | frozenset() if name in _SEQUENCES:
            ordered = value if isinstance(value, list | tuple) else sorted(value, key=repr)
            return {"sequence": [name, parts(ordered)]}
        case np.random.Generator():
            return {"generator": _packed(value.bit_generator.state, path, found)}
        case type() | ModuleType() | PurePath() | Watch():  # a watch decides nothing
            return {"code": path}
        case _ if hasattr(value, "new_tensor"):  # PyTorch's
            return array("tensor", value.detach().cpu().numpy())
        case _ if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"state": [path, _packed(dict(value.state_dict()), path, found)]}
    if callable(value) and not getattr(value, "__dict__", None):
        return {"code": path}
    if callable(value) or isinstance(value, Strategy):
        attributes = {n: _packed(part, f"{path}.{n}", found) for n, part in vars(value).items()}
        return {"object": [path, attributes]}
    raise ValueError(f"{path} is a {name}, which cannot be kept: a resumed run would lose it")


def _unpacked(packed: dict[str, Any], memory: dict[str, NDArray[Any]], own: Any) -> Any:
    """Return a value; what only the new strategy can make is its ``own``, filled."""
    ((kind, content),) = packed.items()
    match kind:
        case "plain":
            return content
        case "scalar":
            return memory[content][()]
        case "array":
            return memory[content].copy()
        case "bytes":
            return memory[content].tobytes()
        case "flower array":
            return Array(memory[content])
        case "tensor":
            if own is not None:  # where it is: on a GPU, say
                return own.new_tensor(memory[content])
            return sys.modules["torch"].from_numpy(memory[content].copy())
        case "mapping":
            path, name, *packed_items = content
            keys = [_unpacked(key, memory, None) for key in packed_items[0]]
            like = own if hasattr(own, "get") else {}
            values = [
                _unpacked(part, memory, like.get(key))
                for key, part in zip(keys, packed_items[1], strict=True)
            ]
            items = dict(zip(keys, values, strict=True))
            if name == "dict" or name in _RECORDS:
                return _RECORDS.get(name, dict)(items)
            filled = copy(_there(own if type(own).__name__ == name else None, path))
            filled.clear()
            filled.update(items)
            return filled
        case "sequence":
            name, parts = content
            like = list(own) if isinstance(own, list | tuple) else []
            pairs = zip_longest(parts, like[: len(parts)])
            return _SEQUENCES[name](_unpacked(part, memory, mine) for part, mine in pairs)
        case "generator":
            state = _unpacked(content, memory, None)
            bits = getattr(np.random, state["bit_generator"])()
            bits.state = state
            return np.random.Generator(bits)
        case "code":
            return _there(own, content)
        case "state":
            path, state = content
            own_state = _there(own, path).state_dict()
            own.load_state_dict(_unpacked(state, memory, own_state))
            return own
        case _:
            path, attributes = content
            _there(own, path)
            for name, part in attributes.items():
                mine = getattr(own, name, None)
                if "code" not in part or mine is not None:
                    setattr(own, name, _unpacked(part, memory, mine))
            return own


def _there(own: Any, path: str) -> Any:
    """Return what a new strategy has in a place.

    Raises
    ------
    ValueError
        If it has nothing there.
    """
    if own is None:
        raise ValueError(f"{path} cannot be restored: a new strategy does not have it")
    return own
