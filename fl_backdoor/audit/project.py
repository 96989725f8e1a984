"""The app that is audited: what its ``pyproject.toml`` says."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

TABLE = "tool.fl-backdoor"
KEYS: dict[str, type | tuple[type, ...]] = {
    "target": int,
    "inputs": (int, str),
    "labels": (int, str),
    "trigger": str,
}
"""What the app may say of its batches, all of it optional."""


@dataclass(frozen=True)
class Project:
    """A Flower app in a folder.

    Attributes
    ----------
    folder : Path
        Where its ``pyproject.toml`` is.
    serverapp, clientapp : str
        Its components, ``module:attribute``.
    config : dict
        Its run config.
    clients : int
        Nodes that its own simulation has, else 10.
    batches : dict
        Its table ``[tool.fl-backdoor]``: ``target``, the class that a backdoor shall be read as,
        ``inputs`` and ``labels``, the key or the position of each in a batch, and ``trigger``.
    """

    folder: Path
    serverapp: str
    clientapp: str
    config: dict[str, Any]
    clients: int
    batches: dict[str, Any]


def read(folder: Path) -> Project:
    """Read an app's ``pyproject.toml``.

    Raises
    ------
    UserError
        If the folder holds no Flower app, or a table is not as it must be.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        raise UserError(f"{folder}: not a Flower app; allowed is a folder with a pyproject.toml")
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    app = _table(path, tool.get("flwr", {}), "app")
    components = _table(path, app, "components")
    for name in ("serverapp", "clientapp"):
        if not isinstance(components.get(name), str) or ":" not in components[name]:
            raise UserError(
                f"{path}: no {name} in [tool.flwr.app.components]; allowed is MODULE:ATTRIBUTE"
            )
    batches = _table(path, tool, "fl-backdoor")
    for key, value in batches.items():
        if key not in KEYS:
            raise UserError(f"{TABLE}.{key}: unknown key; allowed are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            kind = "a name" if KEYS[key] is str else "a whole number"
            raise UserError(
                f"{TABLE}.{key}={value}: allowed is {kind}"
                + (" (a position) or a key" if isinstance(KEYS[key], tuple) else "")
            )
    return Project(
        folder=folder,
        serverapp=components["serverapp"],
        clientapp=components["clientapp"],
        config=_flat(_table(path, app, "config")),
        clients=_clients(tool.get("flwr", {})),
        batches=batches,
    )


def _table(path: Path, parent: Any, name: str) -> dict[str, Any]:
    table = parent.get(name, {}) if isinstance(parent, dict) else None
    if not isinstance(table, dict):
        raise UserError(f"{path}: {name} is not a table")
    return table


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested keys as Flower does, with dots."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        nested = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        flat |= {f"{prefix}{key}": value} if nested is None else nested
    return flat


def _clients(flower: dict[str, Any]) -> int:
    """Return the nodes of the app's simulation, which older apps name in their pyproject."""
    federations = flower.get("federations", {})
    node = federations.get(federations.get("default", "local-simulation"), {})
    number = node.get("options", {}).get("num-supernodes") if isinstance(node, dict) else None
    return number if isinstance(number, int) and number >= 1 else 10
