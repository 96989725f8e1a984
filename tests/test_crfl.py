"""CRFL against its paper's training written out, and its smoothed votes against a loop."""

import numpy as np
import pytest
from scipy import stats
from torch import nn

from strategies import CRFL, FedAvg, Median, Sniper
from strategies.smoothing import smoothed_votes


def played(play, strategy, models, number=1, sent=None):
    sent = np.zeros(models.shape[1]) if sent is None else sent
    new, told = play(strategy, {"w": sent}, [{"w": row} for row in models], number)
    return new["w"], told


def clipped_written_out(models, rho):
    """Xie et al. 2021: the average, divided where it is too long."""
    w = sum(models) / len(models)
    return w / max(1, np.sqrt(sum(w**2)) / rho)


@pytest.mark.parametrize("number", [1, 7])
@pytest.mark.parametrize("rho", [0.5, 3.0, 1e6])
def test_without_noise_it_is_the_clipped_model(rho, number, play):
    models = 3 + np.random.default_rng(0).standard_normal((5, 40))
    found, told = played(play, CRFL(FedAvg(), rho, 0.25, 0.0), models, number, np.ones(40))
    expected = clipped_written_out(models, rho + 0.25 * number)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert told["model_norm"] == pytest.approx(np.linalg.norm(models.mean(axis=0)))
    assert told["noise_stddev"] == 0


@pytest.mark.parametrize("stddev", [1e-3, 2.0])
def test_noise_is_normal_with_the_given_deviation(stddev, play):
    models = np.random.default_rng(1).standard_normal((3, 20_000))
    found, _ = played(play, CRFL(FedAvg(), 10.0, stddev=stddev, seed=4), models)
    noise = (found - clipped_written_out(models, 10.0)) / stddev
    assert stats.kstest(noise, "norm").pvalue > 1e-3


def test_seeds_repeat_the_noise_and_rounds_have_their_own(play):
    models = np.ones((3, 50))

    def found(seed, number=1):
        return played(play, CRFL(FedAvg(), 1.0, seed=seed), models, number)[0]

    np.testing.assert_array_equal(found(1), found(1))
    for other in (found(2), found(1, 2), found(None)):
        assert (found(1) != other).all()


@pytest.mark.parametrize("far", [10.0, 1e9, 1e100])
def test_the_model_is_no_longer_than_the_bound_whatever_anybody_sends(far, play):
    models = np.random.default_rng(2).standard_normal((9, 60))
    models[0] *= far
    found, _ = played(play, CRFL(FedAvg(), 2.0, stddev=0.0), models)
    assert np.linalg.norm(found) <= 2 * (1 + 1e-9)


def test_a_round_that_keeps_the_model_is_neither_clipped_nor_noised(play):
    sent = np.full(4, 100.0)
    found, told = played(play, CRFL(Sniper(), 1.0), np.zeros((1, 4)), 1, sent)
    np.testing.assert_array_equal(found, sent)
    assert "noise_stddev" not in told


def test_votes_are_those_of_models_in_noise(record):
    """Counted again by hand, with the same draws; statistics get no noise."""
    rng = np.random.default_rng(3)
    arrays = {"w": rng.standard_normal((3, 4)), "bn.running_var": np.full(2, 1e-9)}
    inputs = rng.standard_normal((20, 4))

    def run(model, inputs):
        assert (model["bn.running_var"].numpy() == 1e-9).all()
        return inputs @ model["w"].numpy().T

    expected, noise = np.zeros((20, 3)), np.random.default_rng(9)
    for _ in range(50):
        w = arrays["w"] + 0.5 * noise.standard_normal(12).reshape(3, 4)
        for row, answer in enumerate((inputs @ w.T).argmax(axis=1)):
            expected[row, answer] += 1
    votes = smoothed_votes(run, inputs, record(arrays), 0.5, 50, np.random.default_rng(9))
    np.testing.assert_array_equal(votes, expected)
    assert (votes.sum(axis=1) == 50).all()
    assert (np.sort(votes, axis=1)[:, 1] > 0).any()  # they differ


def test_a_strategy_lets_models_vote_if_it_can_run_them(record):
    model = record({k: v.detach().numpy() for k, v in nn.Linear(2, 2).state_dict().items()})
    strategy, inputs = CRFL(Median(), 1.0, stddev=0.0, seed=1), np.eye(2)
    with pytest.raises(ValueError, match="cannot vote without run_model"):
        strategy.vote(model, inputs)
    strategy.run_model = lambda model, inputs: inputs @ model["weight"].numpy().T
    plain = strategy.run_model(model, inputs).argmax(axis=1)
    np.testing.assert_array_equal(strategy.vote(model, inputs, 5), 5 * np.eye(2)[plain])
    with pytest.raises(ValueError, match="draws = 0"):
        strategy.vote(model, inputs, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 0}, "rho = 0 must be"),
        ({"growth": -1}, "growth = -1 must be a finite number, 0 or larger"),
        ({"stddev": np.inf}, "stddev = inf must be"),
        ({"seed": "x"}, "seed = 'x'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        CRFL(FedAvg(), **{"rho": 1.0} | settings)
