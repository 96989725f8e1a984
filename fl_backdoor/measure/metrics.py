"""What is measured of a round: the model, the distances between models, the defense."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..files import Row

if TYPE_CHECKING:  # rows and tables are read without it
    from torch import Tensor

    from strategies.vertical import EpochReport


@dataclass(frozen=True)
class Answers:
    """What a model says of test rows.

    Attributes
    ----------
    output : Tensor of shape (n, C)
        Logits of the test rows as they are.
    labels : Tensor of shape (n,)
        Their classes.
    target : int or None
        The class that the attack wants; None: it is not targeted.
    attacked : Tensor of shape (v, C) or None
        Logits of the rows that the attack is after, with its trigger if it has one.
    poisoned : Tensor of shape (p, C) or None
        Logits of D_poison's test rows with the trigger (vertical).
    classes : int
        The logits that stand for classes; those behind them are not counted as such.
    """

    output: "Tensor"
    labels: "Tensor"
    target: int | None
    attacked: "Tensor | None"
    classes: int
    poisoned: "Tensor | None" = None


@dataclass(frozen=True)
class Selection:
    """Whom a defense left out of a round; who attacked, who was asked, and who did not answer."""

    dropped: list[int] | None
    invalid: list[int]
    attackers: list[int]
    cohort: list[int]
    failed: list[int]


@dataclass(frozen=True)
class Replies:
    """What clients sent, one number a client.

    Attributes
    ----------
    update_norms : array of shape (n,)
        Distances of local models to the global model they were trained from.
    to_global : array of shape (n,)
        Distances to the global model aggregated from them, Eq. 3 of Cao et al. 2019.
    attacking : array of shape (n,), bool
        Which of them are attackers'.
    drift : float
        How far the global model moved in the round: its distance to the one before.
    cosine : float or None
        Between the mean of the honest updates and that of the attackers'; None without both.
    """

    update_norms: NDArray[np.float64]
    to_global: NDArray[np.float64]
    attacking: NDArray[np.bool_]
    drift: float = 0.0
    cosine: float | None = None


@dataclass(frozen=True)
class Distances:
    """Distances between local models, Eq. 6 of Cao et al. 2019, shape (n, n)."""

    between: NDArray[np.float64]
    attacking: NDArray[np.bool_]

    def pairs(self, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the distances of pairs of one kind and another, each pair once."""
        chosen = np.outer(one, other)
        if one is other:
            chosen &= np.triu(np.ones_like(chosen), k=1)
        return self.between[chosen]


def train_loss(report: "EpochReport") -> float:
    """Return the mean training loss."""
    return report.loss


def loss(test: Answers) -> float:
    """Return the cross entropy on the test set."""
    from torch.nn import functional

    return float(functional.cross_entropy(test.output, test.labels))


def main_accuracy(test: Answers) -> float:
    """Return the part of the test set that is classified rightly."""
    return part(predict(test.output) == test.labels)


def damage(test: Answers, twin: Row) -> float | None:
    """Return what an untargeted attack takes of the main accuracy: the clean twin's minus this."""
    return None if test.target is not None else float(twin["main_accuracy"]) - main_accuracy(test)


def attack_success_rate(test: Answers) -> float | None:
    """Return the part of the attacked test rows that get the target class (Definition 1)."""
    return _hits(test.attacked, test.target)


def backdoor_accuracy(test: Answers) -> float | None:
    """Return the part of D_poison's test rows that get the target class, whatever theirs is.

    Section 7.2 of Liu, Yi, Chen 2020.
    """
    return _hits(test.poisoned, test.target)


def scores(test: Answers) -> list[float] | None:
    """Return the mean softmax of D_poison's test rows by class (Fig. 3).

    Where parties send more scores than there are classes, those of the classes.
    """
    if test.poisoned is None:
        return None
    means: list[float] = test.poisoned.softmax(dim=1).mean(dim=0)[: test.classes].tolist()
    return means


def worst_client_accuracy(honest: list[float]) -> float | None:
    """Return the lowest accuracy of the global model on an honest client's own samples."""
    return min(honest, default=None)


def g_rec_norm(said: dict[str, float]) -> float | None:
    """Return the norm of the gradient that the attacker recorded."""
    return said.get("g-rec-norm")


def twins(name: str) -> Callable[[Row], Any]:
    """Return the measure of what the clean twin has of another one."""

    def floor(twin: Row) -> Any:
        return twin[name]

    return floor


def precision(selection: Selection) -> float | None:
    """Return the part of those left out that attack."""
    return detection([selection]).precision


