"""SignGuard against its paper's algorithm written out, with a MeanShift of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import SignGuard
from strategies.clusters import largest_shift
from strategies.rules.signguard import sign_statistics

quick = settings(max_examples=30)


def statistics_written_out(updates, chosen):
    rows = []
    for update in updates[:, chosen].tolist():
        signs = [(value > 0) - (value < 0) for value in update]
        rows.append([signs.count(sign) / len(signs) for sign in (1, 0, -1)])
    return np.array(rows)


def clusters_written_out(points):
    """Mean shift with a flat kernel: each seed climbs to where its neighbours' mean is itself."""
    n = len(points)
    apart = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    bandwidth = np.mean([max(sorted(row)[: n // 2]) for row in apart])
    tops, heights = [], []
    seeds = {tuple(np.round(point / bandwidth) * bandwidth) for point in points}
    for point in map(np.array, seeds if len(seeds) < n else points):
        for _ in range(300):
            near = points[np.linalg.norm(points - point, axis=1) <= bandwidth]
            moved, point = near.mean(axis=0) - point, near.mean(axis=0)
            if np.linalg.norm(moved) <= 1e-3 * bandwidth:
                break
        tops.append(point)
        heights.append(len(near))
    centers = []
    for i in sorted(range(len(tops)), key=lambda i: (heights[i], tuple(tops[i])), reverse=True):
        if all(np.linalg.norm(tops[i] - center) > bandwidth for center in centers):
            centers.append(tops[i])
    labels = []
    for point in points:
        to = [np.linalg.norm(point - center) for center in centers]
        labels.append(int(np.argmin(to)) if min(to) <= bandwidth else -1)
    return labels


def crowd(seed, n=12, d=400, attackers=3):
    """Draw updates of a common direction; attackers turn most of their signs."""
    rng = np.random.default_rng(seed)
    updates = 1 + rng.standard_normal((n, d))
    updates[:attackers] *= -1
    updates[rng.random((n, d)) < 0.05] = 0
    return updates


def played(play, strategy, updates, sent=None):
    sent = np.zeros(updates.shape[1]) if sent is None else sent
    new, told = play(strategy, {"w": sent}, [{"w": sent + row} for row in updates])
    return new["w"], told


@quick
@given(seed=st.integers(0, 999), n=st.integers(1, 12), k=st.integers(1, 60))
def test_sign_statistics_are_those_of_the_paper(seed, n, k):
    rng = np.random.default_rng(seed)
    updates = crowd(seed, n, 60)
    center = np.round(64 * rng.standard_normal(60)) / 64
    chosen = rng.choice(60, k, replace=False)
    expected = statistics_written_out(updates, chosen)
    found = sign_statistics(updates, np.zeros(60), chosen)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    wide = np.round(64 * updates) / 64  # exact sums: a shift and a scale turn no sign
    found = sign_statistics(4 * (wide + center), 4 * center, chosen)
    np.testing.assert_allclose(found, statistics_written_out(wide, chosen), atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_cluster_is_the_largest_of_mean_shift(seed):
    rng = np.random.default_rng(seed)
    n = 4 + seed
    points = 0.1 * rng.random((n, 3)) + (rng.random((n, 1)) < 0.3)
    labels = np.array(clusters_written_out(points))
    counts = np.bincount(labels[labels >= 0])
    found = largest_shift(points)
    assert found.sum() == counts.max()
    assert any((found == (labels == label)).all() for label in np.flatnonzero(counts))


def test_equal_points_are_one_cluster():
    assert largest_shift(np.ones((5, 3))).all()
    points = np.ones((9, 3))
    points[:2] = 0
    assert largest_shift(points).tolist() == [False] * 2 + [True] * 7


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_paper_says(seed, play):
    updates = crowd(seed)
    updates[3] *= 50
    updates[4] *= 0.01
    norms = [np.sqrt(sum(row**2)) for row in updates]
    middle = np.median(norms)
    first = {i for i in range(12) if 0.1 <= norms[i] / middle <= 3}
    labels = clusters_written_out(statistics_written_out(updates, np.arange(400)))
    second = {i for i in range(12) if labels[i] == max(set(labels) - {-1}, key=labels.count)}
    chosen = sorted(first & second)
    expected = sum(updates[i] * min(1, middle / norms[i]) for i in chosen) / len(chosen)
    found, told = played(play, SignGuard(fraction=1.0), updates)
    assert told["kept_nodes"] == [i + 1 for i in chosen]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert told["clipping_norm"] == pytest.approx(middle)
    assert set(told["kept_nodes"]).isdisjoint({1, 2, 3, 4, 5})


@pytest.mark.parametrize("scale", [1e-3, 8.0])
def test_length_of_all_changes_no_choice(scale, play):
    updates = crowd(1)
    found, told = played(play, SignGuard(seed=2), updates)
    scaled, also = played(play, SignGuard(seed=2), scale * updates)
    assert told["kept_nodes"] == also["kept_nodes"]
    np.testing.assert_allclose(scaled, scale * found, rtol=1e-9)


@pytest.mark.parametrize("far", [1.0, 1e6, 1e60])
def test_whatever_a_minority_sends_the_aggregate_is_no_longer_than_an_honest_update(far, play):
    updates = crowd(2, attackers=0)
    longest = np.linalg.norm(updates[5:], axis=1).max()
    updates[:5] *= far
    found, _ = played(play, SignGuard(seed=0), updates)
    assert np.linalg.norm(found) <= longest * (1 + 1e-9)


def test_it_cannot_act_where_there_is_no_cluster_or_nobody_passes_both_filters(play, warned):
    sent = np.ones(400)
    found, told = played(play, SignGuard(seed=0), crowd(3, 3), sent)
    np.testing.assert_array_equal(found, sent)
    assert told["cannot_act"] == 1
    # Half of them have no length, and the median is that of nobody.
    updates = crowd(4, 6, attackers=0)
    updates[:3] = 1e-6 * np.sign(updates[:3])
    found, told = played(play, SignGuard(0.9, 1.1, fraction=1.0), updates, sent)
    np.testing.assert_array_equal(found, sent)
    assert (told["cannot_act"], told["kept_nodes"]) == (1, [])
    assert warned("SignGuard") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lower": 0}, "lower = 0 must be"),
        ({"lower": 3.0}, "lower = 3.0 must be below upper = 3.0"),
        ({"upper": "much"}, "upper = 'much'"),
        ({"fraction": 1.5}, "fraction = 1.5"),
        ({"seed": 0.5}, "seed = 0.5"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        SignGuard(**settings)


@pytest.mark.parametrize("d", [3, 100, 1000, 1234])
def test_equal_signs_are_one_cluster(d, play):
    signs = np.where(np.random.default_rng(0).random(d) < 0.5, 1.0, -1.0)
    updates = [signs * (1 + i / 10) for i in range(6)]
    _, report = play(SignGuard(fraction=1), {"w": np.zeros(d)}, [{"w": u} for u in updates])
    assert report["dropped_nodes"] == []
