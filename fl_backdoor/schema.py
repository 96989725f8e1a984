"""What a configuration holds, key by key, and the bounds of its numbers."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from .errors import UserError
from .nearest import nearest

MAX_SEED: Final = 2**63 - 1
"""The largest that torch takes."""

MAX_BATCH: Final = 10**9
"""More rows than any data set: a larger number is a slip, and too large for torch."""


def bounded(default: Any = MISSING, **bounds: Any) -> Any:
    """Declare a field, and what its value may be; None may be whatever the bounds.

    Parameters
    ----------
    default
        None: it must be given.
    **bounds
        ``least``, ``most``: the smallest and the largest number. ``above``, ``below``: it must be
        larger, smaller. ``choices``: all values that are allowed.
    """
    return field(default=default, metadata=bounds)


def check_bounds(config: Any, prefix: str = "") -> None:
    """Hold the values of a dataclass, and of those in it, against their bounds.

    Raises
    ------
    UserError
        Naming the first key at fault, its value, and what is allowed.
    """
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            check_bounds(value, f"{prefix}{part.name}.")
        elif value is not None and part.metadata:
            allowed = _refused(value, **part.metadata)
            if allowed:
                null = ", or null" if type(None) in get_args(part.type) else ""
                near = nearest(str(value), part.metadata.get("choices", ()))
                raise UserError(f"{prefix}{part.name}={value}: allowed {allowed}{null}{near}")


def _refused(
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> str:
    """Say what is allowed instead of a value; "" if it is."""
    if choices and value not in choices:
        return f"are {', '.join(choices)}"
    if value == float("inf"):
        return f"is a finite number {in_words(least=least, most=most, above=above, below=below)}"
    if least is not None and not least <= value:
        return f"is {least} or more"
    if above is not None and not above < value:
        return f"is more than {above}"
    if below is not None and not value < below:
        return f"is less than {below}"
    if most is not None and value > most:
        return f"is {most} or less"
    return ""


def in_words(
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> str:
    """Say what the bounds of a field allow."""
    if choices:
        return ", ".join(choices)
    limits = {"from {}": least, "to {}": most, "more than {}": above, "less than {}": below}
    return " ".join(text.format(limit) for text, limit in limits.items() if limit is not None)


@dataclass
class EngineConfig:
    """See ``conf/engine/ray.yaml``."""

    kind: str = bounded(choices=("ray", "local"))
    num_workers: int | None = bounded(least=1)
    cpus_per_client: float = bounded(above=0)
    gpus_per_client: float = bounded(least=0)
    address: str | None = MISSING


@dataclass
class CommonConfig:
    """The keys that every protocol has; parts of type Any are built from their ``_target_``."""

    name: str = MISSING
    seed: int = bounded(least=0, most=MAX_SEED)
    round_timeout: float = bounded(above=0)
    floor: bool = MISSING
    resume: bool = MISSING
    dataset: Any = MISSING
    attack: Any = MISSING
    tracker: Any = MISSING
    engine: EngineConfig = field(default_factory=EngineConfig)

    def check(self) -> None:
        """Refuse values that do not go together.

        Raises
        ------
        UserError
            Naming the keys at fault.
        """
        engine = self.engine
        if engine.kind == "local" and (engine.num_workers not in (None, 1) or engine.address):
            raise UserError(
                f"engine.num_workers={engine.num_workers}, engine.address={engine.address}: "
                "allowed with engine=local are 1 and null"
            )


@dataclass
class TrainingConfig:
    """Arguments of `clients.HonestClient`, the same for every participant.

    ``conf/optimizer`` reads learning rate, decay and weight decay from here.
    """

    batch_size: int = bounded(least=1, most=MAX_BATCH)
    epochs: int = bounded(least=1)
    learning_rate: float = bounded(least=0)
    decay: float = bounded(least=0)
    weight_decay: float = bounded(least=0)
    device: str = MISSING


@dataclass
class MeasureConfig:
    """What of each round is measured and drawn; see ``conf/protocol/horizontal.yaml``."""

    distances: str = bounded(choices=("auto", "always", "never"))
    graphs: str = bounded(choices=("last", "all"))
    extra: list[str] = field(default_factory=list)


@dataclass
class RootConfig:
    """See ``conf/root/held_out.yaml``."""

    samples: int = bounded(least=0)


@dataclass
class Config(CommonConfig):
    """Horizontal: see ``conf/protocol/horizontal.yaml``."""

    partition: Any = MISSING
    num_clients: int = bounded(least=1)
    num_rounds: int = bounded(least=1)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    cohort: Any = MISSING
    root: RootConfig = field(default_factory=RootConfig)
    strategy: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING


@dataclass
class VerticalTrainingConfig:
    """See ``conf/protocol/vertical.yaml``."""

    batch_size: int = bounded(least=1, most=MAX_BATCH)
    learning_rate: float = bounded(least=0)
    local_steps: int = bounded(least=1)


@dataclass
class VerticalConfig(CommonConfig):
    """Vertical: see ``conf/protocol/vertical.yaml``; each defense is built as well."""

    num_epochs: int = bounded(least=1)
    active_features: bool = MISSING
    training: VerticalTrainingConfig = field(default_factory=VerticalTrainingConfig)
    bottom: Any = MISSING
    top: Any = MISSING
    defenses: dict[str, Any] = field(default_factory=dict)


for _name, _node in (("horizontal_schema", Config), ("vertical_schema", VerticalConfig)):
    ConfigStore.instance().store(name=_name, node=_node)
