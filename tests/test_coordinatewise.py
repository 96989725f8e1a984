"""Median and trimmed mean against loops over the coordinates, Flower and byzfl."""

import tracemalloc

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import Bulyan, Median, Screened, TrimmedMean
from strategies.rules import median as module
from strategies.rules.bulyan import mean_around_median
from strategies.rules.median import median
from strategies.rules.trimmed_mean import trimmed_mean

quick = settings(max_examples=60)


def median_written_out(models):
    middle = []
    for column in models.astype(np.float64).T:
        values, n = sorted(column), len(column)
        middle.append((values[(n - 1) // 2] + values[n // 2]) / 2)
    return np.array(middle)


def trimmed_mean_written_out(models, cut):
    means = []
    for column in models.astype(np.float64).T:
        values = sorted(column)[cut : len(column) - cut]
        means.append(sum(values) / len(values))
    return np.array(means)


@st.composite
def federations(draw):
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    models = draw(st.sampled_from([1e-30, 1, 1e6])) * rng.standard_normal((n, d))
    models[rng.random((n, d)) < 0.2] = draw(st.sampled_from([0, 1, -1e20]))
    return models.astype(draw(st.sampled_from([np.float32, np.float64])))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Make small models span several blocks of columns."""
    monkeypatch.setattr(module, "_BLOCK_SIZE", 64)


@quick
@given(models=federations())
def test_median_is_that_of_each_coordinate(models):
    before = models.copy()
    np.testing.assert_array_equal(median(models), median_written_out(models))
    np.testing.assert_array_equal(models, before)


@quick
@given(models=federations(), data=st.data())
def test_trimmed_mean_is_that_of_each_coordinate(models, data):
    cut = data.draw(st.integers(0, (len(models) - 1) // 2))
    error = 1e-14 * np.abs(models).max()
    np.testing.assert_allclose(
        trimmed_mean(models, cut), trimmed_mean_written_out(models, cut), rtol=1e-13, atol=error
    )


@quick
@given(models=federations(), data=st.data())
def test_permuted_clients_give_the_same_bits(models, data):
    other = models[data.draw(st.permutations(range(len(models))))]
    cut = (len(models) - 1) // 2
    rows = np.arange(len(models))
    np.testing.assert_array_equal(median(models), median(other))
    np.testing.assert_array_equal(trimmed_mean(models, cut), trimmed_mean(other, cut))
    np.testing.assert_array_equal(
        mean_around_median(models, rows, len(models) - cut),
        mean_around_median(other, rows, len(models) - cut),
    )


@quick
@given(models=federations(), shift=st.integers(-4, 4))
def test_a_common_shift_shifts_the_aggregate(models, shift):
    models = np.round(np.clip(models.astype(np.float64), -1e3, 1e3) * 1024) / 1024  # exact sums
    np.testing.assert_array_equal(median(models + shift), median(models) + shift)
    cut = (len(models) - 1) // 3
    shifted = trimmed_mean(models + shift, cut)
    np.testing.assert_allclose(shifted, trimmed_mean(models, cut) + shift, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_models_give_that_model(n, dtype):
    model = np.random.default_rng(0).standard_normal(100).astype(dtype)
    models = np.tile(model, (n, 1))
    np.testing.assert_array_equal(median(models), model)
    np.testing.assert_allclose(trimmed_mean(models, (n - 1) // 2), model, rtol=1e-15)
    np.testing.assert_allclose(mean_around_median(models, np.arange(n), n), model, rtol=1e-15)


def test_most_trimmed_is_the_median():
    models = np.random.default_rng(1).standard_normal((9, 40))
    np.testing.assert_array_equal(trimmed_mean(models, 4), median(models))


# --- As strategies ---------------------------------------------------------------------------


def aggregate(strategy, models, reply, record):
    sent = record({"w": np.zeros_like(models[0])})
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, max(2, len(models))))
    replies = [reply({"w": model}, node=node) for node, model in enumerate(models, 1)]
    arrays, metrics = strategy.aggregate_train(1, replies)
    return arrays["w"].numpy(), metrics, strategy.rounds[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("ours", "flowers"),
    [(Median, FedMedian), (lambda: TrimmedMean(0.3), lambda: FedTrimmedAvg(beta=0.3))],
)
def test_they_are_flowers_and_vote_for_nobody(ours, flowers, dtype, reply, record):
    models = np.random.default_rng(2).standard_normal((10, 50)).astype(dtype)
    found, metrics, report = aggregate(ours(), models, reply, record)
    expected, _, _ = aggregate(Screened(flowers()), models, reply, record)
    assert found.dtype == dtype
    error = 4 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)
    assert not {"kept", "dropped"} & set(metrics)
    assert "kept_nodes" not in report


def test_trimmed_mean_tells_how_many_it_left_out(reply, record):
    models = np.random.default_rng(3).standard_normal((10, 5))
    for n, cut in ((10, 3), (9, 2), (4, 1)):
        found, metrics, _ = aggregate(TrimmedMean(0.3), models[:n], reply, record)
        np.testing.assert_allclose(found, trimmed_mean_written_out(models[:n], cut))
        assert metrics["trimmed"] == cut
    ones = np.eye(49)
    assert aggregate(TrimmedMean(1 / 49), ones, reply, record)[1]["trimmed"] == 1


def test_of_fewer_models_than_1_over_beta_it_leaves_out_none_and_cannot_act(reply, record, warned):
    """Unless that is what beta says."""
    models = np.random.default_rng(3).standard_normal((3, 5))
    for n in (1, 3):
        found, metrics, _ = aggregate(TrimmedMean(0.3), models[:n], reply, record)
        np.testing.assert_array_equal(found, np.zeros(5))
        assert (metrics["trimmed"], metrics["cannot-act"]) == (0, 1)
    assert warned("TrimmedMean") == 2
    found, metrics, _ = aggregate(TrimmedMean(0), models, reply, record)
    np.testing.assert_allclose(found, models.mean(axis=0))
    assert "cannot-act" not in metrics
    with pytest.raises(ValueError, match=r"beta = 0.3: TrimmedMean of 3 clients allows 0.333333"):
        TrimmedMean(0.3).check(3)
    TrimmedMean(0.3).check(4)
    TrimmedMean(0).check(1)


def test_those_of_byzfl(byzfl):
    aggregators = byzfl("aggregators")
    models = np.random.default_rng(4).standard_normal((11, 60))
    np.testing.assert_allclose(median(models), aggregators.Median()(models), rtol=1e-13)
    np.testing.assert_allclose(trimmed_mean(models, 3), aggregators.TrMean(f=3)(models), rtol=1e-12)
    np.testing.assert_allclose(
        mean_around_median(models, np.arange(11), 8), aggregators.Meamed(f=3)(models), rtol=1e-12
    )


@pytest.mark.parametrize("beta", [0.5, -0.1, np.nan, "0.1", True])
def test_settings_out_of_range(beta):
    with pytest.raises(ValueError, match=f"beta = {beta!r} must be a number from 0 to below 0.5"):
        TrimmedMean(beta)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.3), Bulyan(10)])
def test_memory_beyond_the_models_is_a_few_blocks_and_the_result(rule, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_SIZE", 2**17)

    class Whole:
        models = np.random.default_rng(5).standard_normal((50, 100_000), dtype=np.float32)
        votes = np.ones(50)

        def __len__(self):
            return 50

        class distances:  # noqa: N801
            squared = np.ones((50, 50)) - np.eye(50)

    tracemalloc.start()
    try:
        rule.aggregate(Whole())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 100_000 + 8 * 2**20
