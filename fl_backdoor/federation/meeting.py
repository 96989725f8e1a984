"""Where the attackers of a federation meet, and the copies of the rule that they ask."""

from collections.abc import Callable, Sequence

from clients import Adaptive, Attack, Colluders
from strategies import Rehearsal, Robust

from ..files import Row
from .horizontal import Federation
from .roll import Roll


def meeting(
    federation: Federation, roll: Roll, strategy: Robust, attacks: Callable[[int], bool]
) -> Colluders:
    """Return the grid of a training in which attackers collude, if their attack has them do so.

    Parameters
    ----------
    federation : Federation
        Of the attack.
    roll : Roll
        Who plays which client.
    strategy : Robust
        What attackers who ask the rule get a copy of; before its first round.
    attacks : callable
        Tells whether a client attacks in the round.
    """
    seed = federation.config.seed
    for layer in federation.attack.layers():
        if isinstance(layer, Adaptive):
            layer.rule = layer.rule or Rehearsal(strategy, seed + 1)
    return Colluders(
        roll.grid,
        federation.attack,
        lambda node: node in roll.partitions and attacks(roll.partitions[node]),
        number=lambda node: roll.partitions[node],
        seed=seed,
    )


def rehearsed(attack: Attack) -> list[Robust]:
    """Return the copies of the rule that attackers ask."""
    rules = [layer.rule for layer in attack.layers() if isinstance(layer, Adaptive)]
    return [rule.strategy for rule in rules if isinstance(rule, Rehearsal)]


def adapted(attack: Attack, rows: Sequence[Row]) -> bool:
    """Tell whether there was a round in which attackers reckoned with the defense."""
    tried = [row for row in rows if row["attackers"] and "cannot-ask" not in row.get("attack", ())]
    return bool(tried) and any(layer.adaptive for layer in attack.layers())
