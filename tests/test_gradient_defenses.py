"""Tests of the active party's defenses: clipping, noise, sparsification, and their order."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from strategies.vertical import (
    GradientClipping,
    GradientNoise,
    GradientSparsification,
    VerticalDefense,
)

from .test_active_party import federation
from .test_passive_party import drawn

ROWS = 9


def defend(
    defense: VerticalDefense,
    gradient: Tensor,
    rows: list[int] | None = None,
    *,
    party: int = 0,
    seed: int = 0,
) -> Tensor:
    """Defend, and see that the arguments are as they were."""
    defense.begin(torch.zeros(max(ROWS, len(gradient))), [gradient.shape[1]] * 2)
    chosen = torch.tensor(list(range(len(gradient))) if rows is None else rows)
    before = gradient.clone(), chosen.clone()
    generator = torch.Generator().manual_seed(seed)
    sent = defense.send(gradient, chosen, party=party, generator=generator)
    assert torch.equal(gradient, before[0])
    assert torch.equal(chosen, before[1])
    assert sent.shape == gradient.shape
    assert sent.dtype == torch.float32
    assert sent.data_ptr() != gradient.data_ptr()
    return sent


@settings(max_examples=100)
@given(
    scales=st.lists(st.sampled_from([0.0, 1e-6, 0.01, 1.0, 30.0, 1e6]), min_size=1, max_size=6),
    width=st.integers(1, 5),
    max_norm=st.sampled_from([1e-3, 0.1, 1.0, 7.5, 1e4]),
    seed=st.integers(0, 999),
)
def test_clipping_is_that_of_a_slow_twin(
    scales: list[float], width: int, max_norm: float, seed: int
) -> None:
    gradient = drawn(len(scales), width, seed=seed) * torch.tensor(scales)[:, None]
    for row, sent in zip(gradient, defend(GradientClipping(max_norm), gradient), strict=True):
        length = math.sqrt(sum(float(x) ** 2 for x in row))
        if length <= max_norm * (1 - 1e-6):
            assert torch.equal(sent, row)
        else:
            expected = [float(x) * min(1, max_norm / length) for x in row]
            np.testing.assert_allclose(sent, expected, rtol=2e-4)
        assert math.sqrt(sum(float(x) ** 2 for x in sent)) <= max_norm * (1 + 1e-6)


@pytest.mark.parametrize("max_norm", [1e-8, 1e-6, 1e-4])
def test_clipping_to_small_norms_keeps_the_norm(max_norm: float) -> None:
    gradient = 3 * max_norm * torch.eye(3)
    sent = defend(GradientClipping(max_norm), gradient)
    torch.testing.assert_close(sent, gradient / 3, rtol=1e-2, atol=0)


KURTOSIS = {"gaussian": 3.0, "laplacian": 6.0}


@pytest.mark.parametrize("distribution", KURTOSIS)
@pytest.mark.parametrize("variance", [1e-4, 0.05, 4.0])
def test_noise_has_the_moments_of_its_distribution(distribution: str, variance: float) -> None:
    gradient = drawn(40_000, 5)
    sent = defend(GradientNoise(variance, distribution), gradient, seed=3)
    noise = (sent.double() - gradient.double()).flatten()
    count, kurtosis = len(noise), KURTOSIS[distribution]
    assert abs(float(noise.mean())) < 5 * math.sqrt(variance / count)
    assert float(noise.var()) == pytest.approx(variance, rel=5 * math.sqrt((kurtosis - 1) / count))
    assert float((noise / noise.std()).pow(4).mean()) == pytest.approx(kurtosis, abs=0.4)
    assert abs(float((noise / noise.std()).pow(3).mean())) < 0.2
    rows = noise.reshape(-1, 5)
    assert abs(float(torch.corrcoef(rows.T)[0, 1])) < 5 / math.sqrt(len(rows))


@pytest.mark.parametrize("distribution", KURTOSIS)
def test_noise_is_seeded_by_its_generator_alone(distribution: str) -> None:
    defense, gradient = GradientNoise(1.0, distribution), drawn(4, 3)
    first = defend(defense, gradient)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(defend(defense, gradient), first)
    assert (defend(defense, gradient, seed=1) != first).all()
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=100)
@given(
    orders=st.lists(st.permutations(range(ROWS)), min_size=1, max_size=4),
    size=st.integers(1, ROWS),
    width=st.integers(1, 4),
    drop_rate=st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.99]),
    seed=st.integers(0, 999),
)
def test_sparsification_is_that_of_a_slow_twin(
    orders: list[list[int]], size: int, width: int, drop_rate: float, seed: int
) -> None:
    defense = GradientSparsification(drop_rate)
    residual: dict[tuple[int, int], np.ndarray] = {}
    for number, order in enumerate(orders):
        for party in (0, 1):
            rows = order[:size]
            gradient = drawn(size, width, seed=seed + 10 * number + party)
            sent = defend(defense, gradient, rows, party=party)
            whole = {
                (i, j): np.float32(gradient[i, j])
                + residual.get((party, row), np.zeros(width, "f"))[j]
                for i, row in enumerate(rows)
                for j in range(width)
            }
            largest = sorted(whole, key=lambda place: -abs(whole[place]))
            kept = set(largest[: size * width - round(drop_rate * size * width)])
            for i, row in enumerate(rows):
                for j in range(width):
                    assert float(sent[i, j]) == (whole[i, j] if (i, j) in kept else 0)
                residual[party, row] = np.array(
                    [0 if (i, j) in kept else whole[i, j] for j in range(width)], dtype=np.float32
                )
            assert int((sent != 0).sum()) == len(kept)
    for party in (0, 1):
        for row in range(ROWS):
            expected = residual.get((party, row), np.zeros(width))
            np.testing.assert_array_equal(defense.memory[f"residual{party}"][row], expected)


@settings(max_examples=50)
@given(
    orders=st.lists(st.permutations(range(ROWS)), min_size=2, max_size=5),
    drop_rate=st.floats(0, 0.999),
    seed=st.integers(0, 999),
)
def test_sparsification_loses_nothing(orders: list[list[int]], drop_rate: float, seed: int) -> None:
    defense = GradientSparsification(drop_rate)
    defense.memory["residual0"] = torch.zeros(ROWS, 3)
    for number, order in enumerate(orders):
        rows, gradient = order[:5], drawn(5, 3, seed=seed + number)
        old = defense.memory["residual0"].clone()
        sent = defend(defense, gradient, rows)
        new = defense.memory["residual0"]
        assert torch.equal(sent + new[rows], gradient + old[rows])
        assert torch.equal(new[order[5:]], old[order[5:]])


def test_a_drop_rate_of_zero_is_the_identity() -> None:
    defense, gradient = GradientSparsification(0), drawn(6, 4)
    for _ in range(3):
        assert torch.equal(defend(defense, gradient), gradient)


def test_sparsification_takes_all_of_a_gradient_of_zeros() -> None:
    assert not defend(GradientSparsification(0.5), torch.zeros(4, 3)).any()


class Change(VerticalDefense):
    """Applies a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        self.num_rows, self.outputs = len(labels), outputs

    def send(self, gradient: Tensor, rows: Tensor, *, party: int, generator: Generator) -> Tensor:
        assert gradient.shape == (len(rows), self.outputs[party])
        assert int(rows.max()) < self.num_rows
        return self.function(gradient) + party


