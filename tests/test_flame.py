"""FLAME of Nguyen et al. 2022: against its paper's algorithm written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import FLAME
from strategies.rules.flame import admitted


def cosine_distance(a, b):
    """As the paper's package computes it."""
    return 1 - sum(a * b) / (np.sqrt(sum(a * a)) * np.sqrt(sum(b * b)))


def cluster_written_out(updates):
    """Grow the distance until single linkage has joined more than half: HDBSCAN's densest majority.

    With ``min_samples`` 1 of the paper's package, which does not count the point, the distance at
    which two points are reachable is their distance.
    """
    n = len(updates)
    pairs = sorted(
        (cosine_distance(updates[i], updates[j]), i, j) for i in range(n) for j in range(i)
    )
    groups = {i: {i} for i in range(n)}
    for _, i, j in pairs:
        joined = groups[i] | groups[j]
        for member in joined:
            groups[member] = joined
        if len(joined) > n // 2:
            return sorted(joined)
    raise AssertionError


def flame_written_out(sent, models):
    """Follow the paper up to its last step, in its order."""
    kept = cluster_written_out([model - sent for model in models])
    e = [np.sqrt(sum((model - sent) ** 2)) for model in models]
    s_t = np.median(e)
    clipped = [sent + (models[i] - sent) * min(1, s_t / e[i]) for i in kept]
    return kept, s_t, sum(clipped) / len(clipped)


def crowd(seed, n=11, d=30, attackers=4):
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal(d) + 0.7 * rng.standard_normal((n, d))
    updates[:attackers] += 4 * rng.standard_normal(d)
    return rng.standard_normal(d), updates * rng.uniform(0.5, 2, (n, 1))


@pytest.mark.parametrize("seed", range(12))
def test_it_is_what_the_paper_says(seed, play):
    sent, updates = crowd(seed, n=3 + seed, attackers=seed // 3)
    kept, s_t, expected = flame_written_out(sent, sent + updates)
    model, report = play(
        FLAME(1e-9, seed=1), {"w": sent}, [{"w": sent + update} for update in updates]
    )
    assert report["kept_nodes"] == [row + 1 for row in kept]
    assert report["clipping_norm"] == pytest.approx(s_t)
    np.testing.assert_allclose(model["w"], expected, atol=1e-7 * s_t)


def test_the_noise_is_lambda_times_the_median_norm(play):
    sent, updates = crowd(1, d=4_000)
    models = [{"w": sent + update} for update in updates]
    _, s_t, expected = flame_written_out(sent, sent + updates)
    noisy = [play(FLAME(0.01, seed=seed), {"w": sent}, models)[0]["w"] for seed in (5, 5, 6)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).all()
    noise = noisy[0] - expected
    assert noise.std() == pytest.approx(0.01 * s_t, rel=0.06)
    assert abs(noise.mean()) < 0.01 * s_t * 5 / 63
    _, report = play(FLAME(0.01, seed=5), {"w": sent}, models)
    assert report["noise_stddev"] == pytest.approx(0.01 * s_t)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), data=st.data())
def test_neither_lengths_nor_order_decide_who_is_admitted(seed, data):
    _, updates = crowd(seed)
    order = np.array(data.draw(st.permutations(range(len(updates)))))
    factors = np.exp(np.random.default_rng(seed).uniform(-5, 5, (len(updates), 1)))

    def cosines(rows):
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return units @ units.T

    first = admitted(cosines(updates))
    np.testing.assert_array_equal(admitted(cosines(updates * factors)), first)
    np.testing.assert_array_equal(admitted(cosines(updates[order])), first[order])
    assert 2 * first.sum() > len(updates)


def test_scaled_attackers_are_dropped_and_cannot_raise_the_bound(play):
    sent, updates = crowd(3)
    updates[:4] *= 1e6
    _, report = play(FLAME(seed=0), {"w": sent}, [{"w": sent + update} for update in updates])
    assert report["dropped_nodes"] == [1, 2, 3, 4]
    assert report["clipping_norm"] <= max(np.linalg.norm(updates[4:], axis=1)) * (1 + 1e-9)


def test_two_models_are_a_cluster_however_far_apart(play):
    """HDBSCAN's with a size of n/2 + 1: then clipped to the median norm, and noised."""
    sent, updates = np.zeros(500), np.random.default_rng(0).standard_normal((2, 500))
    updates[1] = -9 * updates[0] + updates[1]
    model, report = play(FLAME(seed=0), {"w": sent}, [{"w": u} for u in updates])
    norms = np.linalg.norm(updates, axis=1)
    bound = norms.mean()
    clipped = (updates[0] + updates[1] * bound / norms[1]) / 2
    assert report["kept_nodes"] == [1, 2]
    assert report["clipping_norm"] == pytest.approx(bound)
    assert np.std(model["w"] - clipped) == pytest.approx(1e-3 * bound, rel=0.2)


def test_one_model_is_no_cluster_and_it_says_so(play, warned):
    sent, updates = crowd(1)
    model, report = play(FLAME(seed=0), {"w": sent}, [{"w": sent + updates[0]}])
    np.testing.assert_array_equal(model["w"], sent)
    assert report["cannot_act"] == 1
    assert warned("FLAME") == 1


@pytest.mark.parametrize("value", [0, -1, float("inf"), True, "0.1"])
def test_bounds(value):
    with pytest.raises(ValueError, match="noise_factor = "):
        FLAME(value)
    with pytest.raises(ValueError, match="seed = "):
        FLAME(seed=-1)
