"""Triggers, built from a configuration."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from clients.triggers import TRIGGERS, Own, Trigger

from ..config import build, one_line
from ..errors import UserError


def build_trigger(key: str, node: Mapping[str, Any]) -> Trigger:
    """Build the trigger that a config node describes.

    Parameters
    ----------
    key : str
        Where the node stands in the configuration.
    node : mapping
        ``kind``, a name of `clients.triggers.TRIGGERS`, and its settings; or ``_target_``, a class
        of callables or a function of inputs ``(n, ...)``, and its arguments.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    node = dict(node)
    if "_target_" in node:
        return _anybodys(key, node)
    kind = node.pop("kind", None)
    if kind not in TRIGGERS:
        raise UserError(f"{key}.kind={kind}: allowed are {', '.join(TRIGGERS)}")
    target = f"{TRIGGERS[kind].__module__}.{TRIGGERS[kind].__qualname__}"
    try:
        trigger: Trigger = build(key, node | {"_target_": target}, Trigger)
    except UserError as error:
        if isinstance(error.__cause__, ValueError):
            text = one_line(error.__cause__)
            if text.startswith("trigger."):  # one of its settings, which is to be named in full
                raise UserError(key + text.removeprefix("trigger")) from error
        raise
    return trigger


def _anybodys(key: str, node: dict[str, Any]) -> Trigger:
    try:
        target = get_object(node["_target_"])
    except (HydraException, ImportError, TypeError, ValueError) as error:
        raise UserError(f"{key}._target_: {one_line(error)}") from error
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    made = build(key, node) if isinstance(target, type) else partial(target, **arguments)
    if isinstance(made, Trigger):
        return made
    if not callable(made):
        raise UserError(f"{key}._target_={node['_target_']}: allowed is what can be called")
    return Own(made, name=node["_target_"].rpartition(".")[2])
