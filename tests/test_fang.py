"""Tests of `clients.Fang`: lambda by the paper's Krum, vector by vector; beyond what is known."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients import Fang
from clients.attacks.fang_lambda import FLOOR, greatest_lambda
from strategies.graph.distances import PairwiseDistances
from strategies.rules.krum import krum

from .test_alie import ROWS, view

Vector = NDArray[np.float64]


def rows(seed: int, n: int = 7, d: int = 12, mean: float = 0.3) -> Vector:
    return np.random.default_rng(seed).normal(mean, 1.0, (n, d))


def chosen(crafted: Vector, copies: int, models: Vector) -> bool:
    """Tell whether Krum's choice is a copy: Blanchard et al. 2017, one by one."""
    everybody = [crafted] * copies + list(models)
    n = len(everybody)
    scores = []
    for i in range(n):
        squares = sorted(math.dist(everybody[i], everybody[j]) ** 2 for j in range(n) if j != i)
        scores.append(sum(squares[: n - copies - 2]))
    return min(scores[:copies]) < min(scores[copies:])


def bound(models: Vector, copies: int, d: float) -> float:
    """Return lambda_max: the least sum of m - 2 squared distances, and the longest update."""
    m = len(models)
    sums = [
        sum(sorted(math.dist(a, b) ** 2 for j, b in enumerate(models) if j != i)[: m - 2])
        for i, a in enumerate(models)
    ]
    longest = max(math.hypot(*row) for row in models)
    return math.sqrt(min(sums) / ((m - copies - 1) * d)) + longest / math.sqrt(d)


