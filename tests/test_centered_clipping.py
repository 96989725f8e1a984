"""Centered clipping against the paper's loop written out and byzfl; and what it withstands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import CenteredClipping
from strategies.rules.centered_clipping import centered_clipping

quick = settings(max_examples=40)
counts = st.integers(1, 4)


def written_out(models, v, tau, iterations):
    """Karimireddy et al. 2021: client by client."""
    for _ in range(iterations):
        parts = [(x - v) * min(1, tau / max(np.linalg.norm(x - v), 1e-300)) for x in models]
        v = v + sum(parts) / len(models)
    return v


def clipped(models, v, tau, iterations=1):
    n = len(models)
    return centered_clipping(models, np.full(n, 1 / n), v.copy(), tau, iterations, range(n))[0]


def crowd(seed, n=10, d=30):
    rng = np.random.default_rng(seed)
    models = rng.standard_normal((n, d))
    models[: seed % 4] *= 1e6
    models[-1] = models[-2]
    return models, rng.standard_normal(d)


@quick
@given(seed=st.integers(0, 999), n=st.integers(2, 12), tau=st.floats(1e-3, 1e3), times=counts)
def test_it_is_what_the_paper_says(seed, n, tau, times):
    models, v = crowd(seed, n)
    expected, error = written_out(models, v, tau, times), 1e-12 * np.abs(models).max()
    np.testing.assert_allclose(clipped(models, v, tau, times), expected, rtol=1e-9, atol=error)


def test_that_of_byzfl_from_round_to_round(byzfl, play):
    twin = byzfl("aggregators").CenteredClipping(L=2, tau=3.0)
    strategy, sent = CenteredClipping(3.0, 2), np.zeros(30)
    for number in (1, 2, 3):
        models, _ = crowd(number)
        expected = twin(models)
        rows = [{"w": sent + update} for update in models]
        new, _ = play(strategy, {"w": sent}, rows, number)
        np.testing.assert_allclose(new["w"] - sent, expected, rtol=1e-6, atol=1e-8)
        sent = new["w"]


@quick
@given(seed=st.integers(0, 999), tau=st.floats(1e-2, 10), shift=st.floats(-9, 9))
def test_a_common_shift_and_scale_are_the_results_too(seed, tau, shift):
    models, v = crowd(seed)
    plain, scale = clipped(models, v, tau), np.abs(models).max()
    moved = clipped(3 * models + shift, 3 * v + shift, 3 * tau)
    np.testing.assert_allclose(moved, 3 * plain + shift, rtol=1e-9, atol=1e-11 * scale)


@quick
@given(seed=st.integers(0, 999), f=st.integers(0, 4), far=st.sampled_from([1, 1e3, 1e90]))
def test_a_minority_moves_it_by_two_radii_of_its_part_at_most(seed, f, far):
    """Whatever it sends instead of something else; a step is one radius at most."""
    rng = np.random.default_rng(seed)
    models, v, tau = rng.standard_normal((10, 20)), rng.standard_normal(20), 2.0
    other = models.copy()
    other[:f] = far * rng.standard_normal((f, 20))
    first, second = clipped(models, v, tau), clipped(other, v, tau)
    assert np.linalg.norm(second - v) <= tau * (1 + 1e-9)
    assert np.linalg.norm(first - second) <= 2 * tau * f / 10 * (1 + 1e-9)


def test_a_large_radius_is_the_mean_and_names_nobody(play):
    models, _ = crowd(4)
    new, told = play(CenteredClipping(1e9), {"w": np.zeros(30)}, [{"w": row} for row in models])
    np.testing.assert_allclose(new["w"], models.mean(axis=0), rtol=1e-9)
    assert told["clipped_nodes"] == []
    _, told = play(CenteredClipping(5.5), {"w": np.zeros(30)}, [{"w": row} for row in models])
    far = np.linalg.norm(models, axis=1) > 5.5
    assert told["clipped_nodes"] == (1 + np.flatnonzero(far)).tolist()
    assert 0 < len(told["clipped_nodes"]) < 10


def test_what_another_model_left_behind_does_not_count(play):
    strategy, models = CenteredClipping(1.0), crowd(5)[0]
    play(strategy, {"w": np.zeros(5)}, [{"w": row[:5]} for row in models])
    assert strategy.memory["aggregate"].shape == (5,)
    new, _ = play(strategy, {"w": np.zeros(30)}, [{"w": row} for row in models])
    np.testing.assert_allclose(new["w"], written_out(models, np.zeros(30), 1.0, 1), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_models_are_enough(n, play):
    models, _ = crowd(4)
    new, told = play(CenteredClipping(), {"w": np.zeros(30)}, [{"w": row} for row in models[:n]])
    np.testing.assert_allclose(new["w"], written_out(models[:n], np.zeros(30), 10, 1), rtol=1e-9)
    assert "cannot_act" not in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"tau": 0}, "tau = 0 must be"), ({"tau": np.nan}, "tau = nan"), ({"iterations": 0}, "iter")],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        CenteredClipping(**settings)
