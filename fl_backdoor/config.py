"""The configuration: how it is loaded and built from, and the one error that bad input becomes."""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from .errors import UserError
from .interrupt import interruptible
from .nearest import nearest, unknown_choice, unknown_key, unquoted
from .schema import CommonConfig, check_bounds

LONGEST = 200
"""Bytes of a folder's name, of which file systems allow 255."""


def short(name: str) -> str:
    """Return a name that a folder can have: the end of one that is too long becomes a digest."""
    text = name.encode()
    if len(text) <= LONGEST:
        return name
    digest = hashlib.sha256(text).hexdigest()[:16]
    return f"{text[: LONGEST - 17].decode(errors='ignore')}-{digest}"


def asked(_root_: Any) -> Any:
    """Return how many clients a round asks: the cohort's, or everybody.

    A value that is no number is handed on: whoever builds the cohort names it.
    """
    size = _root_.cohort.clients_per_round
    return _root_.num_clients if size is None else size


def expected_attackers(num_clients: int, attackers: int, size: int) -> int:
    """Return how many attackers a round has on average, rounded up: P m / N."""
    return math.ceil(attackers * size / num_clients)


def count_attackers(attack: Mapping[str, Any], num_clients: int) -> int:
    """Return how many clients attack by the keys of a roster: as a list, a share, or a number."""
    roster, share = attack.get("roster"), attack.get("share")
    if share is not None:
        return round(float(share) * num_clients)
    number = attack.get("num_attackers")
    if number is None:
        number = len(roster) if isinstance(roster, list | ListConfig) else 0
    return int(number)


def attackers(_root_: Any) -> int:
    """Return how many attackers an operator may expect in a round."""
    clients, size = _root_.num_clients, asked(_root_)
    try:
        numbers = (clients, count_attackers(_root_.attack, clients), size)
    except (TypeError, ValueError, OverflowError):  # of a share that is no number
        return 0
    if not all(type(number) is int and number >= 1 for number in numbers):
        return 0  # nobody attacks, or a value that is refused by its name later
    return expected_attackers(*numbers)


def unless(*others: Any) -> Any:
    """Return the last argument; None if one of the others is a number or a list."""
    given = any(isinstance(other, int | float | list | ListConfig) for other in others[:-1])
    return None if given else others[-1]


def of(value: Any, among: Sequence[Any], then: Any, otherwise: Any = None) -> Any:
    """Return a default that a key has where another is one of some values."""
    return then if value in among else otherwise


OmegaConf.register_new_resolver("of", of, replace=True)
OmegaConf.register_new_resolver("short", short, replace=True)
OmegaConf.register_new_resolver("asked", asked, replace=True)
OmegaConf.register_new_resolver("attackers", attackers, replace=True)
OmegaConf.register_new_resolver("unless", unless, replace=True)


SomeConfig = TypeVar("SomeConfig", bound=CommonConfig)