@pytest.mark.parametrize("mean", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("copies", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_lambda_is_the_first_that_krum_chooses(mean: float, copies: int, seed: int) -> None:
    models = rows(seed, mean=mean)
    s = np.sign(models.mean(axis=0))
    found = greatest_lambda(models, s, copies)
    tried = bound(models, copies, 12.0)
    while tried >= FLOOR and not chosen(-tried * s, copies, models):
        tried /= 2
    assert found == (pytest.approx(tried) if tried >= FLOOR else 0.0)


@given(updates=ROWS, copies=st.integers(1, 5))
def test_beyond_the_bound_nothing_is_chosen_and_twice_lambda_is_not(
    updates: list[list[float]], copies: int
) -> None:
    models = np.array(updates)
    s = np.sign(models.mean(axis=0))
    if len(models) < copies + 2:
        assert greatest_lambda(models, np.ones(3), copies) == 0
        return
    if not s.any():
        return
    most = bound(models, copies, float(s @ s))
    assert not chosen(-1.01 * most * s, copies, models)
    found = greatest_lambda(models, s, copies)
    assert found <= most * (1 + 1e-9)
    if found > 1e-3:  # else rounding decides
        assert chosen(-0.999 * found * s, copies, models) or chosen(-found * s, copies, models)
        if found < 0.75 * most:
            assert not chosen(-2.001 * found * s, copies, models)


@pytest.mark.parametrize("seed", range(3))
def test_who_knows_all_is_chosen_by_the_servers_krum(seed: int) -> None:
    own, honest = rows(seed, 4, 30, 0.1), rows(seed + 10, 8, 30, 0.1)
    sent = Fang(knowledge="all").collude(view(own, honest, asked=12))
    assert (sent == sent[0]).all()
    s = np.sign(np.concatenate([own, honest]).mean(axis=0))
    assert (np.sign(sent[0]) == -s).all()
    (choice,) = krum(PairwiseDistances(np.concatenate([sent, honest])).squared, f=4)
    assert choice < 4


def test_who_knows_their_own_takes_as_few_copies_as_will_do() -> None:
    """Close together and far from the model received, one copy is not enough."""
    apart, close = rows(0, 5, 40, 0.1), rows(0, 5, 40, 1.2)
    for own, copies in ((apart, 1), (close, 2)):
        s = np.sign(own.mean(axis=0))
        assert greatest_lambda(own, s, copies - 1) == 0 if copies > 1 else True
        seen, expected = view(own), greatest_lambda(own, s, copies)
        np.testing.assert_array_equal(Fang().collude(seen), np.tile(-expected * s, (5, 1)))
        assert seen.notes == {"lambda": expected}


def test_where_no_lambda_is_chosen_it_says_so_and_sends_what_was_trained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for own in (rows(0, 5, 40, 9.0), np.zeros((5, 40))):
        seen = view(own, round=3)
        np.testing.assert_array_equal(Fang().collude(seen), own)
        assert seen.notes == {"lambda": 0, "cannot-act": 5}
    said = [record.getMessage() for record in caplog.records]
    text = "Fang cannot act in round 3: Krum chooses -lambda s for no lambda >= 1e-05"
    assert said == [text, text]


@given(updates=ROWS, n=st.integers(1, 3))
def test_trimmed_mean_is_passed_on_the_other_side_in_every_coordinate(
    updates: list[list[float]], n: int
) -> None:
    own, honest = rows(1, n, 3), np.array(updates)
    known = np.concatenate([own, honest])
    sent = Fang(rule="trimmed_mean", knowledge="all").collude(view(own, honest))
    for values, column in zip(sent.T, known.T, strict=True):
        low, high = column.min(), column.max()
        for value in values:
            if column.mean() > 0:
                assert (low / 2 <= value <= low) if low > 0 else (2 * low <= value <= low)
            else:
                assert (high <= value <= 2 * high) if high > 0 else (high <= value <= high / 2)


@given(updates=ROWS)
def test_who_knows_their_own_stays_3_to_4_deviations_off(updates: list[list[float]]) -> None:
    own = np.array(updates)
    sent = Fang(rule="trimmed_mean").collude(view(own))
    mean, off = own.mean(axis=0), own.std(axis=0)
    away = np.where(mean > 0, mean - sent, sent - mean)
    assert (away >= 3 * off - 1e-9).all()
    assert (away <= 4 * off + 1e-9).all()
    beyond = np.where(mean > 0, sent <= own.min(axis=0) + 1e-9, sent >= own.max(axis=0) - 1e-9)
    assert beyond.all()  # of 10 attackers or fewer, whose values are at most 3 deviations off


@pytest.mark.parametrize(
    ("own", "honest", "acts"),
    [
        (np.ones((3, 4)), None, False),
        (np.ones((3, 4)), np.ones((2, 4)), True),
        (np.zeros((3, 4)), np.zeros((2, 4)), False),
    ],
)
def test_trimmed_mean_needs_a_spread_or_an_edge_that_is_not_0(
    own: Vector, honest: Vector | None, acts: bool
) -> None:
    seen, knows = view(own, honest), "attackers" if honest is None else "all"
    sent = Fang(rule="trimmed_mean", knowledge=knows).collude(seen)
    assert np.array_equal(sent, own) != acts
    assert seen.notes == ({} if acts else {"cannot-act": 3})


def test_attackers_and_rounds_draw_their_own() -> None:
    own = rows(0, 4)
    first = Fang(rule="trimmed_mean").collude(view(own))
    assert all((a != b).all() for a, b in pairwise(first))
    np.testing.assert_array_equal(first, Fang(rule="trimmed_mean").collude(view(own)))
    assert (first != Fang(rule="trimmed_mean").collude(view(own, round=2))).all()


@pytest.mark.parametrize(
    ("options", "clients", "attackers", "message"),
    [
        ({}, 10, 2, "num_attackers=2: allowed is 3 or more"),
        ({"rule": "trimmed_mean"}, 10, 2, "num_attackers=2: allowed is 3 or more"),
        ({"knowledge": "all"}, 10, 5, "num_attackers=5: allowed are 0 to 4 of 10 clients"),
    ],
)
def test_it_says_when_it_cannot_act(
    options: dict[str, Any], clients: int, attackers: int, message: str
) -> None:
    attack = Fang(**options)
    with pytest.raises(ValueError, match=message):
        attack.check(clients, attackers)
    attack.check(clients, 3)


def test_other_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="rule=median: allowed are krum, trimmed_mean"):
        Fang(rule="median")
