"""How clients train, built from a configuration: ``training`` and ``optimizer``."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.optim import Optimizer

from clients.schedules import Constant

from ..config import build, conf_directory, one_line
from ..errors import UserError
from ..schema import Config

OWN = ("learning_rate", "schedule", "max_norm", "mu")
"""Keys of ``optimizer`` that are ours; all others are arguments of its class."""

_OLD = {
    "training.learning_rate": "optimizer.learning_rate",
    "training.weight_decay": "optimizer.weight_decay",
    "training.decay": "optimizer.schedule.decay",
}
"""Keys that were there before the group, and where the group reads them by interpolation."""


def client_settings(config: Config) -> dict[str, Any]:
    """Return the arguments of `clients.HonestClient` that say how it trains.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    node = config.optimizer
    if not isinstance(node, dict):
        raise UserError(f"optimizer={node}: allowed is a class, optimizer._target_, and arguments")
    _check_old_keys(config)
    settings: dict[str, Any] = asdict(config.training)
    settings["learning_rate"] = _number(node, "learning_rate", config.training.learning_rate)
    settings["mu"] = _number(node, "mu", 0)
    if node.get("max_norm") is not None:
        settings["max_norm"] = _number(node, "max_norm", None, above=True)
    settings["schedule"] = _schedule(node.get("schedule"), config.num_rounds)
    made = _optimizer(
        {key: value for key, value in node.items() if key not in OWN}, settings["learning_rate"]
    )
    if _is_plain(made):
        settings["weight_decay"] = _number(node, "weight_decay", 0)
    else:
        settings["optimizer"] = lambda parameters, rate: made(parameters, lr=rate)
    return settings


def _schedule(node: Any, num_rounds: int) -> Callable[[int], float]:
    if node is None:
        return Constant()
    if isinstance(node, str):
        raise UserError(f"optimizer.schedule={node}: choose it with optimizer/schedule={node}")
    schedule: Callable[[int], float] = build("optimizer.schedule", node, object)
    if not callable(schedule):
        raise UserError(
            f"optimizer.schedule._target_={node['_target_']}: allowed are classes whose objects "
            "return the factor of a round when they are called with its number"
        )
    for number in range(num_rounds):
        try:
            found = f"{(factor := float(schedule(number)))}"
        except Exception as error:  # a class of the user's own: whatever it raises
            found, factor = f"{type(error).__name__} ({one_line(error)})", math.nan
        if not 0 <= factor < math.inf:
            raise UserError(
                f"optimizer.schedule._target_={node['_target_']}: {found} for round {number}; "
                "allowed is a finite number, 0 or more"
            )
    return schedule


def _optimizer(node: dict[str, Any], learning_rate: float) -> partial[Optimizer]:
    """Return the class with its arguments, which have been tried on a parameter."""
    for key, value in node.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"optimizer.{key}={value}: allowed is a finite number")
    made: partial[Optimizer] = build(
        "optimizer", node | {"_convert_": "all"}, Optimizer, _partial_=True
    )
    try:
        inspect.signature(made.func).bind([], lr=0.0, **made.keywords)
    except TypeError as error:
        takes = sorted(inspect.signature(made.func).parameters.keys() - {"params", "lr"})
        raise UserError(
            f"optimizer: {one_line(error)}; allowed are {', '.join([*OWN, *takes])}"
        ) from error
    if not _is_plain(made):
        try:
            made([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
        except Exception as error:  # of whatever kind the class raises
            given = ", ".join(f"{key}={value!r}" for key, value in made.keywords.items())
            raise UserError(f"optimizer: {one_line(error)}; given are {given}") from error
    return made


def _is_plain(made: partial[Optimizer]) -> bool:
    """Tell whether clients can take the steps themselves, without seconds of torch's imports."""
    rest = {key: value for key, value in made.keywords.items() if key != "weight_decay"}
    return made.func is torch.optim.SGD and all(value == 0 for value in rest.values())


def _number(node: Mapping[str, Any], key: str, default: Any, *, above: bool = False) -> float:
    value = node.get(key, default)
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not (right and (value > 0 if above else value >= 0) and value < math.inf):
        allowed = "null or a finite number > 0" if above else "a finite number, 0 or more"
        raise UserError(f"optimizer.{key}={value}: allowed is {allowed}")
    return float(value)


@cache
def _defaults() -> dict[str, Any]:
    """Return what ``training`` is where nobody says anything."""
    file = conf_directory() / "protocol" / "horizontal.yaml"
    protocol = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(protocol, dict)
    return {f"training.{key!s}": value for key, value in protocol["training"].items()}


def _check_old_keys(config: Config) -> None:
    """Refuse an old key that is not at its default where the group says something else."""
    for old, new in _OLD.items():
        given = getattr(config.training, old.rpartition(".")[2])
        says: Any = {"optimizer": config.optimizer}
        for part in new.split("."):
            says = says.get(part) if isinstance(says, dict) else None
        if given not in (_defaults()[old], says):
            raise UserError(
                f"{old}={given}, {new}={'not there' if says is None else says}: "
                "allowed is one of them; leave the other out"
            )
