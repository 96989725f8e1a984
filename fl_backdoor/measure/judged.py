"""What a rate is worth: its interval, whether the model is above chance, how long a backdoor lives.

Proportions have Wilson's score interval (Wilson 1927) at 95 %.
"""

import math
from typing import Any

from ..files import Row
from .metrics import Answers, predict


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion, from 0 to 1.

    Parameters
    ----------
    hits, count : int
        Successes among so many trials; 0 to 1 where there are none.
    """
    if not count:
        return 0.0, 1.0
    z = 1.959963984540054  # the 97.5 % point of N(0, 1)
    p, square = hits / count, z * z / count
    middle = (p + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(p * (1 - p) / count + square / count / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def at_chance(test: Answers) -> bool:
    """Tell whether the main accuracy is no better than always naming the largest class."""
    hits = int((predict(test.output) == test.labels).sum())
    largest = int(test.labels.bincount().max())
    return wilson(hits, len(test.labels))[0] <= largest / len(test.labels)


def class_accuracy(test: Answers) -> list[float | None]:
    """Return the accuracy of each class; None of one without test rows."""
    right = predict(test.output) == test.labels
    return [
        float(right[own].double().mean()) if bool((own := test.labels == number).any()) else None
        for number in range(test.classes)
    ]


def auc(test: Answers) -> float | None:
    """Return the area under the ROC curve of the second of two classes; None of more classes."""
    if test.classes != 2 or len(set(test.labels.tolist())) < 2 or not test.output.isfinite().all():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(test.labels.numpy(), test.output.softmax(dim=1)[:, 1].numpy()))


def attack_success_interval(test: Answers) -> list[float] | None:
    """Return the interval of the attack success rate."""
    if test.attacked is None or test.target is None or not len(test.attacked):
        return None
    hits = int((predict(test.attacked) == test.target).sum())
    return list(wilson(hits, len(test.attacked)))


def last_above_chance(rows: list[Row], name: str) -> Any:
    """Return what the last round has; None if its model is at chance, which is no success."""
    return None if rows[-1]["at_chance"] else rows[-1][name]


def above_floor(rows: list[Row], name: str) -> float | None:  # noqa: ARG001
    """Return the attack success rate minus its floor; None of a model at chance."""
    rate, floor = (
        last_above_chance(rows, key) for key in ("attack_success_rate", "attack_success_floor")
    )
    return None if rate is None or floor is None else rate - floor


def backdoor_lifespan(rows: list[Row], name: str) -> int | None:  # noqa: ARG001
    """Return the rounds after the last poisoned one until success is under half its peak.

    Or until the run ends: see `backdoor_outlived`. None if no round was poisoned, none came after,
    or the backdoor never was in (its peak is at most its floor).
    """
    lived = _lived(rows)
    return None if lived is None else lived[0]


def backdoor_outlived(rows: list[Row], name: str) -> bool | None:  # noqa: ARG001
    """Tell whether the backdoor was still in when the run ended."""
    lived = _lived(rows)
    return None if lived is None else lived[1]


def _lived(rows: list[Row]) -> tuple[int, bool] | None:
    came = [set(row["attackers"]) - set(row["failed"]) for row in rows]
    poisoned = [place for place, attackers in enumerate(came) if attackers]
    if not poisoned or poisoned[-1] == len(rows) - 1:
        return None
    end = poisoned[-1] + 1
    rates = [None if row["at_chance"] else row["attack_success_rate"] for row in rows]
    floors = [row["attack_success_floor"] or 0.0 for row in rows]
    peak = max(
        (rate for rate, floor in zip(rates[:end], floors, strict=False) if rate and rate > floor),
        default=None,
    )
    if peak is None:
        return None
    for lived, rate in enumerate(rates[end:]):
        if rate is None or rate < peak / 2:
            return lived, False
    return len(rows) - end, True
