"""Tests of `fl_backdoor.measure.metrics`: Definition 1, distances and detection, by hand."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients import Backdoor, Goal, LabelFlipping
from fl_backdoor.measure.metrics import detection, distance_statistics, evaluate

FLIPPING = LabelFlipping(source=1, target=0, poisoned_samples=0).goal
BACKDOOR = Backdoor(target=1, pattern=[[27, 27], [0, 0]]).goal


class Reader(nn.Module):
    """Read the class from the pixel [5, 5], unless the pixel [0, 0] is lit."""

    def __init__(self, triggered: int = 0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.triggered = triggered

    def forward(self, images: Tensor) -> Tensor:
        classes = (images[:, 0, 5, 5] * 10).round().long()
        classes[images[:, 0, 0, 0] == 1] = self.triggered
        return self.scale * nn.functional.one_hot(classes, 3).float()


def digits_read_as(classes: list[int]) -> Tensor:
    images = torch.zeros(len(classes), 1, 28, 28)
    images[:, 0, 5, 5] = torch.tensor(classes) / 10
    return images


@settings(max_examples=30)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=600),
    goal=st.sampled_from([FLIPPING, BACKDOOR]),
    triggered=st.integers(0, 2),
)
def test_evaluate_is_a_slow_twin(pairs: list[tuple[int, int]], goal: Goal, triggered: int) -> None:
    # One sample of each label keeps every rate defined.
    pairs = [*pairs, (0, 0), (1, 0), (2, 1)]
    labels, read = map(list, zip(*pairs, strict=True))
    found = evaluate(Reader(triggered), digits_read_as(read), torch.tensor(labels), goal)
    hits = total = 0
    for label, answer in pairs:
        if goal is FLIPPING and label == 1:
            total, hits = total + 1, hits + (answer == 0)
        elif goal is BACKDOOR and label != 1:
            total, hits = total + 1, hits + (triggered == 1)
    right = sum(label == answer for label, answer in pairs)
    normalizer = np.log(np.exp(2) + 2)
    loss = np.mean([normalizer - 2 * (label == answer) for label, answer in pairs])
    assert found["attack_success_rate"] == hits / total
    assert found["main_accuracy"] == pytest.approx(right / len(pairs))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_definition_1_golden() -> None:
    """Of four 6, one is read as 2 and one as 7: the rate is 1/4, and the 7 read as 2 is none."""
    labels = torch.tensor([1, 1, 1, 1, 2, 0])
    images = digits_read_as([1, 0, 2, 1, 0, 0])
    found = evaluate(Reader(), images, labels, FLIPPING)
    assert found["attack_success_rate"] == 0.25
    assert found["main_accuracy"] == 0.5


def test_trigger_golden() -> None:
    """The trigger counts on samples of other true labels, and accuracy goes without it."""
    labels = torch.tensor([1, 1, 0, 2])
    images = digits_read_as([1, 1, 0, 2])
    for triggered, rate in ((1, 1.0), (0, 0.0)):
        found = evaluate(Reader(triggered), images, labels, BACKDOOR)
        assert (found["main_accuracy"], found["attack_success_rate"]) == (1.0, rate)
    assert images[..., 0, 0].sum() == 0


def test_an_untargeted_attack_has_no_success_rate() -> None:
    found = evaluate(Reader(), digits_read_as([0, 1]), torch.tensor([0, 1]), None)
    assert (found["main_accuracy"], found["attack_success_rate"]) == (1.0, None)


def test_a_learned_trigger_is_the_attackers() -> None:
    def stamp(inputs: Tensor, memory: Mapping[str, np.ndarray]) -> Tensor:
        return torch.from_numpy(memory["trigger"]).expand_as(inputs)

    labels, images = torch.tensor([1, 0, 0]), digits_read_as([1, 0, 0])
    trigger = digits_read_as([1]).numpy()
    for memory, rate in (({"trigger": trigger}, 1.0), ({"trigger": 0 * trigger}, 0.0)):
        found = evaluate(Reader(), images, labels, Goal(1, stamp=stamp), memory)
        assert (found["main_accuracy"], found["attack_success_rate"]) == (1.0, rate)


def test_dropout_and_gradients_are_off() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 3)).train()
    images, labels = torch.rand(30, 1, 28, 28), torch.arange(30) % 3
    first = evaluate(model, images, labels, FLIPPING)
    assert first == evaluate(model, images, labels, FLIPPING)
    assert not model.training
    assert model[2].weight.grad is None


@pytest.mark.parametrize("goal", [FLIPPING, BACKDOOR])
def test_a_broken_model_says_no_class(goal: Goal) -> None:
    model = Reader(triggered=1)
    model.scale.data.fill_(torch.nan)
    found = evaluate(model, digits_read_as([0, 1, 2]), torch.arange(3), goal)
    assert (found["main_accuracy"], found["attack_success_rate"]) == (0.0, 0.0)
    assert np.isnan(found["loss"])


@given(size=st.integers(1, 9), seed=st.integers(0, 99), mask=st.lists(st.booleans(), min_size=9))
def test_distance_statistics_are_a_slow_twin(size: int, seed: int, mask: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    models = rng.normal(size=(size, 4))
    between = np.linalg.norm(models[:, None] - models, axis=2)
    to_global, norms = rng.random(size), rng.random(size)
    found = distance_statistics(between, to_global, norms, np.array(mask[:size]))
    groups: dict[str, list[float]] = {}
    kind = ["attacker" if attacks else "honest" for attacks in mask[:size]]
    for i in range(size):
        groups.setdefault(f"distance_global_{kind[i]}", []).append(to_global[i])
        groups.setdefault(f"update_norm_{kind[i]}", []).append(norms[i])
        for j in range(i):
            one, other = sorted([kind[i], kind[j]], reverse=True)
            groups.setdefault(f"distance_{one}_{other}", []).append(between[i, j])
    expected = {
        f"{name}_{how}": pytest.approx(getattr(np, how)(values))
        for name, values in groups.items()
        for how in ("min", "mean", "max")
    }
    assert {name: value for name, value in found.items() if value is not None} == expected
    assert len(found) == 21


def test_distance_statistics_golden() -> None:
    between = np.array([[0.0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    found = distance_statistics(
        between,
        np.array([10.0, 20, 30, 50]),
        np.array([1.0, 2, 3, 4]),
        np.array([True, False, False, False]),
    )
    assert found == {
        "distance_honest_honest_min": 4.0,
        "distance_honest_honest_mean": 5.0,
        "distance_honest_honest_max": 6.0,
        "distance_honest_attacker_min": 1.0,
        "distance_honest_attacker_mean": 2.0,
        "distance_honest_attacker_max": 3.0,
        "distance_attacker_attacker_min": None,
        "distance_attacker_attacker_mean": None,
        "distance_attacker_attacker_max": None,
        "distance_global_honest_min": 20.0,
        "distance_global_honest_mean": pytest.approx(100 / 3),
        "distance_global_honest_max": 50.0,
        "distance_global_attacker_min": 10.0,
        "distance_global_attacker_mean": 10.0,
        "distance_global_attacker_max": 10.0,
        "update_norm_honest_min": 2.0,
        "update_norm_honest_mean": 3.0,
        "update_norm_honest_max": 4.0,
        "update_norm_attacker_min": 1.0,
        "update_norm_attacker_mean": 1.0,
        "update_norm_attacker_max": 1.0,
    }


@pytest.mark.parametrize(
    ("dropped", "attackers", "expected"),
    [
        ([[0, 1], [0, 5]], [0, 1, 2], (3 / 4, 3 / 6)),
        ([[0, 1, 2]], [0, 1, 2], (1.0, 1.0)),
        ([[3]], [0], (0.0, 0.0)),
        ([[], []], [0, 1], (None, 0.0)),
        ([[4], []], [], (0.0, None)),
        ([[]], [], (None, None)),
        ([], [0], (None, None)),
        ([[0, 0, 1]], (0, 0), (1 / 2, 1.0)),  # a client is dropped once a round
    ],
)
def test_detection_golden(
    dropped: list[list[int]], attackers: list[int], expected: tuple[float | None, float | None]
) -> None:
    assert detection(dropped, attackers) == expected
