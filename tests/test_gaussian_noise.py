"""Weak differential privacy of Sun et al. 2019."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, GaussianNoise, NormClipping, Sniper
from strategies.rules.gaussian_noise import add_noise

D = 20_000


def aggregate(strategy, messages, sent, server_round=1):
    strategy.configure_train(server_round, sent, ConfigRecord(), LocalGrid(None, 3))
    return strategy.aggregate_train(server_round, messages)


@settings(max_examples=30)
@given(
    stddev=st.sampled_from([0, 0.0, 1e-3, 1.0]),
    seed=st.integers(0, 2**64),
    server_round=st.integers(1, 10**6),
)
def test_noise_is_repeatable_and_differs_between_rounds(stddev, seed, server_round, reply, record):
    values = {
        "w": np.array([1.0, -2.0, 0.5], np.float32),
        "half": np.ones((2, 2), np.float16),
        "wide": np.array(3.0),
        "steps": np.array(4),
    }
    messages, sent = [reply(values, node=i) for i in range(3)], record(values)

    def noisy(server_round, seed=seed):
        strategy = GaussianNoise(FedAvg(), stddev, seed=seed)
        return aggregate(strategy, messages, sent, server_round)[0]

    first = noisy(server_round)
    assert first == noisy(server_round)
    assert first["steps"] == sent["steps"]
    assert {k: (a.dtype, a.shape) for k, a in first.items()} == {
        k: (str(v.dtype), v.shape) for k, v in values.items()
    }
    if stddev:
        others = [noisy(server_round + 1), noisy(server_round, seed + 1), noisy(server_round, None)]
        assert all(other["wide"] != first["wide"] for other in others)
        assert noisy(server_round, None) != noisy(server_round, None)
    else:
        assert first == sent


@pytest.mark.parametrize("stddev", [1e-3, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_normal_with_the_given_deviation(stddev, dtype, reply, record):
    model = np.linspace(-1, 1, D).astype(dtype)
    strategy = GaussianNoise(FedAvg(), stddev, seed=7)
    messages = [reply({"w": model}, node=i) for i in range(3)]
    arrays, metrics = aggregate(strategy, messages, record({"w": model}))
    noise = arrays["w"].numpy().astype(np.float64) - model
    assert metrics["noise-stddev"] == stddev
    assert abs(noise.mean()) < 5 * stddev / np.sqrt(D)
    assert abs(noise.std() / stddev - 1) < 5 / np.sqrt(2 * D)
    assert stats.kstest(noise / stddev, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 5 / np.sqrt(D)


def test_a_round_that_keeps_the_model_adds_no_noise(reply, record):
    sent = record({"w": np.ones(3)})
    nan = [reply({"w": np.full(3, np.nan)}, node=i) for i in range(3)]
    split = [reply({"w": np.full(3, float(i))}, node=i) for i in range(1)]
    for strategy, messages in (
        (FedAvg(), nan),
        (FedAvg(), []),
        (Sniper(), split),  # one of three clients is no majority
        (NormClipping(Sniper(), "median"), split),
    ):
        arrays, metrics = aggregate(GaussianNoise(strategy, 1.0), messages, sent)
        assert arrays is sent
        assert "noise-stddev" not in metrics


def test_noise_around_clipping_around_sniper(reply, record):
    sent = record({"w": np.zeros(4)})
    values = {1: 0.10, 2: 0.11, 3: 0.12, 4: 0.50, 5: -40.0}
    messages = [reply({"w": np.full(4, v)}, node=node) for node, v in values.items()]
    inner = NormClipping(Sniper(threshold=0.2), max_norm="median")
    exact, metrics = aggregate(inner, messages, sent)
    report = inner.rounds[1]
    assert report["clipped_nodes"] == [4, 5]
    assert metrics["clipping-norm"] == report["clipping_norm"] == pytest.approx(0.24)
    assert report["kept_nodes"] == [1, 2, 3, 4]
    assert report["dropped_nodes"] == [5]
    assert [metrics[name] for name in ("clipped", "kept", "dropped")] == [2, 4, 1]
    arrays, noisy_metrics = aggregate(GaussianNoise(inner, 0.01, seed=5), messages, sent)
    assert noisy_metrics == {**metrics, "noise-stddev": 0.01}
    expected = add_noise(exact["w"].numpy(), 0.01, np.random.default_rng([5, 1]))
    np.testing.assert_array_equal(arrays["w"].numpy(), expected)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "0.1", None, True, [0.1]])
def test_the_deviation_is_validated(value):
    with pytest.raises(ValueError, match="stddev = ") as error:
        GaussianNoise(FedAvg(), value)
    assert repr(value) in str(error.value)


def test_the_statistics_of_batch_norm_stay(reply, record):
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    layer[1].running_var.zero_()  # of a unit that is never active
    sent = ArrayRecord(layer.state_dict())
    arrays, _ = aggregate(GaussianNoise(FedAvg(), 1.0), [reply(sent, node=n) for n in (1, 2)], sent)
    kept = {name for name in sent if arrays[name] == sent[name]}
    assert kept == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    layer.load_state_dict(arrays.to_torch_state_dict())
    assert layer.eval()(torch.ones(1, 3)).isfinite().all()
