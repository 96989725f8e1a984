"""What an audit can try: attacks on replies and data of an app, and defenses in its place."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flwr.serverapp.strategy import Strategy

import strategies
from clients import ModelReplacement
from clients.attacker import Attack
from clients.attacks.alie import ALIE
from clients.attacks.gaussian import Gaussian
from clients.attacks.ipm import IPM
from clients.attacks.mimic import Mimic
from clients.attacks.min_max import MinMax
from clients.attacks.min_sum import MinSum
from clients.attacks.sign_flip import SignFlip

from ..errors import UserError
from ..nearest import nearest

AS_YOU_ARE, NOBODY = "as you are", "nobody attacks"
"""The app's own strategy, and its own clients."""


@dataclass(frozen=True)
class Malice:
    """What attackers do.

    Attributes
    ----------
    about : str
        In a few words.
    replies : callable of (n, P), optional
        Returns what they do to what they send, n clients and P attackers.
    labels : bool
        They train on labels turned around: of C classes, y becomes C - 1 - y.
    backdoor : bool
        They train on a trigger.
    """

    about: str
    replies: Callable[[int, int], Attack] | None = None
    labels: bool = False
    backdoor: bool = False


def _turning(n: int, p: int) -> float:
    """Return the factor by which P attackers of n turn an average around: 2 (n - P) / P."""
    return 2 * (n - p) / p


ATTACKS = {
    "sign_flip": Malice(
        "updates turned around, long enough to turn the average",
        lambda n, p: SignFlip(factor=_turning(n, p)),
    ),
    "gaussian": Malice("noise for an update", lambda *_: Gaussian()),
    "ipm": Malice(
        "the honest mean turned around, long enough to turn the average",
        lambda n, p: IPM(epsilon=_turning(n, p), knowledge="all"),
    ),
    "alie": Malice(
        "a little off the honest mean, within its spread", lambda *_: ALIE(knowledge="all")
    ),
    "min_max": Malice(
        "as far off as honest updates are from each other", lambda *_: MinMax(knowledge="all")
    ),
    "min_sum": Malice(
        "as min_max, by the sum of the distances", lambda *_: MinSum(knowledge="all")
    ),
    "mimic": Malice("all send a copy of one honest update", lambda *_: Mimic()),
    "label_flip": Malice("training on labels turned around", labels=True),
    "backdoor": Malice("training on a trigger", backdoor=True),
    "model_replacement": Malice(
        "training on a trigger, the update scaled by n / P",
        lambda n, p: ModelReplacement(factor=n / p),
        backdoor=True,
    ),
}
"""By name."""

Defense = Callable[[Strategy, int, int], strategies.Robust]
"""Of the app's own strategy, n clients and P attackers: what stands in its place."""


def _rule(rule: type[strategies.Robust], **settings: Any) -> Defense:
    return lambda own, _n, _p: rule(flower=own, **settings)


DEFENSES: dict[str, Defense] = {
    "alignins": _rule(strategies.AlignIns),
    "dnc": lambda own, _, p: strategies.DnC(p, seed=0, flower=own),
    "fedmedian": _rule(strategies.Median),
    "fedtrimmedavg": lambda own, n, p: strategies.TrimmedMean(p / n, flower=own),
    "flame": _rule(strategies.FLAME, seed=0),
    "foolsgold": _rule(strategies.FoolsGold),
    "geometric_median": _rule(strategies.GeometricMedian),
    "krum": lambda own, _, p: strategies.Krum(p, flower=own),
    "lasa": _rule(strategies.LASA),
    "multikrum": lambda own, n, p: strategies.MultiKrum(p, n - p, flower=own),
    "norm_clipping": lambda own, *_: strategies.NormClipping(
        strategies.FedAvg(flower=own), "median"
    ),
    "signguard": _rule(strategies.SignGuard, seed=0),
    "sniper_auto": _rule(strategies.Sniper, threshold="auto"),
}
"""By the names of ``conf/strategy``."""

FIRST_ATTACKS = ("sign_flip", "alie", "min_max", "label_flip", "backdoor", "model_replacement")
FIRST_DEFENSES = ("norm_clipping", "fedmedian", "multikrum", "flame")
"""What is tried where nothing is said."""


def names(key: str, given: str, allowed: Iterable[str]) -> list[str]:
    """Return the names of a list separated by commas; ``all`` are all, ``none`` is none.

    Raises
    ------
    UserError
        If one of them does not exist.
    """
    allowed = list(allowed)
    if given in ("all", "none"):
        return allowed if given == "all" else []
    chosen = list(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in chosen:
        if name not in allowed:
            near = nearest(name, allowed)
            raise UserError(f"{key}={name}: allowed are all, none, {', '.join(allowed)}{near}")
    return chosen
