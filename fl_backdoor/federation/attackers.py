"""What attackers do, built from a configuration.

An attack of one's own needs no line here: a class in ``clients/attacks`` and a yaml in
``conf/attack`` are enough.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf.errors import OmegaConfBaseException

from clients import Attack, Backdoor, ModelReplacement, NormProjection
from clients.attacker import knowledge
from clients.vertical import PartyAttack

from ..config import build, one_line
from ..data.base import Data
from ..errors import UserError
from .roster import ROSTER, refuse_roster
from .triggers import build_trigger
from .vertical_attacks import VerticalAttack

AROUND = ("replacement", "max_norm")
"""Keys that every attack takes: model replacement around it, and a projection around both."""

KNOWN = {"own": "their own updates", "attackers": "the attackers' updates", "all": "all updates"}
"""What of others those who collude know, in words."""

MAX_SHOWN = 20
"""Characters of a list's value that are shown as they are."""


def build_attack(node: Any, classes: Sequence[str], key: str = "attack") -> Attack:
    """Build an attack from its config node, and the one that it carries.

    Parameters
    ----------
    node : dict
        A class of `clients.Attack` as ``_target_`` and its settings, without or with those of
        the `Roster`; ``data``, the node of the attack carried; ``replacement`` and
        ``max_norm``, which put `ModelReplacement` and `NormProjection` around it.
    classes : sequence of str
        What the data set's labels stand for; settings that are classes are given so.
    key : str
        Where the node stands in the configuration.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    node = dict(node)
    if str(node.get("_target_", "")).rpartition(".")[2] == "NoAttack":
        return Attack()  # attack=none is of both protocols
    if isinstance(kind := _class(node), type) and issubclass(kind, PartyAttack | VerticalAttack):
        raise UserError(f"{key}._target_={node['_target_']}: allowed with protocol=vertical")
    own = _settings(node)
    around = {name: node.pop(name, None) for name in AROUND if name not in own}
    for name, value in around.items():
        if value is not None and not (_is_number(value) and 0 < value < math.inf):
            raise UserError(f"{key}.{name}={value}: allowed is null or a finite number > 0")
    carried = node.pop("data", None)
    given = {name: value for name, value in node.items() if name not in ROSTER}
    if own and (unknown := sorted(given.keys() - own - {"_target_"})):
        # `build` would not name the roster's keys as allowed.
        allowed = ", ".join(sorted(own | ROSTER | {*AROUND}))
        raise UserError(f"{key}.{unknown[0]}: unknown key; allowed are {allowed}")
    numbers = _numbers(given, classes, key)
    if "num_classes" in own:
        numbers.setdefault("num_classes", len(classes))
    trigger = given.get("trigger")
    try:
        attack: Attack = build(key, given | numbers, Attack)
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, ValueError) and not isinstance(cause, OmegaConfBaseException):
            raise in_full(cause, node, key, classes) from error
        raise
    if isinstance(trigger, dict) and isinstance(attack, Backdoor):
        attack.trigger = build_trigger(f"{key}.trigger", trigger)
    if carried is not None:
        refuse_roster(carried, f"{key}.data")
        attack.data = build_attack(carried, classes, f"{key}.data")
    if (factor := around.get("replacement")) is not None:
        attack = ModelReplacement(factor=factor, data=attack)
    if (max_norm := around.get("max_norm")) is not None:
        attack = NormProjection(max_norm=max_norm, data=attack)
    return attack


def settled(attack: Attack, data: Data) -> Attack:
    """Let an attack decide by the training set what it leaves open, alike in every process.

    Raises
    ------
    ValueError
        Naming what does not fit the data.
    """
    hooks = attack.hooks("settle")
    if hooks:
        inputs, _ = data.train[:1] if data.kind == "image" else data.train[:]
        for settle in hooks:
            settle(inputs, data.vocabulary or 0)
    return attack


def in_full(error: Exception, node: Any, key: str, classes: Sequence[str]) -> UserError:
    """Name the keys in an attack's error as the configuration does, and classes as the data."""
    places: dict[str, str] = {}
    for place in _places(node, key):
        name = place.rpartition(".")[2]
        if name not in ROSTER or name not in places:  # a roster is the outermost's
            places[name] = place

    def full(match: re.Match[str]) -> str:
        name, inside, value = match[1], match[2] or "", match[3] or ""
        if value.isdigit() and any(name in _classes(layer) for layer in _nodes(node)):
            value = str(classes[int(value)])
        return f"{places[name]}{inside}={value}"

    names = "|".join(map(re.escape, places))
    return UserError(re.sub(rf"(?<![\w.])({names})(\.\w+)?=(\w+)?", full, one_line(error)))


def describe(node: Any, attack: Attack) -> str:
    """Say in a few words what attackers do, for the first lines of a run."""
    hidden = {"_target_", "data", "knowledge", "trigger", "pattern", *ROSTER}
    words = []
    for layer in _nodes(node):
        settings = ", ".join(
            f"{key} {_shown(value)}"
            for key, value in layer.items()
            if key not in hidden and value is not None
        )
        name = str(layer["_target_"]).rpartition(".")[2]
        words.append(f"{name} ({settings})" if settings and name != "NoAttack" else name)
    text = " around ".join(words)
    triggers = [inner.trigger for inner in attack.layers() if isinstance(inner, Backdoor)]
    text += "".join(f", trigger: {trigger}" for trigger in triggers)
    if attack.hooks("collude"):
        text += f", colluding, knowing {KNOWN[knowledge(attack)]}"
    return text


def _numbers(given: dict[str, Any], classes: Sequence[str], key: str) -> dict[str, int]:
    """Translate the settings that are classes."""
    numbers = {}
    for name in _classes(given):
        optional = getattr(_class(given), name, name) is None  # a field whose default is None
        if name in given and not (optional and given[name] is None):
            if str(given[name]) not in classes:
                raise UserError(
                    f"{key}.{name}={given[name]}: allowed are the classes of the data, "
                    f"{', '.join(classes)}"
                )
            numbers[name] = classes.index(str(given[name]))
    return numbers


def _class(node: Any) -> Any:
    """Return an attack's class; what is none is left for `build` to refuse."""
    target = node.get("_target_")
    try:
        return get_object(target) if isinstance(target, str) else None
    except (HydraException, ImportError, ValueError):
        return None


def _settings(node: Any) -> set[str]:
    """Name the settings of a dataclass; any other class checks its arguments itself."""
    target = _class(node)
    return {field.name for field in fields(target)} if is_dataclass(target) else set()


def _classes(node: Any) -> tuple[str, ...]:
    """Name the settings that are classes."""
    return tuple(getattr(_class(node), "classes", ()))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    while node is not None:
        yield node
        node = node.get("data")


def _places(node: Any, key: str) -> Iterator[str]:
    for name, value in node.items():
        if name == "data" and value is not None:
            yield from _places(value, f"{key}.data")
        else:
            yield f"{key}.{name}"


def _shown(value: Any) -> str:
    text = str(value)
    return f"of {len(value)}" if isinstance(value, list) and len(text) > MAX_SHOWN else text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
