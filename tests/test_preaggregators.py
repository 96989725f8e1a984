"""Bucketing, nearest neighbor mixing and ARC against byzfl and the papers written out."""

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import (
    AdaptiveClipping,
    Bucketing,
    FedAvg,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NearestNeighborMixing,
    TrimmedMean,
)
from strategies.graph.distances import PairwiseDistances
from strategies.rules.adaptive_clipping import clipping_norm
from strategies.rules.bucketing import bucket_means
from strategies.rules.nearest_neighbor_mixing import neighbourhoods

quick = settings(max_examples=40)


def crowd(seed, n=11, d=30, attackers=3):
    rng = np.random.default_rng(seed)
    models = rng.standard_normal((n, d))
    models[:attackers] *= 20
    return models


def played(play, strategy, models, sent=None):
    sent = np.zeros(models.shape[1]) if sent is None else sent
    new, told = play(strategy, {"w": sent}, [{"w": row} for row in models])
    return new["w"], told


# --- Bucketing -------------------------------------------------------------------------------


@quick
@given(seed=st.integers(0, 999), n=st.integers(1, 12), s=st.integers(1, 13))
def test_buckets_are_averaged_as_the_paper_says(seed, n, s):
    models, rng = crowd(seed, n), np.random.default_rng(seed)
    pi, votes = rng.permutation(n), rng.integers(1, 9, n).astype(np.float64)
    expected, sums = [], []
    for i in range(1, -(-n // s) + 1):
        rows = [pi[k - 1] for k in range((i - 1) * s + 1, min(n, i * s) + 1)]
        sums.append(votes[rows].sum())
        expected.append(sum(votes[row] * models[row] for row in rows) / sums[-1])
    means, found = bucket_means(models.copy(), votes, pi, s)
    np.testing.assert_allclose(means, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found, sums)
    moved, _ = bucket_means(2 * models + 3, votes, pi, s)
    np.testing.assert_allclose(moved, 2 * np.array(expected) + 3, rtol=1e-12, atol=1e-12)


def test_buckets_are_those_of_byzfl(byzfl):
    models = crowd(1, 11)
    np.random.seed(3)  # noqa: NPY002
    expected = byzfl("aggregators.preaggregators").Bucketing(3)(models)
    np.random.seed(3)  # noqa: NPY002
    pi = np.random.permutation(11)  # noqa: NPY002
    np.testing.assert_allclose(bucket_means(models, np.ones(11), pi, 3)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("n", [5, 8])
def test_around_the_average_it_is_the_average_and_everybody_has_one_vote(n, play):
    models = crowd(2, n)
    found, _ = played(play, Bucketing(FedAvg(), 2, seed=0), models)
    np.testing.assert_allclose(found, models.mean(axis=0), rtol=1e-10, atol=1e-12)


def test_a_clients_vote_is_its_part_of_its_buckets(play):
    models = crowd(3, 11)
    found, told = played(play, Bucketing(MultiKrum(2, 3), 2, seed=0), models)
    votes = np.array(told["votes"])
    assert set(votes) == {0.0, 1.0}
    assert votes.sum() in (5, 6)
    np.testing.assert_allclose(found, models[votes > 0].mean(axis=0), rtol=1e-10)
    assert set(told["kept_nodes"]).isdisjoint({1, 2, 3})


def test_a_buckets_notes_are_its_clients(play):
    models = crowd(4, 10, attackers=1)
    inner = AdaptiveClipping(Median(), 1)
    _, told = played(play, Bucketing(inner, 2, seed=0), models)
    assert len(told["update_norms"]) == 10
    assert 1 in told["clipped_nodes"]
    assert len(told["clipped_nodes"]) == 2  # and whom it met
    norms = sorted(told["update_norms"])
    assert norms[0::2] == norms[1::2]


def test_seeds_repeat_the_buckets(play):
    models = crowd(5)

    def found(seed):
        return played(play, Bucketing(Median(), 2, seed=seed), models)[0]

    np.testing.assert_array_equal(found(1), found(1))
    assert (found(1) != found(2)).any()
    assert (found(None) != found(None)).any()


# --- Nearest neighbor mixing -----------------------------------------------------------------


@quick
@given(seed=st.integers(0, 999), n=st.integers(1, 12), data=st.data())
def test_mixtures_are_those_of_byzfl(seed, n, data, byzfl):
    models, f = crowd(seed, n), data.draw(st.integers(0, (n - 1) // 2))
    mixtures = neighbourhoods(PairwiseDistances(models).squared, f) @ models / (n - f)
    expected = byzfl("aggregators.preaggregators").NNM(f)(models)
    np.testing.assert_allclose(mixtures, expected, rtol=1e-9, atol=1e-9)


def test_of_equally_near_ones_the_lower_row_is_nearer():
    models = np.array([[0.0], [1.0], [-1.0], [1.0], [5.0]])
    members = neighbourhoods(PairwiseDistances(models).squared, 2)
    assert members[0].tolist() == [1, 1, 1, 0, 0]
    assert members[3].tolist() == [1, 1, 0, 1, 0]
    assert members.sum(axis=1).tolist() == [3] * 5


def test_the_strategy_inside_gets_the_mixtures_and_clients_the_votes(play):
    models = crowd(6)
    members = neighbourhoods(PairwiseDistances(models).squared, 3)
    mixtures = members @ models / 8
    found, _ = played(play, NearestNeighborMixing(Median(), 3), models)
    np.testing.assert_allclose(found, np.median(mixtures, axis=0), rtol=1e-10)
    found, told = played(play, NearestNeighborMixing(Krum(3), 3), models)
    best = int(np.abs(mixtures - found).sum(axis=1).argmin())
    np.testing.assert_allclose(found, mixtures[best], rtol=1e-10)
    assert told["votes"] == members[best].tolist()
    assert set(told["dropped_nodes"]) >= {1, 2, 3}


# --- ARC -------------------------------------------------------------------------------------


@quick
@given(seed=st.integers(0, 999), n=st.integers(1, 12), data=st.data())
def test_adaptive_clipping_is_byzfls(seed, n, data, byzfl):
    models, f = crowd(seed, n), data.draw(st.integers(0, (n - 1) // 2))
    bound = clipping_norm(np.linalg.norm(models, axis=1), f)
    clipped = byzfl("aggregators.preaggregators").ARC(f)(models.copy())
    factors = np.minimum(1, bound / np.linalg.norm(models, axis=1))
    np.testing.assert_allclose(clipped, factors[:, np.newaxis] * models, rtol=1e-12)


@pytest.mark.parametrize(("n", "f", "k"), [(10, 0, 0), (10, 1, 1), (10, 3, 4), (20, 4, 6)])
def test_the_k_longest_are_clipped(n, f, k, play):
    models, sent = crowd(7, n), np.ones(30)
    found, told = played(play, AdaptiveClipping(FedAvg(), f), sent + models, sent)
    norms = np.linalg.norm(models, axis=1)
    longest = np.argsort(norms)[n - k :]
    assert told["clipped_nodes"] == sorted((longest + 1).tolist())
    assert told["clipping_norm"] == pytest.approx(np.sort(norms)[n - 1 - k])
    expected = sent + (models * np.minimum(1, told["clipping_norm"] / norms)[:, None]).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@quick
@given(seed=st.integers(0, 999), far=st.sampled_from([1e2, 1e9, 1e90]), f=st.integers(0, 4))
def test_with_it_the_average_is_as_short_as_an_honest_update(seed, far, f, play):
    models = crowd(seed, 9, attackers=0)
    longest = np.linalg.norm(models[f:], axis=1).max()
    models[:f] *= far
    found, _ = played(play, AdaptiveClipping(FedAvg(), f), models)
    assert np.linalg.norm(found) <= longest * (1 + 1e-9)


# --- All three -------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [50.0, 1e6, 1e60])
@pytest.mark.parametrize(
    "strategy",
    [
        lambda: Bucketing(GeometricMedian(), 2, seed=0),
        lambda: Bucketing(Median(), 2, seed=0),
        lambda: NearestNeighborMixing(TrimmedMean(0.3), 4),
        lambda: NearestNeighborMixing(GeometricMedian(), 4),
        lambda: AdaptiveClipping(NearestNeighborMixing(TrimmedMean(0.3), 4), 4),
    ],
)
def test_a_minority_however_far_leaves_the_result_in_reach_of_the_others(far, strategy, play):
    models = crowd(8, 20, attackers=0)
    models[:4] += far
    found, _ = played(play, strategy(), models)
    assert np.linalg.norm(found) <= 8 * np.linalg.norm(models[4:], axis=1).max()


@pytest.mark.parametrize(
    "strategy", [NearestNeighborMixing(Median(), 2), AdaptiveClipping(Median(), 2)]
)
def test_a_common_shift_and_scale_are_the_results_too(strategy, play):
    models = crowd(9)
    plain, _ = played(play, strategy, models, np.ones(30))
    moved, _ = played(play, strategy, 2 * models + 3, 2 * np.ones(30) + 3)
    np.testing.assert_allclose(moved, 2 * plain + 3, rtol=1e-9)


@pytest.mark.parametrize(
    ("strategy", "n"),
    [
        (Bucketing(Median(), 2, seed=0), 4),
        (NearestNeighborMixing(Median(), 3), 6),
        (AdaptiveClipping(Median(), 3), 6),
    ],
)
def test_without_a_majority_they_cannot_act(strategy, n, play, warned):
    sent = np.ones(30)
    found, told = played(play, strategy, crowd(0, n), sent)
    np.testing.assert_array_equal(found, sent)
    assert told["cannot_act"] == 1
    assert warned(type(strategy).__name__) == 1
    found, told = played(play, strategy, crowd(0, n + 1), sent)
    assert "cannot_act" not in told
    assert (found != sent).any()


def test_settings_out_of_range():
    for strategy in (NearestNeighborMixing, AdaptiveClipping):
        with pytest.raises(ValueError, match="num_malicious = -1 must be an integer from 0"):
            strategy(FedAvg(), -1)
        message = f"num_malicious = 5: {strategy.__name__} of 10 clients allows 0 to 4"
        with pytest.raises(ValueError, match=message):
            strategy(FedAvg(), 5).check(10)
    with pytest.raises(ValueError, match="bucket_size = 0 must be an integer from 1"):
        Bucketing(FedAvg(), 0)
    with pytest.raises(ValueError, match="seed = -3"):
        Bucketing(FedAvg(), 2, seed=-3)


def test_the_strategy_inside_is_checked_for_so_many_as_it_gets():
    Bucketing(Krum(3), 2).check(17)
    with pytest.raises(ValueError, match="num_malicious = 3: Krum of 8 clients allows 0 to 2"):
        Bucketing(Krum(3), 2).check(16)
    with pytest.raises(ValueError, match="num_malicious = 9: Krum"):
        NearestNeighborMixing(Krum(9), 2).check(16)


@pytest.mark.parametrize("seed", range(3))
def test_around_one_of_flowers_a_bucket_has_the_votes_of_its_clients(seed, reply, record):
    sent = {
        "w": np.zeros(2),
        "bn.running_mean": np.zeros(1),
        "bn.num_batches_tracked": np.zeros(1, int),
    }
    strategy = Bucketing(flower.FedAvg(), 2, seed=seed, weighted=True)
    list(strategy.configure_train(1, record(sent), ConfigRecord(), LocalGrid(None, 8)))
    counts, values = [1, 1, 1, 1000, 1, 1, 1, 1], np.arange(8)
    replies = [
        reply(
            {
                "w": np.full(2, float(value)),
                "bn.running_mean": np.full(1, 10.0 * value),
                "bn.num_batches_tracked": np.full(1, 100 * value),
            },
            node=value,
            metrics={"num-examples": count},
        )
        for value, count in zip(values.tolist(), counts, strict=True)
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    mean = np.average(values, weights=counts)
    np.testing.assert_allclose(arrays["w"].numpy(), mean)
    np.testing.assert_allclose(arrays["bn.running_mean"].numpy(), 10 * mean)
    assert arrays["bn.num_batches_tracked"].numpy() == round(100 * mean)
