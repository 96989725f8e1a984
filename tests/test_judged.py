"""What a rate is worth, by hand and by scipy: intervals, chance, AUC, how long a backdoor lives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from scipy.stats import binomtest

from fl_backdoor.measure import judged as j
from fl_backdoor.measure.measures import measured
from fl_backdoor.measure.metrics import Answers
from fl_backdoor.measure.replies import Observed, observed
from strategies import FedAvg


def said(classes: list[int], labels: list[int], attacked: list[int] | None = None) -> Answers:
    """Return what a model says of three classes, of which an attack wants the second."""
    outputs = [torch.eye(3)[part] if part is not None else None for part in (classes, attacked)]
    return Answers(outputs[0], torch.tensor(labels), 1, outputs[1], 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 7), (180, 400), (1, 1)])
def test_wilsons_interval_is_scipys(hits: int, count: int) -> None:
    theirs = binomtest(hits, count).proportion_ci(method="wilson")
    assert j.wilson(hits, count) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_of_nothing_the_interval_is_everything() -> None:
    assert j.wilson(0, 0) == (0.0, 1.0)
    assert j.attack_success_interval(said([0], [0], [])) is None


@pytest.mark.parametrize(("right", "chance"), [(59, True), (60, False)])
def test_a_model_is_at_chance_where_its_interval_reaches_the_largest_class(
    right: int, chance: bool
) -> None:
    """Of 100 rows half are of the largest class: Wilson's lower end passes 50 % from 60 on."""
    labels = [0] * 50 + [1] * 30 + [2] * 20
    answers = said(labels[:right] + [(label + 1) % 3 for label in labels[right:]], labels)
    assert j.at_chance(answers) is chance
    assert (binomtest(right, 100).proportion_ci(method="wilson").low <= 0.5) == chance


def test_success_has_an_interval_and_each_class_an_accuracy() -> None:
    row = measured("round", {"test": said([0, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 2])})
    assert row["class_accuracy"] == [0.5, 1.0, None]
    theirs = binomtest(3, 4).proportion_ci(method="wilson")
    assert row["attack_success_interval"] == pytest.approx([theirs.low, theirs.high])


def test_auc_is_the_part_of_pairs_in_the_right_order() -> None:
    labels, scores = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0.1, 0.4, 0.4, 0.9, 0.2])
    two = Answers(torch.stack([-scores, scores], 1), labels, None, None, 2)
    pairs = [
        float(b > a) + 0.5 * float(b == a) for a in scores[labels == 0] for b in scores[labels == 1]
    ]
    assert j.auc(two) == pytest.approx(sum(pairs) / len(pairs))
    assert j.auc(said([0, 1], [0, 1])) is None  # of three classes
    one = Answers(two.output[:2], labels[:2], None, None, 2)
    assert j.auc(one) is None


def rounds(rates: list[float | None], attacked: list[int], floor: float = 0.1) -> list[Any]:
    """Return rows of a success rate each, None at chance, with an attacker in some rounds."""
    return [
        {
            "attack_success_rate": 1.0 if rate is None else rate,
            "at_chance": rate is None,
            "attack_success_floor": floor,
            "attackers": [3] if number in attacked else [],
            "failed": [],
        }
        for number, rate in enumerate(rates, start=1)
    ]


@pytest.mark.parametrize(
    ("rates", "attacked", "lived"),
    [
        ([0.2, 0.8, 0.7, 0.4, 0.39, 0.9], [1, 2], (2, False)),  # 0.4 is half the peak, not less
        ([0.8, 0.3], [1], (0, False)),
        ([0.8, 0.5, 0.6], [1], (2, True)),  # the run ends before it
        ([0.8, None, 0.6], [1], (0, False)),  # a model at chance has no backdoor
        ([None, 0.8, 0.5, 0.3], [1, 2], (1, False)),  # nor a peak
        ([0.8, 0.7], [1, 2], (None, None)),  # no round after the last poisoned one
        ([0.8, 0.7], [], (None, None)),
        ([0.1, 0.1], [1], (None, None)),  # never above the floor
    ],
)
def test_a_backdoor_lives_until_success_is_under_half_its_peak(
    rates: list[float | None], attacked: list[int], lived: tuple[int | None, bool | None]
) -> None:
    rows = rounds(rates, attacked)
    assert (j.backdoor_lifespan(rows, ""), j.backdoor_outlived(rows, "")) == lived


def test_a_round_whose_attackers_did_not_answer_poisons_nothing() -> None:
    rows = rounds([0.8, 0.7, 0.6, 0.3], [1, 2])
    assert j.backdoor_lifespan(rows, "") == 1
    rows[1]["failed"] = [3]
    assert j.backdoor_lifespan(rows, "") == 2


def test_at_chance_there_is_no_success() -> None:
    [row] = rounds([0.9], [1])
    assert j.above_floor([row], "") == pytest.approx(0.8)
    assert j.last_above_chance([row], "attack_success_rate") == 0.9
    row["at_chance"] = True
    assert j.above_floor([row], "") is None
    assert j.last_above_chance([row], "attack_success_rate") is None


def test_the_worst_honest_client_is_that_of_the_least_accuracy() -> None:
    row = measured("round", {"honest": [0.9, 0.4, 0.7]})
    assert row["worst_client_accuracy"] == 0.4
    assert measured("round", {"honest": []})["worst_client_accuracy"] is None


@pytest.mark.parametrize(("attackers", "expected"), [([3], 0.8), ([], None), ([1, 2, 3], None)])
def test_cosine_of_the_mean_updates_and_drift(
    play: Callable[..., Any],
    record: Callable[..., ArrayRecord],
    attackers: list[int],
    expected: float | None,
) -> None:
    """Honest updates (4, 0) and (0, 2), of mean (2, 1); the attacker's is (1, 2)."""
    seen: list[Observed] = []
    strategy = FedAvg()
    strategy.observers.append(lambda round: seen.append(observed(round, "never", attackers)))
    sent = np.array([1.0, 1.0])
    updates = np.array([[4.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    arrays, _ = play(strategy, {"w": sent}, [{"w": sent + update} for update in updates])
    row = measured("round", seen[0].parts(record(arrays), attackers))
    assert row["cosine"] == pytest.approx(expected)
    assert row["drift"] == pytest.approx(float(np.linalg.norm(updates.mean(axis=0))))
    honest = [n for n in range(3) if n + 1 not in attackers]
    norms = np.linalg.norm(updates[honest], axis=1)
    mean = row["update_norm_honest_mean"]
    assert mean == (pytest.approx(norms.mean()) if honest else None)
