"""The strategy, built from a configuration."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from flwr.serverapp.strategy import Bulyan, Strategy

from strategies import Robust, Screened

from ..config import build, count_attackers, expected_attackers, one_line
from ..errors import UserError
from ..schema import Config
from .cohort import new_cohort

MALICIOUS = "num_malicious"
"""A rule's f: what its operator assumes."""

MEANS = ("run_model", "noise", "root_update")
"""What rules may need of the app."""

ORACLE = "oracle"
"""Instead of f: the rule is told in each round how many of the cohort attack."""


def new_strategy(config: Config, means: object = None) -> Robust:
    """Build the strategy, and refuse settings with which it could never train.

    Parameters
    ----------
    config : Config
        Of the run.
    means : object
        Has `MEANS`, or some of them.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    size = new_cohort(config.cohort).size(config.num_clients)
    node = deepcopy(config.strategy)
    for layer in _layers(node):
        if layer.get(MALICIOUS) == ORACLE:
            layer[MALICIOUS] = expected_attackers(
                config.num_clients, count_attackers(config.attack, config.num_clients), size
            )
    strategy: Strategy = build("strategy", node, Strategy)
    if not isinstance(strategy, Robust):  # one of Flower's own, which weights by examples
        strategy = Screened(strategy, weighted=True)
    for name in MEANS:
        setattr(strategy, name, getattr(means, name, None))
    if "root_update" in strategy.all_needs() and not config.root.samples:
        raise UserError(
            "root.samples=0: the strategy trains on samples of the server; allowed is 1 or more, "
            "as with root=held_out"
        )
    _check_rule(strategy.flower, size)
    try:
        strategy.check(size)
        strategy.check_needs()
        strategy.remember()
    except ValueError as error:
        raise UserError(f"strategy: {one_line(error)}") from error
    return strategy


def assume(strategy: Robust, node: Any, attackers: int) -> None:
    """Tell a rule that asks the oracle how many attackers a round has.

    Parameters
    ----------
    strategy : Robust
        As `new_strategy` built it.
    node : dict
        What it was built from.
    attackers : int
        Of the round.
    """
    for layer in _layers(node):
        if layer.get(MALICIOUS) == ORACLE:
            strategy.num_malicious = attackers
        strategy = getattr(strategy, "inner", strategy)


def needed(strategy: Robust) -> int:
    """Return how many clients the strategy waits for before a round."""
    keys = ("min_available_nodes", "min_train_nodes")
    return max(1, *(int(getattr(strategy.flower, key, 0)) for key in keys))


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


def _layers(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the config nodes of a strategy and of those inside it, from the outside."""
    while isinstance(node, dict):
        yield node
        node = node.get("strategy")
