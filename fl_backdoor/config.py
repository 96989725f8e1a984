"""The configuration: its schema, its checks, and the one error that bad input becomes."""

import hashlib
import json
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from .errors import UserError

MAX_SEED = 2**63 - 1
"""The largest that torch takes."""

MAX_BATCH = 10**9
"""More rows than any data set: a larger number is a slip, and too large for torch."""

LONGEST = 200
"""Bytes of a folder's name, of which file systems allow 255."""


def short(name: str) -> str:
    """Return a name that a folder can have: the end of one that is too long becomes a digest."""
    text = name.encode()
    if len(text) <= LONGEST:
        return name
    digest = hashlib.sha256(text).hexdigest()[:16]
    return f"{text[: LONGEST - 17].decode(errors='ignore')}-{digest}"


OmegaConf.register_new_resolver("short", short, replace=True)


@dataclass
class TrainingConfig:
    """Arguments of `clients.HonestClient`, the same for every participant."""

    batch_size: int = MISSING
    epochs: int = MISSING
    learning_rate: float = MISSING
    decay: float = MISSING
    weight_decay: float = MISSING
    device: str = MISSING


@dataclass
class MeasureConfig:
    """What of each round is measured and drawn; see ``conf/protocol/horizontal.yaml``."""

    distances: str = MISSING
    graphs: str = MISSING


@dataclass
class EngineConfig:
    """See ``conf/engine/ray.yaml``."""

    kind: str = MISSING
    num_workers: int | None = MISSING
    cpus_per_client: float = MISSING
    gpus_per_client: float = MISSING
    address: str | None = MISSING


@dataclass
class CommonConfig:
    """The keys that every protocol has."""

    name: str = MISSING
    seed: int = MISSING
    round_timeout: float = MISSING
    floor: bool = MISSING
    resume: bool = MISSING
    dataset: Any = MISSING
    engine: EngineConfig = field(default_factory=EngineConfig)

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises
        ------
        UserError
            Naming the first key at fault.
        """
        engine = self.engine
        check_least(
            ("seed", self.seed, 0),
            ("engine.num_workers", engine.num_workers, 1),
            ("engine.gpus_per_client", engine.gpus_per_client, 0),
        )
        check_most(("seed", self.seed, MAX_SEED))
        for key, number in [
            ("round_timeout", self.round_timeout),
            ("engine.cpus_per_client", engine.cpus_per_client),
        ]:
            if not 0 < number < float("inf"):
                raise UserError(f"{key}={number}: allowed is more than 0")
        if engine.kind == "local" and (engine.num_workers not in (None, 1) or engine.address):
            raise UserError(
                f"engine.num_workers={engine.num_workers}, engine.address={engine.address}: "
                "allowed with engine=local are 1 and null"
            )
        if engine.kind not in ("ray", "local"):
            raise UserError(f"engine.kind={engine.kind}: allowed are ray, local")


@dataclass
class Config(CommonConfig):
    """Horizontal; the parts of type Any are built from their ``_target_``."""

    num_clients: int = MISSING
    num_rounds: int = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    strategy: Any = MISSING
    attack: Any = MISSING
    model: Any = MISSING

    def check(self) -> None:
        """Refuse values that are out of range."""
        super().check()
        training = self.training
        check_least(
            ("num_clients", self.num_clients, 1),
            ("num_rounds", self.num_rounds, 1),
            ("training.batch_size", training.batch_size, 1),
            ("training.epochs", training.epochs, 1),
            ("training.learning_rate", training.learning_rate, 0),
            ("training.decay", training.decay, 0),
            ("training.weight_decay", training.weight_decay, 0),
        )
        check_most(("training.batch_size", training.batch_size, MAX_BATCH))


ConfigStore.instance().store(name="horizontal_schema", node=Config)

SomeConfig = TypeVar("SomeConfig", bound=CommonConfig)


def conf_directory() -> Path:
    """Return the folder of the Hydra configs: inside the wheel, or beside the checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def check_groups(overrides: list[str]) -> None:
    """Refuse a group without a choice, which Hydra answers without naming the group.

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
        empty = removed or (bool(sign) and choice in ("", "null"))
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
        raise UserError(f"{prefix}{key}: unknown key; allowed are {', '.join(sorted(known))}")
    for key, kind in known.items():
        if key not in given or OmegaConf.is_missing(given, key):
            raise UserError(f"{prefix}{key}: not given, and has no default")
        if is_dataclass(kind):
            _check_keys(f"{prefix}{key}.", given[key], kind)


def check_least(*bounds: tuple[str, float | None, float]) -> None:
    """Refuse numbers, given as (key, number or None, least), that are below their least.

    Raises
    ------
    UserError
        Naming the first.
    """
    for key, number, least in bounds:
        if number is not None and not least <= number < float("inf"):
            raise UserError(f"{key}={number}: allowed is {least} or more")


def check_most(*bounds: tuple[str, int, int]) -> None:
    """Refuse numbers, given as (key, number, most), that are above their most.

    Raises
    ------
    UserError
        Naming the first.
    """
    for key, number, most in bounds:
        if number > most:
            raise UserError(f"{key}={number}: allowed is {most} or less")


def build(key: str, node: Any, kind: type[Any] = object, **arguments: Any) -> Any:
    """Build the object that a config node's ``_target_`` names, of a kind or a subclass of it.

    A dataclass is checked for unknown keys and wrong types; any other class checks itself.

    Raises
    ------
    UserError
        If the class does not exist, is of another kind, or refuses its arguments.
    """
    target = _target(key, node)
    if not isinstance(target, type) or not issubclass(target, kind):
        raise UserError(f"{key}._target_={node['_target_']}: allowed are {kind.__name__} classes")
    name = ""
    try:
        if hasattr(target, "__dataclass_fields__"):
            built = OmegaConf.structured(target)
            for name in node.keys() - {"_target_"}:  # one by one: not every error names its key
                built = OmegaConf.merge(built, {name: node[name]})
            name = ""
            return OmegaConf.to_object(built)
        return instantiate(node, **arguments)
    except UserError:
        raise
    except OmegaConfBaseException as error:
        text = one_line(error).removeprefix(f"{error.full_key}: ")
        raise UserError(f"{key}.{name or error.full_key}: {text}") from error
    except (HydraException, ImportError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{key}: {one_line(error)}") from error


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


def one_line(error: BaseException) -> str:
    """Return the innermost cause of an error as one line of text."""
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ConfigKeyError) and is_dataclass(error.object_type):
        allowed = ", ".join(sorted(field.name for field in fields(error.object_type)))
        return f"{error.full_key}: unknown key; allowed are {allowed}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("object_type=", "full_key:", "reference_type=", "Set the environment variable")
    lines = [line for line in lines if not line.startswith(noise)]
    key = getattr(error, "full_key", None)
    text = " ".join(lines) or type(error).__name__
    return f"{key}: {text}" if key and key not in text else text
