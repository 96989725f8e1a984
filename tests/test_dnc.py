"""DnC against its paper's algorithm with a singular value decomposition, and what it withstands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import DnC
from strategies.rules.dnc import outlier_scores

quick = settings(max_examples=30)


def scores_written_out(sampled):
    """Score as Shejwalkar and Houmansadr 2021 do, by a singular value decomposition."""
    centered = sampled - sampled.mean(axis=0)
    v = np.linalg.svd(centered)[2][0]
    return np.array([float(row @ v) ** 2 for row in centered])


def crowd(seed, n=12, d=40, attackers=3):
    rng = np.random.default_rng(seed)
    models = rng.standard_normal((n, d))
    models[:attackers] += 3
    return models


def played(play, strategy, models, sent=None):
    sent = np.zeros(models.shape[1]) if sent is None else sent
    new, told = play(strategy, {"w": sent}, [{"w": row} for row in models])
    return new["w"], told


@quick
@given(seed=st.integers(0, 999), n=st.integers(2, 12), d=st.integers(2, 30))
def test_scores_are_those_of_the_singular_vector(seed, n, d):
    sampled = crowd(seed, n, d, seed % 4)
    expected = scores_written_out(sampled)
    np.testing.assert_allclose(outlier_scores(sampled), expected, rtol=1e-6, atol=1e-9)
    moved = outlier_scores(2 * sampled + 5)
    np.testing.assert_allclose(moved, 4 * expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_with_all_coordinates_it_is_the_mean_of_the_least_outlying(seed, play):
    models, c = crowd(seed), 1.0 + 0.25 * (seed % 2)
    kept = np.argsort(scores_written_out(models), kind="stable")[: 12 - (3 if c == 1 else 4)]
    found, told = played(play, DnC(3, c, seed=seed), models)
    assert told["kept_nodes"] == sorted((kept + 1).tolist())
    np.testing.assert_allclose(found, models[kept].mean(axis=0), rtol=1e-12)


def test_good_is_who_is_good_in_every_draw(play):
    """The draws of the strategy, repeated."""
    models, rng, good = crowd(7, d=200), np.random.default_rng([5, 1]), set(range(12))
    places = np.argsort([row.tobytes() for row in models])  # the order of content
    for _ in range(4):
        columns = np.sort(rng.choice(200, 20, replace=False))
        scores = scores_written_out(models[places][:, columns])
        good &= set(places[np.argsort(scores, kind="stable")[:9]].tolist())
    found, told = played(play, DnC(3, iterations=4, dimension=20, seed=5), models)
    assert told["kept_nodes"] == sorted(row + 1 for row in good)
    np.testing.assert_allclose(found, models[sorted(good)].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("far", [30, 1e6, 1e60])
def test_a_minority_that_is_far_in_one_direction_has_no_part(far, play):
    models = crowd(8, attackers=0)
    models[:4] = far * np.ones(40)
    found, told = played(play, DnC(4, seed=0), models)
    assert set(told["kept_nodes"]).isdisjoint({1, 2, 3, 4})
    np.testing.assert_allclose(found, models[4:].mean(axis=0), rtol=1e-9)


def test_seeds_repeat_the_draws(play):
    models = crowd(9, d=300, attackers=0)

    def found(seed):
        return played(play, DnC(3, iterations=1, dimension=10, seed=seed), models)[1]["votes"]

    assert found(1) == found(1)
    assert len({tuple(found(seed)) for seed in (1, 2, 3, 4, None)}) > 1


def test_without_a_majority_or_agreement_it_cannot_act(play, warned):
    models = crowd(0)
    for strategy in (DnC(6, seed=0), DnC(3, 4.0, seed=0)):
        found, told = played(play, strategy, models, np.ones(40))
        np.testing.assert_array_equal(found, np.ones(40))
        assert told["cannot_act"] == 1
    many = DnC(5, iterations=60, dimension=1, seed=0)
    _, told = played(play, many, crowd(0, attackers=0), np.ones(40))
    assert (told["cannot_act"], told["kept_nodes"]) == (1, [])
    assert warned("DnC") == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_malicious": -1}, "num_malicious = -1"),
        ({"filter_factor": 0}, "filter_factor = 0"),
        ({"iterations": 0}, "iterations = 0"),
        ({"dimension": 0.5}, "dimension = 0.5"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        DnC(**{"num_malicious": 1} | settings)


def test_more_attackers_than_a_minority_are_refused():
    DnC(4).check(9)
    with pytest.raises(ValueError, match="num_malicious = 5: DnC of 10 clients allows 0 to 4"):
        DnC(5).check(10)


def test_a_factor_by_which_nobody_is_kept_is_refused():
    with pytest.raises(
        ValueError, match=r"^filter_factor = 4\.0: DnC of 10 clients allows 0 to 3$"
    ):
        DnC(3, filter_factor=4.0).check(10)
    DnC(3, filter_factor=3.0).check(10)
