"""Multi-Metrics of Huang et al. 2023: against its paper's algorithm written out."""

import numpy as np
import pytest

from strategies import MultiMetrics


def scores_written_out(sent, models):
    """Follow the paper, metric by metric and model by model."""
    x = []
    for model in models:
        manhattan = sum(abs(model - sent))
        euclidean = np.sqrt(sum((model - sent) ** 2))
        cosine = sum(model * sent) / (np.sqrt(sum(model**2)) * np.sqrt(sum(sent**2)))
        x.append((manhattan, euclidean, cosine))
    n = len(x)
    apart = np.array(
        [[sum(abs(x[i][k] - x[j][k]) for j in range(n)) for k in range(3)] for i in range(n)]
    )
    sigma = np.cov(apart.T)
    return [float(np.sqrt(row @ np.linalg.inv(sigma) @ row)) for row in apart]


def crowd(seed, n=10, d=40, attackers=2):
    rng = np.random.default_rng(seed)
    sent = rng.standard_normal(d)
    models = sent + 0.3 * rng.standard_normal((n, d)) * rng.uniform(0.7, 1.3, (n, 1))
    models[:attackers] = sent + 2 * rng.standard_normal(d) + models[:attackers] - sent
    return sent, models


def records(models):
    return [{"w": model} for model in models]


@pytest.mark.parametrize("seed", range(10))
def test_it_is_what_the_paper_says(seed, play):
    sent, models = crowd(seed, n=6 + 2 * seed)
    expected = scores_written_out(sent, models)
    kept = sorted(range(len(models)), key=expected.__getitem__)[: int(0.3 * len(models))]
    model, report = play(MultiMetrics(0.3), {"w": sent}, records(models))
    np.testing.assert_allclose(report["score"], expected, rtol=1e-6)
    assert report["kept_nodes"] == sorted(row + 1 for row in kept)
    np.testing.assert_allclose(model["w"], models[kept].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_unit_of_the_parameters_changes_no_score(scale, play):
    sent, models = crowd(3)
    _, first = play(MultiMetrics(), {"w": sent}, records(models))
    _, second = play(MultiMetrics(), {"w": sent * scale}, records(models * scale))
    np.testing.assert_allclose(second["score"], first["score"], rtol=1e-6)


def test_odd_models_are_dropped(play):
    for seed in range(5):
        sent, models = crowd(seed, n=20, attackers=4)
        _, report = play(MultiMetrics(), {"w": sent}, records(models))
        assert {1, 2, 3, 4} <= set(report["dropped_nodes"])
        assert len(report["kept_nodes"]) == 6


def test_metrics_that_do_not_vary_do_not_count(play):
    """Updates of one length, and equal models: no covariance to invert."""
    sent, models = crowd(1)
    updates = models - sent
    same = sent + updates / np.linalg.norm(updates, axis=1, keepdims=True)
    _, report = play(MultiMetrics(), {"w": sent}, records(same))
    assert np.isfinite(report["score"]).all()
    model, report = play(MultiMetrics(), {"w": sent}, records([models[0]] * 10))
    assert report["score"] == [0.0] * 10
    np.testing.assert_allclose(model["w"], models[0], rtol=1e-12)
    _, report = play(MultiMetrics(), {"w": np.zeros(40)}, records(models))
    assert np.isfinite(report["score"]).all()


@pytest.mark.parametrize(("n", "fraction"), [(1, 1.0), (3, 1.0), (5, 0.1)])
def test_too_few_models_leave_the_model_and_it_says_so(n, fraction, play, warned):
    sent, models = crowd(1)
    model, report = play(MultiMetrics(fraction), {"w": sent}, records(models[:n]))
    np.testing.assert_array_equal(model["w"], sent)
    assert report["cannot_act"] == 1
    assert warned("MultiMetrics") == 1


@pytest.mark.parametrize("value", [0, 1.1, -0.3, float("nan"), True, "0.3"])
def test_bounds(value):
    with pytest.raises(ValueError, match="fraction = "):
        MultiMetrics(value)


def test_a_fraction_of_which_no_model_is_left_is_refused():
    with pytest.raises(ValueError, match=r"fraction = 0.1: MultiMetrics of 8 clients allows 0.125"):
        MultiMetrics(0.1).check(8)
    MultiMetrics(0.1).check(10)