def conf_directory() -> Path:
    """Return the folder of the Hydra configs: inside the wheel, or beside the checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups() -> list[str]:
    """Return the names of the config groups."""
    return sorted(path.name for path in conf_directory().iterdir() if path.is_dir())


def check_groups(overrides: list[str]) -> None:
    """Refuse a group without a choice, or with none of words: Hydra does not name the group.

    Raises
    ------
    UserError
        Naming the choices.
    """
    for override in overrides:
        group, sign, choice = override.partition("=")
        removed = group.startswith("~")
        folder = conf_directory() / group.lstrip("+~")
        choices = sorted(path.stem for path in folder.glob("*.yaml"))
        # Of numbers and switches Hydra says the type only.
        no_word = re.fullmatch(r"|null|true|false|[-+.\d].*", choice, re.IGNORECASE)
        empty = removed or (sign and no_word)
        if choices and empty and folder.parent == conf_directory():
            raise UserError(f"{override}: allowed are {', '.join(choices)}")


def load(config: DictConfig) -> CommonConfig:
    """Turn Hydra's config into the typed one of its protocol, checked value by value.

    Raises
    ------
    UserError
        Naming the first key whose value is missing, of the wrong type or out of range.
    """
    _check_keys("", config, OmegaConf.get_type(config))
    try:
        loaded = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    assert isinstance(loaded, CommonConfig)
    check_bounds(loaded)
    loaded.check()
    return loaded


def restored(schema: type[SomeConfig], text: str, dataset: str) -> SomeConfig:
    """Rebuild a checked configuration that travelled as JSON.

    Parameters
    ----------
    schema : type
        `Config`, or the configuration of another protocol.
    text : str
        All of it.
    dataset : str
        Keys of ``dataset`` that stand above those of the text.
    """
    values = json.loads(text)
    values["dataset"] |= json.loads(dataset)
    for part in fields(schema):
        if isinstance(part.type, type) and is_dataclass(part.type):
            values[part.name] = part.type(**values[part.name])
    return schema(**values)


def _check_keys(prefix: str, given: DictConfig, schema: Any) -> None:
    known = {field.name: field.type for field in fields(schema)}
    for key in sorted(map(str, given.keys() - known.keys())):
        allowed = f"{', '.join(sorted(known))}{nearest(key, known)}"
        raise UserError(f"{prefix}{key}: unknown key; allowed are {allowed}")
    for key, kind in known.items():
        if key not in given or OmegaConf.is_missing(given, key):
            raise UserError(f"{prefix}{key}: not given, and has no default")
        if is_dataclass(kind):
            _check_keys(f"{prefix}{key}.", given[key], kind)


def build(key: str, node: Any, kind: type[Any] = object, **arguments: Any) -> Any:
    """Build the object that a config node's ``_target_`` names, of a kind or a subclass of it.

    A dataclass is checked for unknown keys and wrong types; any other class, or a function that
    returns such an object, checks its arguments itself.

    Raises
    ------
    UserError
        If the class does not exist, is of another kind, or refuses its arguments.
    """
    target = _target(key, node)
    other = UserError(
        f"{key}._target_={node['_target_']}: allowed are {kind.__name__} classes, and functions "
        "that return one of their objects"
    )
    if not callable(target) or (isinstance(target, type) and not issubclass(target, kind)):
        raise other
    name = ""
    try:
        if hasattr(target, "__dataclass_fields__"):
            built = OmegaConf.structured(target)
            with flag_override(built, "readonly", False):  # as a frozen dataclass has it
                for name in [key for key in node if key != "_target_"]:
                    # One by one, in their order: not every error names its key.
                    built.merge_with({name: node[name]})
            name = ""
            return OmegaConf.to_object(built)
        made = instantiate(node, **arguments)
        if not isinstance(made, kind) and "_partial_" not in arguments:
            raise other
        return made
    except UserError:
        raise
    except OmegaConfBaseException as error:
        text = one_line(error).removeprefix(f"{error.full_key}: ")
        for kind_name in ("list", "dict"):  # of which OmegaConf shows neither key nor value
            if name and f"is not a {kind_name.title()}Config" in text:
                text = f"allowed is a {kind_name}, and not {node[name]}"
        raise UserError(f"{key}.{name or error.full_key}: {text}") from error
    except (HydraException, ImportError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{key}: {one_line(error)}") from error


def accepted(key: str, node: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return of what is offered what a config node's class takes by name and the node lacks.

    Raises
    ------
    UserError
        If the class does not exist.
    """
    target = _target(key, node)
    try:
        takes = signature(target).parameters
    except (TypeError, ValueError):  # of some that are written in C, and what is no callable
        return {}
    return {name: value for name, value in offered.items() if name in takes and name not in node}


def _target(key: str, node: Any) -> Any:
    """Return what a config node's ``_target_`` names, after those of the nodes within it."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise UserError(f"{key}={node}: allowed is a class, {key}._target_, and its arguments")
    for name, value in node.items():
        if isinstance(value, dict) and "_target_" in value:
            _target(f"{key}.{name}", value)
    try:
        return get_object(node["_target_"])
    except (HydraException, ImportError, ValueError) as error:
        raise UserError(f"{key}._target_: {one_line(error)}") from error


def fail(error: BaseException) -> NoReturn:
    """End a command with one line on stderr and exit status 2."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(2) from error


@contextmanager
def ending(leave_output: Callable[[], None], interrupted: str = "interrupted") -> Iterator[None]:
    """End a command with one line where its work fails or is interrupted.

    Parameters
    ----------
    leave_output : callable
        Called where standard output may be gone, which would be flushed again at exit.
    interrupted : str
        The line of an interrupted one.
    """
    try:
        with interruptible():
            yield
    except UserError as error:
        fail(error)
    except OSError as error:
        leave_output()
        fail(error)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        raise SystemExit(130) from None


def one_line(error: BaseException) -> str:
    """Return the innermost cause of an error as one line of text."""
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    told = ""
    if isinstance(error, OverrideParseException):
        told = unquoted(error)
    elif isinstance(error, MissingConfigException):
        told = unknown_choice(error)
    elif isinstance(error, OmegaConfBaseException):
        inside = is_dataclass(error.object_type) and not issubclass(error.object_type, CommonConfig)
        told = unknown_key(error, () if inside else groups())
    if told:
        return told
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("object_type=", "full_key:", "reference_type=", "Set the environment variable")
    lines = [line for line in lines if not line.startswith(noise)]
    key = getattr(error, "full_key", None)
    text = " ".join(lines) or type(error).__name__
    return f"{key}: {text}" if key and key not in text else text
