"""RFA against the paper's algorithm written out, byzfl and scipy; and what it withstands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from strategies import GeometricMedian
from strategies.rules.geometric_median import weiszfeld

quick = settings(max_examples=40)


def written_out(models, alpha, z, nu, budget):
    """Follow the smoothed Weiszfeld algorithm of Pillutla et al. 2022, client by client."""
    z = z.astype(np.float64)
    for _ in range(budget):
        beta = [a / max(nu, np.linalg.norm(z - w)) for a, w in zip(alpha, models, strict=True)]
        z = sum(b * w for b, w in zip(beta, models, strict=True)) / sum(beta)
    return z


def median(models, z=None, nu=1e-6, budget=3, alpha=None):
    n, d = models.shape
    alpha = np.full(n, 1 / n) if alpha is None else alpha
    return weiszfeld(models, alpha, np.zeros(d) if z is None else z, nu, budget, range(n))[0]


@st.composite
def federations(draw):
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    models = rng.standard_normal((n, d))
    models[: draw(st.integers(0, (n - 1) // 2))] *= draw(st.sampled_from([1, 1e3, 1e30]))
    for _ in range(draw(st.integers(0, 3))):
        models[rng.integers(n)] = models[rng.integers(n)]
    return models


@quick
@given(models=federations(), budget=st.integers(1, 6), data=st.data())
def test_it_is_the_algorithm_of_the_paper(models, budget, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    alpha, z = rng.random(len(models)) + 0.1, rng.standard_normal(models.shape[1])
    found = median(models, z, 0.01, budget, alpha / alpha.sum())
    expected = written_out(models, alpha / alpha.sum(), z, 0.01, budget)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_that_of_byzfl(byzfl):
    models = np.random.default_rng(4).standard_normal((11, 60))
    models[:3] += 50
    for nu, budget in ((0.1, 3), (20.0, 5)):
        expected = byzfl("aggregators").GeometricMedian(nu=nu, T=budget)(models)
        np.testing.assert_allclose(median(models, None, nu, budget), expected, rtol=1e-10)


def test_many_steps_find_the_point_of_least_sum_of_distances():
    models = np.random.default_rng(1).standard_normal((9, 4))
    models[:2] += 30

    def total(z):
        return np.linalg.norm(models - z, axis=1).sum()

    found = median(models, budget=500)
    assert total(found) == pytest.approx(minimize(total, np.zeros(4), tol=1e-12).fun, rel=1e-7)
    assert total(median(models, budget=3)) < total(models.mean(axis=0))


@quick
@given(models=federations(), shift=st.floats(-8, 8), scale=st.sampled_from([1e-3, 0.5, 7.0]))
def test_a_common_shift_and_scale_are_the_results_too(models, shift, scale):
    models = np.clip(models, -1e3, 1e3)
    plain = median(models)
    moved = median(scale * models + shift, np.full(models.shape[1], shift), scale * 1e-6)
    np.testing.assert_allclose(moved, scale * plain + shift, rtol=1e-6, atol=1e-6)


@quick
@given(
    seed=st.integers(0, 99),
    budget=st.integers(1, 9),
    far=st.sampled_from([1e2, 1e9, 1e100]),
    f=st.integers(0, 4),
)
def test_a_minority_however_far_leaves_the_result_in_reach_of_the_others(seed, budget, far, f):
    rng = np.random.default_rng(seed)
    models = rng.standard_normal((9, 20))
    longest = np.linalg.norm(models[f:], axis=1).max()
    models[:f] = far * rng.standard_normal(20)
    # A step: f unit vectors and honest updates, over the weights of those that are honest.
    assert np.linalg.norm(median(models, budget=budget)) <= 2 * 9 / (9 - 2 * f) * longest


def test_a_start_at_the_mean_would_be_carried_away():
    """Why it begins with the global model."""
    models = np.random.default_rng(0).standard_normal((9, 20))
    models[:3] = 1e9
    assert np.linalg.norm(median(models, models.mean(axis=0))) > 1e7
    assert np.linalg.norm(median(models)) < 10


def played(play, models, **settings):
    sent = {"w": np.zeros(models.shape[1])}
    model, told = play(GeometricMedian(**settings), sent, [{"w": row} for row in models])
    return model["w"], told


def test_votes_are_weights_and_say_who_is_far(play):
    models = np.random.default_rng(2).standard_normal((7, 50))
    models[0] *= 100
    model, told = played(play, models)
    votes = np.array(told["votes"])
    np.testing.assert_allclose(model, votes @ models, rtol=1e-10)
    np.testing.assert_allclose(model, median(models), rtol=1e-10)
    assert votes[0] < 0.1 * np.median(votes)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_models_are_enough(n, play):
    models = np.random.default_rng(3).standard_normal((n, 5))
    model, told = played(play, models)
    assert "cannot_act" not in told
    assert np.linalg.norm(model) <= np.linalg.norm(models, axis=1).max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"nu": 0}, "nu = 0 must be"), ({"budget": 0}, "budget = 0"), ({"budget": 1.5}, "budget = 1")],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GeometricMedian(**settings)
