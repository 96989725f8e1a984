"""Tests of `strategies.vertical.top_models`."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.vertical import DenseTop, SumTop


def activations(widths: list[int], rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=generator) for width in widths]


@settings(max_examples=30)
@given(
    parties=st.integers(1, 4),
    classes=st.integers(1, 5),
    more=st.integers(0, 3),
    rows=st.integers(1, 4),
)
def test_sum_top_adds(parties: int, classes: int, more: int, rows: int) -> None:
    widths = [classes + more] * parties
    top, blocks = SumTop(widths, classes, seed=3), activations(widths, rows)
    before = [block.clone() for block in blocks]
    logits = top(blocks)
    assert logits.shape == (rows, classes + more)
    for i in range(rows):
        for c in range(classes + more):
            expected = sum(float(block[i, c]) for block in blocks)
            assert float(logits[i, c]) == pytest.approx(expected, abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(blocks, before, strict=True))
    assert list(top.parameters()) == []


@pytest.mark.parametrize("widths", [[3, 5], [2, 2], [5, 4, 5], [2]])
def test_sum_top_refuses_what_is_not_a_score_of_each_class(widths: list[int]) -> None:
    sent = ", ".join(map(str, widths))
    with pytest.raises(
        ValueError, match=rf"^the parties send {sent} values .* 3 classes"
    ) as caught:
        SumTop(widths, 3)
    assert "\n" not in str(caught.value)


@settings(max_examples=30)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    classes=st.integers(1, 5),
    hidden=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_dense_top_is_two_layers(widths: list[int], classes: int, hidden: int, seed: int) -> None:
    top = DenseTop(widths, classes, hidden=hidden, seed=seed)
    first, bias, last, shift = (p.detach() for p in top.parameters())
    assert first.shape == (hidden, sum(widths))
    assert last.shape == (classes, hidden)
    for weight in (first, last):
        assert float(weight.abs().max()) <= math.sqrt(6 / sum(weight.shape)) * (1 + 1e-6)
    assert not bias.any()
    assert not shift.any()
    blocks = activations(widths, 4)
    expected = (torch.cat(blocks, dim=1) @ first.T).clamp(min=0) @ last.T
    torch.testing.assert_close(top(blocks).detach(), expected)


def test_dense_top_has_32_nodes_and_only_the_seed_decides() -> None:
    tops = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(tops))
        tops.append(DenseTop([4, 3], 5, seed=seed).state_dict())
    assert tops[0]["layers.0.weight"].shape == (32, 7)
    assert all(torch.equal(tops[0][name], tops[1][name]) for name in tops[0])
    assert not torch.equal(tops[0]["layers.0.weight"], tops[2]["layers.0.weight"])


@pytest.mark.parametrize("hidden", [0, -3, True, 2.0])
def test_dense_top_refuses_no_nodes(hidden: float) -> None:
    with pytest.raises(ValueError, match=rf"hidden = {hidden} must be an integer of 1 or more"):
        DenseTop([2], 2, hidden=hidden)
