"""What any Flower strategy remembers: its attributes, as far as they are data.

Flower's ``FedAvgM`` has a momentum, its ``FedAdam`` moments, an adaptive clipping a bound, and
somebody's own strategy a counter or a generator of draws: attributes, set anew in every round.
"""

import json
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

_TREE = "attributes"
"""Key of the JSON that says what the other entries are parts of."""


def snapshot(strategy: Strategy) -> dict[str, NDArray[Any]]:
    """Return the attributes of a strategy, of whatever it wraps as well, as arrays by path.

    Functions, classes and modules are code, and left out.

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
    """Give a new strategy of the same settings the attributes that `snapshot` returned."""
    if memory:
        tree = json.loads(memory[_TREE].tobytes())
        _unpack_attributes(strategy, tree["object"], memory)


def _packed(value: Any, path: str, found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Describe a value by {kind: content}; arrays are put into ``found`` under their paths."""
    match value:
        case None | bool() | int() | float() | str():
            if not isinstance(value, np.generic):
                return {"plain": value}
            found[path] = np.asarray(value)
            return {"scalar": path}
        case np.generic():
            found[path] = np.asarray(value)
            return {"scalar": path}
        case np.ndarray() if not value.dtype.hasobject:
            found[path] = value
            return {"array": path}
        case bytes():
            found[path] = np.frombuffer(value, np.uint8)
            return {"bytes": path}
        case Array():
            found[path] = value.numpy()
            return {"flower array": path}
        case ArrayRecord():
            arrays = [(n, _packed(a, f"{path}/{n}", found)) for n, a in value.items()]
            return {"record": arrays}
        case dict():
            items = enumerate(value.items())
            return {
                "dict": [
                    (_packed(k, f"{path}/key{i}", found), _packed(v, f"{path}/{i}", found))
                    for i, (k, v) in items
                ]
            }
        case list() | tuple() | set():
            parts = sorted(value, key=repr) if isinstance(value, set) else value
            name = type(value).__name__
            return {name: [_packed(v, f"{path}/{i}", found) for i, v in enumerate(parts)]}
        case np.random.Generator():
            return {"generator": json.loads(json.dumps(value.bit_generator.state))}
        case Strategy():
            return {"object": dict(_attributes(value, path, found))}
        case type() | FunctionType() | ModuleType():
            return {"code": path}
        case _ if callable(value):
            return {"code": path}
        case _ if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"state": _packed(dict(value.state_dict()), path, found)}
    raise ValueError(
        f"{path} is a {type(value).__name__}, which cannot be kept: a resumed run would lose it"
    )


def _attributes(
    value: Any, path: str, found: dict[str, NDArray[Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in vars(value).items():
        yield name, _packed(part, f"{path}.{name}", found)


def _unpack_attributes(
    target: Any, attributes: dict[str, Any], memory: dict[str, NDArray[Any]]
) -> None:
    for name, packed in attributes.items():
        ((kind, content),) = packed.items()
        own = getattr(target, name, None)
        if kind == "object":
            _unpack_attributes(own, content, memory)
        elif kind == "generator" and isinstance(own, np.random.Generator):
            own.bit_generator.state = content
        elif kind == "state":
            own.load_state_dict(_unpacked(content, memory))  # type: ignore[union-attr]
        elif kind != "code":
            setattr(target, name, _unpacked(packed, memory))


def _unpacked(packed: dict[str, Any], memory: dict[str, NDArray[Any]]) -> Any:
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
        case "record":
            return ArrayRecord({name: _unpacked(part, memory) for name, part in content})
        case "dict":
            return {_unpacked(k, memory): _unpacked(v, memory) for k, v in content}
        case _:
            parts = [_unpacked(part, memory) for part in content]
            return {"list": list, "tuple": tuple, "set": set}[kind](parts)
