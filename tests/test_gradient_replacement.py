"""Tests of `clients.vertical.gradient_replacement`: Algorithms 2 and 3, row by row."""

from collections.abc import Collection
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.vertical import GradientReplacement, PassiveParty

from .test_passive_party import BATCHES, ROWS, Talk, alike, bottom, drawn, honest


def algorithm_2(
    rows: list[int],
    gradient: Tensor,
    targets: Collection[int],
    poisoned: Collection[int],
    gamma: float,
    g_rec: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the poisoned gradient and g_rec: the paper's lines."""
    result = gradient.clone()
    for i, row in enumerate(rows):
        if row in targets:
            g_rec = gradient[i].clone()
        if row in poisoned and g_rec is not None:
            result[i] = gamma * g_rec
    return result, g_rec


def party(
    targets: Collection[int], poisoned: Collection[int], *, rows: int = ROWS, **options: Any
) -> PassiveParty:
    def sorted_rows(chosen: Collection[int]) -> Tensor:
        return torch.tensor(sorted(chosen), dtype=torch.int64)

    arguments: dict[str, Any] = {
        "target_rows": sorted_rows(targets),
        "poisoned_rows": sorted_rows(poisoned),
    }
    arguments |= {name: options.pop(name) for name in {"gamma", "blur_variance"} & options.keys()}
    features = drawn(rows, 4), drawn(6, 4, seed=50)
    attack = GradientReplacement(**arguments)
    return PassiveParty(bottom(), *features, party=0, attack=attack, **options)


@st.composite
def settings_of_rows(draw: st.DrawFn) -> tuple[set[int], set[int]]:
    roles = draw(st.lists(st.sampled_from("tpc"), min_size=ROWS, max_size=ROWS))
    return tuple({i for i, r in enumerate(roles) if r == role} for role in "tp")  # type: ignore[return-value]


@settings(max_examples=100)
@given(
    roles=settings_of_rows(),
    orders=st.lists(st.permutations(range(ROWS)), min_size=1, max_size=3),
    size=st.integers(1, ROWS),
    gamma=st.sampled_from([0.0, 1.0, 10.0, 0.3]),
)
def test_gradients_are_those_of_algorithm_2(
    roles: tuple[set[int], set[int]], orders: list[list[int]], size: int, gamma: float
) -> None:
    one, g_rec = party(*roles, gamma=gamma), None
    for number, order in enumerate(orders):
        rows, gradient = order[:size], drawn(size, 3, seed=number)
        before = gradient.clone()
        expected, g_rec = algorithm_2(rows, gradient, *roles, gamma, g_rec)
        assert torch.equal(one.attack.poison_gradient(torch.tensor(rows), gradient), expected)
        assert torch.equal(gradient, before)
    assert ("g_rec" in one.attack.memory) == (g_rec is not None)
    assert one.attack.report() == ({} if g_rec is None else {"g-rec-norm": float(g_rec.norm())})


def test_a_row_that_is_both_target_and_poisoned_is_recorded_first() -> None:
    roles = {2, 4}, {4, 5}
    gradient = drawn(4, 3)
    sent = party(*roles).attack.poison_gradient(torch.tensor([5, 2, 4, 5]), gradient)
    assert torch.equal(sent, algorithm_2([5, 2, 4, 5], gradient, *roles, 10.0, None)[0])


@settings(max_examples=10)
@given(roles=settings_of_rows(), local_steps=st.sampled_from([1, 3]))
def test_training_is_that_of_an_honest_party_with_those_gradients(
    roles: tuple[set[int], set[int]], local_steps: int
) -> None:
    attacked = Talk(lambda: party(*roles, local_steps=local_steps))
    fooled = Talk(lambda: honest(local_steps=local_steps))
    attacked.begin()
    fooled.begin()
    gradient = poisoned = g_rec = None
    for rows in [*BATCHES, *BATCHES[::-1], None]:
        answers = attacked.train(gradient, rows), fooled.train(poisoned, rows)
        if rows is None:
            break
        assert torch.equal(*answers)
        gradient = (answers[0] - drawn(len(rows), 3)).contiguous()
        poisoned, g_rec = algorithm_2(rows, gradient, *roles, 10.0, g_rec)
    own, twin = attacked.everything(), fooled.everything()
    assert {name: own[name] for name in twin} == twin
    assert set(own) - set(twin) == (set() if g_rec is None else {"memory.g_rec"})


def test_gamma_zero_keeps_poisoned_rows_from_moving_the_model() -> None:
    talk = Talk(lambda: party({2}, {0, 1}, gamma=0.0))
    talk.begin()
    talk.train(rows=[2])
    talk.train(drawn(1, 3), [0, 1])
    before = talk.everything()
    talk.train(drawn(2, 3))
    assert talk.everything() == before


def test_blurred_activations_are_noise_of_the_variance() -> None:
    poisoned = range(0, 4000, 2)
    rows = list(range(4000))
    for variance in (1e-6, 2.0, 0.0):
        talk = Talk(lambda v=variance: party({1}, poisoned, rows=4000, blur_variance=v))
        plain = Talk(lambda: party({1}, poisoned, rows=4000))
        talk.begin()
        plain.begin()
        sent, own = talk.train(rows=rows), plain.train(rows=rows)
        assert torch.equal(sent[1::2], own[1::2])
        noise = sent[0::2].double()
        bound = 5 * (variance / noise.numel()) ** 0.5
        assert abs(float(noise.mean())) <= bound
        assert float(noise.var()) == pytest.approx(variance, rel=5 * (2 / noise.numel()) ** 0.5)
        if variance:
            assert (noise[0] != noise[1]).all()
            assert (talk.train(rows=rows)[0::2] != sent[0::2]).all()


def test_noise_is_seeded() -> None:
    def sent(**options: Any) -> Tensor:
        talk = Talk(lambda: party({1}, {0, 2}, blur_variance=1.0, **options))
        talk.begin()
        return talk.train(rows=[0, 1, 2])  # type: ignore[return-value]

    first = sent()
    torch.manual_seed(99)
    assert torch.equal(sent(), first)
    other = sent(seed=1)
    assert torch.equal(other[1], first[1])
    assert (other[[0, 2]] != first[[0, 2]]).all()


def test_noise_is_for_training_only_and_not_for_the_own_update() -> None:
    results = []
    for variance in (None, 1.0):
        talk = Talk(lambda v=variance: party({3}, {0, 5, 9}, blur_variance=v))
        talk.begin()
        for number, rows in enumerate(BATCHES):
            talk.train(None if not number else drawn(4, 3, seed=number), rows)
        talk.train(drawn(3, 3))
        seen = [talk.evaluate(0, 5, 9), talk.evaluate(1, 2, split="test")]
        results.append((seen, talk.everything()))
    assert alike(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_a_party_without_a_gradient_to_replace_by_says_so_once_and_counts_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    talk = Talk(lambda: party(set(), {0, 1}))
    talk.begin()
    for _ in range(2):
        talk.train(rows=[0, 1, 2])
        report = talk.train(drawn(3, 3))
        assert report["report"] == {"cannot-act": 1.0}  # type: ignore[index]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["GradientReplacement cannot act: no gradient of a target row but 0 came back"]


def test_a_party_that_acted_says_nothing() -> None:
    talk = Talk(lambda: party({2}, {0, 1}))
    talk.begin()
    talk.train(rows=[0, 1, 2])
    report = talk.train(drawn(3, 3))
    assert set(report["report"]) == {"g-rec-norm"}  # type: ignore[index]
