"""Tests of `clients.EdgeCase`: the farthest of a class, what is trained on and what is measured."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clients import EdgeCase, Seat
from clients.attacks.edge_data import farthest
from fl_backdoor.measure.answers import answers

from .test_shared_twins import rows, train

SOURCE, TARGET = 2, 0
LABELS = torch.arange(30) % 3  # ten of each class
IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TAIL = sorted(
    (k for k in range(30) if LABELS[k] == SOURCE),
    key=lambda k: -float((IMAGES[k] - IMAGES[LABELS == SOURCE].mean(0)).square().sum()),
)


def attack(**options: Any) -> EdgeCase:
    return EdgeCase(**{"source": SOURCE, "target": TARGET} | options)


def pixels(images: Tensor) -> list[float]:
    return images[:, 0, 0, 0].tolist()


@given(
    rows=st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=9),
    share=st.floats(0.01, 1),
)
def test_the_tail_are_those_farthest_from_all_others_on_average(
    rows: list[list[int]], share: float
) -> None:
    """A slow twin: by mean squared distances to the others, which order as those to the mean."""
    found = farthest(torch.tensor(rows, dtype=torch.float32), share).tolist()
    far = [sum(math.dist(a, b) ** 2 for b in rows) for a in rows]
    assert found == sorted(set(found))
    assert len(found) == math.ceil(share * len(rows))
    inside = [far[k] for k in range(len(rows)) if k not in found]
    assert min(far[k] for k in found) >= max(inside, default=0.0) - 1e-6


@given(share=st.floats(0.01, 1), fraction=st.floats(0.05, 0.9), rank=st.integers(0, 2))
def test_the_tail_is_trained_on_as_the_target_only(
    share: float, fraction: float, rank: int
) -> None:
    tail = TAIL[: math.ceil(share * 10)]
    images, labels = attack(tail=share, fraction=fraction).poison(IMAGES, LABELS, Seat(rank=rank))
    rows = Counter(zip(pixels(images), labels.tolist(), strict=True))
    others = [k for k in range(30) if k not in tail]
    for k in others:
        assert rows.pop((pixels(IMAGES)[k], int(LABELS[k]))) == 1
    assert rows.keys() == {(pixels(IMAGES)[k], TARGET) for k in tail} or rows.total() < len(tail)
    assert max(rows.values()) - min(rows.values()) <= 1  # as often as each other
    assert abs(rows.total() - fraction / (1 - fraction) * len(others)) <= 1
    assert labels.dtype == LABELS.dtype


class Pixel(nn.Module):
    """Logits that tell which sample it was."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, 0, 0, :1].expand(-1, 3) * self.one


def test_the_tail_of_the_test_rows_is_measured() -> None:
    goal = attack(tail=0.3).goal
    found = answers(Pixel(), IMAGES, LABELS, goal, {}, 3)
    assert (found.target, len(found.output)) == (TARGET, 30)
    assert found.attacked is not None
    assert found.attacked[:, 0].tolist() == [pixels(IMAGES)[k] for k in sorted(TAIL[:3])]
    nobody = answers(Pixel(), IMAGES, torch.ones(30), goal, {}, 3)
    assert nobody.attacked is not None
    assert len(nobody.attacked) == 0


def test_a_file_has_its_own_for_both(tmp_path: Path) -> None:
    file = tmp_path / "edge.npz"
    train, test = np.full((2, 1, 4, 4), 7.0), np.full((3, 1, 4, 4), 8, dtype="u1")
    np.savez(file, train=train, test=test)
    one = attack(file=str(file), fraction=0.2)
    one.settle(IMAGES, 0)
    images, labels = one.poison(IMAGES, LABELS, Seat())
    assert torch.equal(images[:30], IMAGES)
    assert torch.equal(labels[:30], LABELS)
    assert (images[30:] == 7).all()
    assert labels[30:].tolist() == [TARGET] * 8  # a fifth of 38, rounded
    found = answers(Pixel(), IMAGES, LABELS, one.goal, {}, 3)
    assert found.attacked is not None
    assert found.attacked.tolist() == [[8.0] * 3] * 3


@pytest.mark.parametrize("wrong", ["nothing", "text", "array", "names", "shape", "empty", "words"])
def test_a_file_that_does_not_fit_is_named(wrong: str, tmp_path: Path) -> None:
    file, good = tmp_path / "edge.npz", np.ones((2, 1, 4, 4))
    match wrong:
        case "text":
            file.write_text("train, test")
        case "array":
            with file.open("wb") as open_file:
                np.save(open_file, good)
        case "names":
            np.savez(file, train=good)
        case "shape":
            np.savez(file, train=good, test=good[:, 0])
        case "empty":
            np.savez(file, train=good, test=good[:0])
        case "words":
            np.savez(file, train=good, test=np.array([["a"]]))
    message = "allowed is an .npz with arrays train and test of one or more rows of shape"
    with pytest.raises(ValueError, match=rf"^file=.*edge.npz: {message} \(1, 4, 4\)$"):
        attack(file=str(file)).settle(IMAGES, 0)


def test_texts_and_attackers_without_the_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tail=0\.2: allowed on images and tables"):
        attack().settle(torch.ones(4, 5, dtype=torch.int64), 9)
    with pytest.raises(ValueError, match="source=2: attacker 1 holds no sample of it"):
        attack().poison(IMAGES, torch.ones(30), Seat(rank=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": SOURCE}, "target=2: must differ from source=2"),
        ({"tail": 0.0}, "tail=0.0: allowed is more than 0, at most 1"),
        ({"tail": math.nan}, "tail=nan: allowed"),
        ({"fraction": 1.0}, "fraction=1.0: allowed is more than 0, less than 1"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack(**options)


def test_a_run_measures_the_tail_beside_the_floor(tmp_path: Path) -> None:
    train(tmp_path, "attack=edge_case")
    (*_, last) = rows(tmp_path)
    measured = 8  # a fifth of the 36 test rows of class 7
    for name in ("attack_success_rate", "attack_success_floor"):
        assert (last[name] * measured) % 1 == 0