def recall(selection: Selection) -> float | None:
    """Return the part of the attackers that were left out."""
    return detection([selection]).recall


def defense_precision(rows: list[Row], name: str) -> float | None:  # noqa: ARG001
    """Return the part of those left out, over all rounds, that attack."""
    return detection(_selections(rows)).precision


def defense_recall(rows: list[Row], name: str) -> float | None:  # noqa: ARG001
    """Return the part of the attackers, over all rounds, that were left out: true positives."""
    return detection(_selections(rows)).recall


def defense_false_positives(rows: list[Row], name: str) -> float | None:  # noqa: ARG001
    """Return the part of the honest clients, over all rounds, that were left out."""
    return detection(_selections(rows)).false_positives


def everybody(rows: list[Row], name: str) -> list[int]:
    """Return the clients of all rounds, ascending."""
    return sorted(set().union(*(row[name] for row in rows)))


def _selections(rows: list[Row]) -> list[Selection]:
    keys = [field.name for field in fields(Selection)]
    return [Selection(*(row[key] for key in keys)) for row in rows]


class Detection(NamedTuple):
    """How well a defense tells attackers from honest clients; None where there are none."""

    precision: float | None
    recall: float | None
    false_positives: float | None


def detection(rounds: Iterable[Selection]) -> Detection:
    """Compare whom a defense left out, over rounds, with those who attacked in them.

    A client that gave no answer does not count: nobody could choose it or leave it out. In a round
    without a valid reply the defense has nothing to say.
    """
    rounds = list(rounds)
    if all(selection.dropped is None for selection in rounds):
        return Detection(None, None, None)
    caught = total = attacking = honest = 0
    for selection in rounds:
        left_out = {*(selection.dropped or []), *selection.invalid}
        attackers = set(selection.attackers) - set(selection.failed)
        caught += len(left_out & attackers)
        total += len(left_out)
        attacking += len(attackers)
        honest += len(set(selection.cohort) - set(selection.failed) - attackers)
    return Detection(
        caught / total if total else None,
        caught / attacking if attacking else None,
        (total - caught) / honest if honest else None,
    )


def distance_honest_honest(distances: Distances) -> NDArray[np.float64]:
    """Return the distances between honest models (Figs. 5 and 7 of Cao et al. 2019)."""
    honest = ~distances.attacking
    return distances.pairs(honest, honest)


def distance_honest_attacker(distances: Distances) -> NDArray[np.float64]:
    """Return the distances between honest models and attackers'."""
    return distances.pairs(~distances.attacking, distances.attacking)


def distance_attacker_attacker(distances: Distances) -> NDArray[np.float64]:
    """Return the distances between attackers' models."""
    return distances.pairs(distances.attacking, distances.attacking)


def distance_global_honest(replies: Replies) -> NDArray[np.float64]:
    """Return the distances of honest models to the new global model."""
    return replies.to_global[~replies.attacking]


def distance_global_attacker(replies: Replies) -> NDArray[np.float64]:
    """Return the distances of attackers' models to the new global model."""
    return replies.to_global[replies.attacking]


def update_norm_honest(replies: Replies) -> NDArray[np.float64]:
    """Return the norms of honest updates."""
    return replies.update_norms[~replies.attacking]


def update_norm_attacker(replies: Replies) -> NDArray[np.float64]:
    """Return the norms of attackers' updates."""
    return replies.update_norms[replies.attacking]


def last(rows: list[Row], name: str) -> Any:
    """Return what the last round has."""
    return rows[-1][name]


def total(rows: list[Row], name: str) -> Any:
    """Return the sum over rounds."""
    return sum(row[name] for row in rows)


def seconds(rows: list[Row], name: str) -> float:  # noqa: ARG001
    """Return how long all rounds took."""
    keys = ("seconds_round", "seconds_epoch")
    return float(sum(row[key] for row in rows for key in keys if key in row))


def predict(output: "Tensor") -> "Tensor":
    """Return the class of each row of logits ``(n, C)``; -1 for a row that holds NaN."""
    # argmax takes NaN for the largest value: a broken model would seem to say class 0.
    return output.argmax(dim=1).where(~output.isnan().any(dim=1), -1)


def _hits(output: "Tensor | None", target: int | None) -> float | None:
    return None if output is None or target is None else part(predict(output).eq(target))


def part(hits: "Tensor") -> float:
    """Return the part of rows that are hits; NaN of none."""
    return float(hits.double().mean())
