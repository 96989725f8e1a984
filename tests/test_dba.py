"""Tests of `clients.DBA`: parts of the trigger that are none's twice, and together the whole."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clients import DBA, Backdoor, Seat
from clients.triggers import Features, Pixels

from .test_contract_attacks import CLASSES, build_attack, settings

IMAGES = torch.rand(40, 2, 6, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4
BARS = [[row, column] for row in (0, 3) for column in (0, 1, 2, 3, 6, 7, 8, 9)]


def poisoned(attack: Backdoor, inputs: Tensor, rank: int, attackers: int) -> tuple[Tensor, Tensor]:
    return attack.poison(inputs, LABELS, Seat(rank=rank, attackers=attackers, seed=3))


@given(
    pixels=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1),
    attackers=st.integers(1, 6),
)
def test_each_stamps_its_run_of_the_pixels_in_reading_order(
    pixels: set[tuple[int, int]], attackers: int
) -> None:
    """A slow twin: pixel by pixel; the part of rank k ends where that of rank k + 1 begins."""
    attack = DBA(target=0, fraction=1.0, trigger=Pixels([list(pixel) for pixel in pixels]))
    if attackers > len(pixels):
        with pytest.raises(ValueError, match=f"num_attackers={attackers}: allowed are at most"):
            poisoned(attack, IMAGES, 0, attackers)
        return
    parts = np.array_split(np.array(sorted(pixels)), attackers)
    for rank, part in enumerate(parts):
        inputs, labels = poisoned(attack, IMAGES, rank, attackers)
        expected = IMAGES.clone()
        for row, column in part:
            expected[LABELS != 0, :, row, column] = 1.0
        assert torch.equal(inputs, expected)
        assert (labels == 0).all()


@given(
    trigger=st.sampled_from(["patch", "blended", Features([2, 0, 4], [0.0, 1.0, -2.0])]),
    attackers=st.integers(1, 3),
)
def test_all_parts_after_each_other_are_the_whole_that_is_tested(
    trigger: Any, attackers: int
) -> None:
    images = IMAGES.repeat(1, 1, 4, 4)  # with a patch of more than one pixel
    inputs = IMAGES.reshape(40, -1) if isinstance(trigger, Features) else images
    attack = DBA(target=0, fraction=1.0, trigger=trigger)
    everybody = inputs
    for rank in range(attackers):
        goal = attack.planted(inputs, Seat(rank=rank, attackers=attackers))
        part = goal.trigger(inputs, {})
        assert part is not None
        changed = part != inputs
        assert changed.any()
        assert not (changed & (everybody != inputs)).any()  # nobody's twice
        everybody = torch.where(changed, part, everybody)
    whole = attack.goal.trigger(inputs, {})
    assert whole is not None
    assert torch.equal(everybody, whole)


def test_one_attacker_is_the_backdoor() -> None:
    both = [kind(target=1, trigger="patch") for kind in (DBA, Backdoor)]
    first, second = (poisoned(attack, IMAGES, 0, 1) for attack in both)
    assert all(map(torch.equal, first, second))


def test_the_papers_four_bars_are_one_for_each_of_four() -> None:
    attack = build_attack(settings("dba", f"attack.pattern={BARS}"), CLASSES)
    assert isinstance(attack, DBA)
    black = torch.zeros(1, 1, 28, 28)
    for rank in range(4):
        bar = attack.planted(black, Seat(rank=rank, attackers=4)).trigger(black, {})
        assert bar is not None
        assert bar[0, 0].nonzero().tolist() == BARS[4 * rank :][:4]


def test_texts_have_no_parts() -> None:
    attack = DBA(target=0)
    tokens = torch.randint(1, 9, (40, 5), generator=torch.Generator().manual_seed(0))
    attack.settle(tokens, 9)
    with pytest.raises(ValueError, match=r"trigger=.*: allowed are those of images and tables"):
        poisoned(attack, tokens, 0, 1)
