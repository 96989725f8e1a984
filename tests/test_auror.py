"""AUROR of Shen et al. 2016: against its two steps written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Auror
from strategies.rules.auror import cuts, minority


def clusters_written_out(values):
    """2-means of some numbers by trying every cut; returns the distance and who is the minority."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    tried = []
    for cut in range(1, len(values)):
        low, high = order[:cut], order[cut:]
        a, b = (sum(values[i] for i in part) / len(part) for part in (low, high))
        inertia = sum((values[i] - a) ** 2 for i in low) + sum((values[i] - b) ** 2 for i in high)
        tried.append((inertia, b - a, low, high))
    _, apart, low, high = min(tried, key=lambda t: t[0])
    smaller = [] if len(low) == len(high) else min(low, high, key=len)
    return apart, set(smaller)


def suspects_written_out(updates, features, tau):
    n, times = len(updates), [0] * len(updates)
    for j in features:
        _, smaller = clusters_written_out(updates[:, j])
        for i in smaller:
            times[i] += 1
    return times, [i for i in range(n) if times[i] > tau * len(features)]


def indicative_written_out(updates, alpha):
    return [j for j in range(updates.shape[1]) if clusters_written_out(updates[:, j])[0] >= alpha]


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 9))
def test_two_means_are_the_best_of_all(seed, n):
    values = np.random.default_rng(seed).standard_normal((n, 6))
    apart, cut, size = cuts(values)
    told = minority(values, cut, size)
    for j in range(6):
        distance, smaller = clusters_written_out(values[:, j])
        assert apart[j] == pytest.approx(distance)
        assert set(np.flatnonzero(told[:, j])) == smaller


def test_equal_values_are_in_one_cluster():
    np.testing.assert_array_equal(cuts(np.ones((5, 3)))[0], np.zeros(3))
    values = np.array([[2.0], [1], [2], [2], [1]])
    apart, cut, size = cuts(values)
    assert (apart.tolist(), size.tolist()) == ([1.0], [2])
    assert minority(values, cut, size)[:, 0].tolist() == [False, True, False, False, True]


def crowd(seed, n=10, d=50, attackers=3):
    rng = np.random.default_rng(seed)
    updates = 0.1 * rng.standard_normal((n, d))
    updates[:attackers, :12] += 1
    return rng.standard_normal(d), updates


def records(sent, updates):
    return [{"w": sent + update} for update in updates]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_paper_says(seed, play):
    """Over rounds: features are looked for in two, and then stay."""
    sent, updates = crowd(seed, n=5 + seed, attackers=seed // 2)
    rule, features = Auror(0.3, first_rounds=2), []
    for number in (1, 2, 3):
        updates = updates[:, np.roll(np.arange(50), 3)]
        if number < 3:
            features = indicative_written_out(updates, 0.3)
        times, suspects = suspects_written_out(updates, features, 0.5)
        honest = [i for i in range(len(updates)) if i not in suspects]
        model, report = play(rule, {"w": sent}, records(sent, updates), number)
        assert report["indicative"] == len(features)
        assert report["minorities"] == times
        assert report["kept_nodes"] == [i + 1 for i in honest]
        np.testing.assert_allclose(model["w"], sent + updates[honest].mean(axis=0), atol=1e-12)


def test_who_changes_some_features_otherwise_is_left_out(play):
    sent, updates = crowd(1)
    _, report = play(Auror(0.5), {"w": sent}, records(sent, updates))
    assert (report["dropped_nodes"], report["indicative"]) == ([1, 2, 3], 12)
    _, halves = play(Auror(0.5), {"w": sent}, records(sent, crowd(1, attackers=5)[1]))
    assert halves["dropped_nodes"] == []  # of two halves none is the minority


def test_the_threshold_is_in_the_unit_of_the_parameters(play):
    sent, updates = crowd(2)
    _, first = play(Auror(0.5), {"w": sent}, records(sent, updates))
    _, second = play(Auror(0.005), {"w": sent}, records(sent, updates / 100))
    assert second["minorities"] == first["minorities"]
    _, blind = play(Auror(0.5), {"w": sent}, records(sent, updates / 100))
    assert (blind["indicative"], blind["dropped_nodes"]) == (0, [])


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_models_leave_the_model_and_it_says_so(n, play, warned):
    sent, updates = crowd(1)
    model, report = play(Auror(0.5), {"w": sent}, records(sent, updates[:n]))
    np.testing.assert_array_equal(model["w"], sent)
    assert report["cannot_act"] == 1
    assert warned("Auror") == 1


def test_bounds():
    for name, value in [("threshold", 0), ("first_rounds", 0), ("part", 1.5), ("threshold", "x")]:
        with pytest.raises(ValueError, match=f"{name} = "):
            Auror(**{"threshold": 0.1, name: value})