def test_defenses_are_applied_in_their_order() -> None:
    def sent(*defenses: VerticalDefense) -> list[list[Tensor]]:
        grid, active = federation(defenses=defenses, learning_rate=0.0)
        seen: list[list[Tensor]] = []
        active.train_epoch(grid, 1, lambda _, gradients: seen.append(gradients))
        return seen

    def more(gradient: Tensor) -> Tensor:
        return gradient + 1

    def twice(gradient: Tensor) -> Tensor:
        return 2 * gradient

    plain, one, other = sent(), sent(Change(more), Change(twice)), sent(Change(twice), Change(more))
    for gradients, ones, others in zip(plain, one, other, strict=True):
        for party, gradient in enumerate(gradients):
            assert torch.equal(ones[party], 2 * (gradient + 1 + party) + party)
            assert torch.equal(others[party], 2 * gradient + party + 1 + party)


def test_clipping_before_noise_and_after_it() -> None:
    for defenses, short in (
        ([GradientClipping(0.1), GradientNoise(1.0)], False),
        ([GradientNoise(1.0), GradientClipping(0.1)], True),
    ):
        grid, active = federation(defenses=defenses)
        norms: list[float] = []
        active.train_epoch(
            grid, 1, lambda _, sent, n=norms: n.extend(float(g.norm()) for h in sent for g in h)
        )
        assert (max(norms) <= 0.1 * (1 + 1e-6)) == short


def test_draws_differ_by_step_party_and_seed() -> None:
    def noises(seed: int) -> list[Tensor]:
        def forget(gradient: Tensor) -> Tensor:
            return torch.zeros_like(gradient)

        defenses = [Change(forget), GradientNoise(1.0)]
        grid, active = federation(12, defenses=defenses, seed=seed)
        seen: list[Tensor] = []
        for epoch in (1, 2):
            active.train_epoch(grid, epoch, lambda _, sent: seen.extend(sent))
        return [noise - number % 2 for number, noise in enumerate(seen)]

    first = noises(0)
    assert all(torch.equal(a, b) for a, b in zip(first, noises(0), strict=True))
    every = first + noises(1)
    for i, noise in enumerate(every):
        assert not any(torch.allclose(noise, other, atol=1e-3) for other in every[:i])


NOT_POSITIVE = [0, -1.0, math.nan, math.inf, True, "1", None]


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        *((GradientClipping, "max_norm", value) for value in NOT_POSITIVE),
        *((GradientNoise, "variance", value) for value in NOT_POSITIVE),
        *((GradientSparsification, "drop_rate", v) for v in (1, -0.1, math.nan, True, "0.5", None)),
        (lambda distribution: GradientNoise(1.0, distribution), "distribution", "uniform"),
        (lambda distribution: GradientNoise(1.0, distribution), "distribution", None),
    ],
)
def test_bad_arguments_are_named(build: Callable[..., Any], name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} = ") as caught:
        build(**{name: value})
    assert str(value) in str(caught.value)
    assert "\n" not in str(caught.value)
