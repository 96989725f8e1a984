"""AlignIns of Xu et al. 2025: against its paper's algorithm written out."""

import numpy as np
import pytest

from strategies import AlignIns
from strategies.outliers import mz_scores


def mz_written_out(values):
    middle = np.median(values)
    std = np.sqrt(sum((v - np.mean(values)) ** 2 for v in values) / len(values)) or 1.0
    return [abs(v - middle) / std for v in values]


def alignins_written_out(sent, models, sparsity, lambda_c, lambda_s):
    """Follow the paper, client by client."""
    updates = [model - sent for model in models]
    d, n = len(sent), len(models)
    k = int(sparsity * d)
    omega = [u @ sent / (np.sqrt(u @ u) * np.sqrt(sent @ sent)) for u in updates]
    principal = [np.sign(sum(np.sign(u[j]) for u in updates)) for j in range(d)]
    rho = []
    for u in updates:
        top = sorted(range(d), key=lambda j: -abs(u[j]))[:k]
        rho.append(1 - sum(np.sign(u[j]) != principal[j] for j in top) / k)
    first, second = mz_written_out(omega), mz_written_out(rho)
    kept = [i for i in range(n) if first[i] < lambda_c and second[i] < lambda_s]
    c = np.median([np.sqrt(updates[i] @ updates[i]) for i in kept]) if kept else 0.0
    clipped = [updates[i] * min(1, c / np.sqrt(updates[i] @ updates[i])) for i in kept]
    return omega, rho, kept, sent + sum(clipped) / len(kept) if kept else sent


def crowd(seed, n=12, d=60, attackers=3):
    rng = np.random.default_rng(seed)
    sent, way, goal = rng.standard_normal((3, d))
    updates = way + 0.6 * rng.standard_normal((n, d))
    updates[:attackers] += 2.5 * goal
    return sent, sent + updates * rng.uniform(0.5, 1.5, (n, 1))


def records(models):
    return [{"w": model} for model in models]


@pytest.mark.parametrize("seed", range(12))
def test_it_is_what_the_paper_says(seed, play):
    sent, models = crowd(seed, n=5 + 2 * seed, attackers=seed // 2)
    sparsity, lambda_c, lambda_s = 0.1 + 0.07 * seed, 1.5, 2.0
    omega, rho, kept, expected = alignins_written_out(sent, models, sparsity, lambda_c, lambda_s)
    rule = AlignIns(sparsity, lambda_c, lambda_s)
    model, report = play(rule, {"w": sent}, records(models))
    np.testing.assert_allclose(report["tda"], omega, rtol=1e-9)
    np.testing.assert_allclose(report["mpsa"], rho, rtol=1e-9)
    assert report["kept_nodes"] == [row + 1 for row in kept]
    np.testing.assert_allclose(model["w"], expected, rtol=1e-9, atol=1e-12)


def test_no_length_of_an_update_decides_whom_it_keeps(play):
    sent, models = crowd(1)
    _, first = play(AlignIns(), {"w": sent}, records(models))
    factors = np.linspace(0.01, 100, len(models))[:, np.newaxis]
    _, second = play(AlignIns(), {"w": sent}, records(sent + (models - sent) * factors))
    assert second["kept_nodes"] == first["kept_nodes"]
    np.testing.assert_allclose(second["tda"], first["tda"], rtol=1e-9)


def test_the_step_is_at_most_the_median_of_those_kept(play):
    sent, models = crowd(2)
    models[5] = sent + 1e5 * (models[5] - sent)
    model, report = play(AlignIns(0.3, 3.0, 3.0), {"w": sent}, records(models))
    assert np.linalg.norm(model["w"] - sent) <= report["clipping_norm"] * (1 + 1e-9)
    assert report["clipping_norm"] < 100


def test_other_directions_are_dropped(play):
    for seed in range(5):
        sent, models = crowd(seed, n=20, attackers=4)
        _, report = play(AlignIns(), {"w": sent}, records(models))
        assert {1, 2, 3, 4} <= set(report["dropped_nodes"])


def test_equal_values_are_no_outliers():
    np.testing.assert_array_equal(mz_scores(np.full(5, 0.3)), np.zeros(5))
    np.testing.assert_array_equal(mz_scores(np.zeros(3)), np.zeros(3))
    values = np.random.default_rng(0).standard_normal(9)
    np.testing.assert_allclose(mz_scores(values), mz_written_out(values))
    np.testing.assert_allclose(mz_scores(7 - 3 * values), mz_written_out(values))


def test_where_it_cannot_act_the_model_stays_and_it_says_so(play, warned):
    sent, models = crowd(3)
    for rule, some in [(AlignIns(), models[:2]), (AlignIns(0.3, 1e-9, 1e-9), models)]:
        model, report = play(rule, {"w": sent}, records(some))
        np.testing.assert_array_equal(model["w"], sent)
        assert report["cannot_act"] == 1
    assert report["kept_nodes"] == []
    assert warned("AlignIns") == 2


@pytest.mark.parametrize("name", ["sparsity", "direction_radius", "sign_radius"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1"])
def test_bounds(name, value):
    with pytest.raises(ValueError, match=f"{name} = "):
        AlignIns(**{name: value})
