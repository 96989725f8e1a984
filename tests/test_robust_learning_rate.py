"""The robust learning rate against the paper's sum of signs written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import FedAvg, Median, NormClipping, RobustLearningRate, Sniper
from strategies.rules.robust_learning_rate import disagreed

quick = settings(max_examples=40)


def written_out(models, center, theta):
    """Ozdayi et al. 2021, coordinate by coordinate, of the plain average."""
    updates, new = models - center, []
    for start, column in zip(center, updates.T, strict=True):
        signs = sum((value > 0) - (value < 0) for value in column.tolist())
        eta = 1 if abs(signs) >= theta else -1
        new.append(start + eta * column.sum() / len(column))
    return np.array(new)


def crowd(seed, n, d=40):
    rng = np.random.default_rng(seed)
    center, updates = rng.standard_normal(d), rng.standard_normal((n, d))
    updates += 1.5 * rng.standard_normal(d)
    updates[rng.random((n, d)) < 0.2] = 0
    return center, center + updates


def played(play, strategy, center, models, number=1):
    new, told = play(strategy, {"w": center}, [{"w": row} for row in models], number)
    return new["w"], told


@quick
@given(seed=st.integers(0, 999), n=st.integers(1, 12), data=st.data())
def test_it_is_what_the_paper_says(seed, n, data, play):
    center, models = crowd(seed, n)
    theta = data.draw(st.integers(1, n))
    found, told = played(play, RobustLearningRate(FedAvg(), theta), center, models)
    np.testing.assert_allclose(found, written_out(models, center, theta), rtol=1e-9, atol=1e-12)
    assert told["turned"] == disagreed(models, center, theta).mean()


@quick
@given(seed=st.integers(0, 999), theta=st.integers(1, 9), shift=st.integers(-4, 4))
def test_signs_are_those_of_updates_whatever_their_place_and_length(seed, theta, shift):
    center, models = crowd(seed, 9)
    center, models = np.round(center * 64) / 64, np.round(models * 64) / 64  # exact sums
    expected = disagreed(models, center, theta)
    np.testing.assert_array_equal(disagreed(models + shift, center + shift, theta), expected)
    np.testing.assert_array_equal(disagreed(8 * models, 8 * center, theta), expected)


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_change_nothing(block, monkeypatch):
    center, models = crowd(3, 9)
    expected = disagreed(models, center, 5)
    monkeypatch.setattr("strategies.rules.robust_learning_rate._BLOCK", block)
    np.testing.assert_array_equal(disagreed(models, center, 5), expected)


def test_fewer_attackers_than_the_threshold_cannot_push_against_nobody(play):
    """Where only f clients move a coordinate, the server steps back from it."""
    center, models = np.zeros(4), np.zeros((10, 4))
    models[:, 0], models[:3, 1] = 1, 100
    found, _ = played(play, RobustLearningRate(FedAvg(), 4), center, models)
    np.testing.assert_allclose(found, [1, -30, 0, 0])


def test_it_turns_any_aggregate_around_and_leaves_the_replies_to_the_strategy_inside(play):
    center, models = crowd(5, 9)
    turned = disagreed(models, center, 6)
    assert 0 < turned.sum() < len(turned)
    for inner in (Median, lambda: NormClipping(Median(), 0.5)):
        plain, _ = played(play, inner(), center, models)
        found, _ = played(play, RobustLearningRate(inner(), 6), center, models)
        expected = np.where(turned, 2 * center - plain, plain)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_with_fewer_models_than_the_threshold_it_cannot_act(play, warned):
    center, models = crowd(6, 3)
    found, told = played(play, RobustLearningRate(FedAvg(), 4), center, models)
    np.testing.assert_array_equal(found, center)
    assert told["cannot_act"] == 1
    assert warned("RobustLearningRate") == 1


def test_a_round_that_keeps_the_model_is_not_turned_around(play):
    center, models = np.zeros(4), 100 * np.eye(4)[:2]
    found, told = played(play, RobustLearningRate(Sniper(), 1), center, models[:1])
    np.testing.assert_array_equal(found, center)
    assert "turned" not in told


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="threshold = 0 must be an integer from 1"):
        RobustLearningRate(FedAvg(), 0)
    with pytest.raises(ValueError, match="threshold = 9: RobustLearningRate of 8 clients allows 1"):
        RobustLearningRate(FedAvg(), 9).check(8)
