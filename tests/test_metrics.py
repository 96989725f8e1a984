"""Tests of `fl_backdoor.measure.metrics`: Definition 1, distances and detection, by hand."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from clients import Backdoor, Goal, LabelFlipping
from fl_backdoor import compare
from fl_backdoor.measure import figures
from fl_backdoor.measure import measures as declared
from fl_backdoor.measure.answers import answers
from fl_backdoor.measure.measures import MEASURES, Measure, compared, measured
from fl_backdoor.measure.metrics import (
    Answers,
    Distances,
    Replies,
    Selection,
    defense_precision,
    defense_recall,
    detection,
)

from . import test_experiment as horizontal
from . import test_vertical_experiment as vertical

FLIPPING = LabelFlipping(source=1, target=0, poisoned_samples=0).goal
BACKDOOR = Backdoor(target=1, pattern=[[27, 27], [0, 0]]).goal


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    goal: Goal | None,
    memory: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Return what is measured of the model of a round."""
    row = measured("round", {"test": answers(model, images, labels, goal, memory or {}, 3)})
    return {key: row[key] for key in ("loss", "main_accuracy", "attack_success_rate")}


def distance_statistics(
    between: np.ndarray, to_global: np.ndarray, update_norms: np.ndarray, attacking: np.ndarray
) -> dict[str, Any]:
    """Return what is measured of the replies of a round."""
    parts = {
        "distances": Distances(between, attacking),
        "replies": Replies(update_norms, to_global, attacking),
    }
    row = measured("round", parts)
    return {key: row[key] for key in row if key.startswith(("distance_", "update_norm_"))}


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
    assert first.keys() == {"loss", "main_accuracy", "attack_success_rate"}
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
        ([[0, 1], [0, 5]], [0, 1, 2], (3 / 4, 3 / 6, 1 / 14)),
        ([[0, 1, 2]], [0, 1, 2], (1.0, 1.0, 0.0)),
        ([[3]], [0], (0.0, 0.0, 1 / 9)),
        ([[], []], [0, 1], (None, 0.0, 0.0)),
        ([[4], []], [], (0.0, None, 1 / 20)),
        ([[]], [], (None, None, 0.0)),
        ([], [0], (None, None, None)),
        ([[*range(10)]], [*range(10)], (1.0, 1.0, None)),
    ],
)
def test_detection_golden(
    dropped: list[list[int]], attackers: list[int], expected: tuple[float | None, ...]
) -> None:
    cohort = list(range(10))
    assert detection(Selection(d, [], attackers, cohort, []) for d in dropped) == expected


def test_measures_are_declared_once_and_whole() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    parts = {"test", "twin", "selection", "replies", "distances", "honest"}
    parts |= {"report", "said", "leak"}
    for measure in MEASURES:
        assert set(measure.needs) <= parts, measure.name
        assert measure.of is not None or measure.whole is not None, measure.name
        assert measure.per in (None, "round", "epoch")
        assert measure.better in ("", "up", "down")
        if measure.color:  # curves are in percent, and of what both a row and a legend have
            assert (measure.unit, bool(measure.title), bool(measure.of)) == ("%", True, True)
        if measure.short or measure.title:
            assert measure.whole is not None, measure.name


def certainty(test: Answers) -> float:
    return float(test.output.softmax(dim=1).max())


def test_a_new_measure_is_one_function_and_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is in rows, in the summary, in the line, the table and the curves, and in comparisons."""
    new = Measure(
        name="certainty", of=certainty, unit="%", better="up", title="largest certainty",
        line="certain", short="certainty", color="tab:green",
    )  # fmt: skip
    monkeypatch.setattr(declared, "MEASURES", [*MEASURES, new])
    legends: list[list[str]] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, _: legends.append(labels(figure)))
    for unit, run in (("round", horizontal.run), ("epoch", vertical.run)):
        path = tmp_path / unit
        short = horizontal.TINY_ATTACK if unit == "round" else []
        length = "num_rounds=1" if unit == "round" else "num_epochs=1"
        summary, screen = run(path, *short, length)
        (row,) = horizontal.rows(path)
        assert 0 < row["certainty"] == summary["certainty"] <= 1
        written = f"{100 * row['certainty']:.1f}%"
        assert re.search(rf"certain +{written}", screen)
        assert re.search(rf"largest certainty +│ +{written}", screen)
        console = Console(width=200, force_terminal=True, color_system=None)
        with console.capture() as captured:
            compare.show([path], console)
        assert "certainty %" in captured.get()
        assert f"{100 * row['certainty']:.2f}" in captured.get()
    assert any("largest certainty" in legend for legend in legends)
    assert new in compared()


def labels(figure: Any) -> list[str]:
    """Return what a figure's legends say."""
    legends = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def test_a_part_that_is_missing_makes_no_value() -> None:
    assert set(measured("epoch", {}).values()) == {None}
    assert "defense_precision" not in measured("round", {})
    rows = [{"dropped": None, "invalid": [], "attackers": [0], "cohort": [0], "failed": []}]
    assert defense_precision(rows, "") is defense_recall(rows, "") is None
