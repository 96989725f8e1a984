"""The strategy, built from a configuration."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Bulyan, Strategy
from numpy.typing import NDArray

from strategies import Robust, Screened

from ..config import build, one_line
from ..errors import UserError
from ..schema import Config


def new_strategy(config: Config, run_model: Callable[[ArrayRecord, Any], NDArray[Any]]) -> Robust:
    """Build the strategy, and refuse settings with which it could never train.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    strategy: Strategy = build("strategy", deepcopy(config.strategy), Strategy)
    if not isinstance(strategy, Robust):  # one of Flower's own, which weights by examples
        strategy = Screened(strategy, weighted=True)
    strategy.run_model = run_model
    _check_rule(strategy.flower, config.num_clients)
    try:
        strategy.check(config.num_clients)
        strategy.check_needs()
        strategy.remember()
    except ValueError as error:
        raise UserError(f"strategy: {one_line(error)}") from error
    return strategy


def _check_rule(rule: Strategy, clients: int) -> None:
    """Refuse settings with which Flower would wait forever, or keep the first model forever."""
    fraction = getattr(rule, "fraction_train", 1.0)
    if fraction != 1.0:
        raise UserError(
            f"strategy.fraction_train={fraction}: allowed is 1.0, since Flower draws the nodes "
            "from an unseeded generator"
        )
    most_malicious = (clients - 3) // 4 if isinstance(rule, Bulyan) else clients - 1
    for key, least, most in [
        ("min_train_nodes", 0, clients),
        ("min_available_nodes", 0, clients),
        ("num_malicious_nodes", 0, most_malicious),
        ("num_nodes_to_select", 1, clients),
    ]:
        value = getattr(rule, key, least)
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"strategy.{key}={value}: {type(rule).__name__} of {clients} clients allows "
                + (f"{least} to {most}" if most >= least else "none")
            )
