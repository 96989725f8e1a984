"""Eq. 1 against numpy, byzfl and Flower."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from strategies import FedAvg

quick = settings(max_examples=50)
floats = st.sampled_from([np.float16, np.float32, np.float64])


def matrices(dtype: object, clients: int | None = None):
    """One client's model in each row."""
    elements = {"min_value": -1000, "max_value": 1000}
    rows = st.integers(1, 7) if clients is None else st.just(clients)
    shapes = st.tuples(rows, st.integers(1, 5))
    return npst.arrays(dtype, shapes, elements=elements if np.dtype(dtype).kind == "f" else None)


@pytest.fixture(scope="module")
def byzfl_average(byzfl: Callable[[str], ModuleType]) -> Callable[[np.ndarray], np.ndarray]:
    average: Callable[[np.ndarray], np.ndarray] = byzfl("aggregators").Average()
    return average


def averaged(messages: list[Message], **arguments: object) -> ArrayRecord:
    arrays, _ = FedAvg(**arguments).aggregate_train(1, messages)
    return arrays


@quick
@given(data=st.data(), dtype=floats)
def test_uniform_average_is_the_mean(data, dtype, reply, byzfl_average):
    models = data.draw(matrices(dtype))
    messages = [
        reply({"w": row}, node=i, metrics={"num-examples": i + 1}) for i, row in enumerate(models)
    ]
    average = averaged(messages)["w"].numpy()
    tolerance = 2 * float(np.finfo(dtype).eps)
    assert average.dtype == dtype
    wide = models.astype(np.float64)
    for mean in (wide.mean(axis=0), byzfl_average(wide)):
        np.testing.assert_allclose(average, mean, rtol=tolerance, atol=1000 * tolerance)


@quick
@given(data=st.data())
def test_weighted_average_is_numpys_and_flowers(data, reply):
    models = data.draw(matrices(np.float64))
    counts = data.draw(st.lists(st.integers(1, 10**6), min_size=len(models), max_size=len(models)))
    messages = [
        reply({"w": row}, node=i, metrics={"num-examples": count})
        for i, (row, count) in enumerate(zip(models, counts, strict=True))
    ]
    average = averaged(messages, weighted=True)["w"].numpy()
    np.testing.assert_allclose(average, np.average(models, axis=0, weights=counts), atol=1e-9)
    flowers, _ = FlowerFedAvg().aggregate_train(1, messages)
    np.testing.assert_allclose(average, flowers["w"].numpy(), atol=1e-9)


@quick
@given(data=st.data())
def test_equal_counts_give_flowers_average_and_metrics(data, reply):
    models = data.draw(matrices(np.float32))
    messages = [
        reply({"w": row}, node=i, metrics={"loss": float(i), "curve": [1.0, i / 2]})
        for i, row in enumerate(models)
    ]
    flowers, their_metrics = FlowerFedAvg().aggregate_train(1, messages)
    arrays, metrics = FedAvg().aggregate_train(1, messages)
    np.testing.assert_allclose(arrays["w"].numpy(), flowers["w"].numpy(), rtol=1e-5, atol=1e-3)
    assert metrics.pop("invalid") == 0
    assert set(metrics) == set(their_metrics) == {"loss", "curve"}
    for name in metrics:
        assert metrics[name] == pytest.approx(their_metrics[name])


@quick
@given(
    data=st.data(),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    shuffle=st.randoms(use_true_random=False),
    weighted=st.booleans(),
)
def test_order_and_names_of_clients_change_no_bit(data, dtype, shuffle, weighted, reply):
    models = data.draw(matrices(dtype))
    rows = [({"w": row, "n": np.array(i)}, {"num-examples": i + 1}) for i, row in enumerate(models)]
    first = [reply(arrays, node=i, metrics=m) for i, (arrays, m) in enumerate(rows)]
    shuffle.shuffle(rows)
    second = [reply(arrays, node=50 - i, metrics=m) for i, (arrays, m) in enumerate(rows)]
    assert averaged(first, weighted=weighted) == averaged(second, weighted=weighted)


@quick
@given(dtype=st.sampled_from([np.int64, np.int8, np.uint8, np.bool_]), data=st.data())
def test_counters_are_averaged_in_their_dtype(dtype, data, reply):
    counters = data.draw(matrices(np.int8 if dtype is np.int64 else dtype))
    counters = counters.astype(dtype)
    messages = [
        reply({"n": row, "zero-dim": row[0].reshape(()), "w": np.ones(1)}, node=i)
        for i, row in enumerate(counters)
    ]
    arrays = averaged(messages)
    mean = counters.astype(np.float64).mean(axis=0)
    assert arrays["n"].numpy().dtype == dtype
    assert np.abs(arrays["n"].numpy().astype(np.float64) - mean).max() <= 0.5 + 1e-9
    assert arrays["zero-dim"].numpy().shape == ()
    assert abs(float(arrays["zero-dim"].numpy()) - mean[0]) <= 0.5 + 1e-9


@quick
@given(value=st.integers(-(2**63), 2**63 - 1), clients=st.integers(1, 3))
@example(value=2**63 - 1, clients=1)
@example(value=-(2**63), clients=3)
def test_immense_counters_do_not_wrap_around(value, clients, reply):
    messages = [reply({"n": np.array(value), "w": np.ones(1)}, node=i) for i in range(clients)]
    assert int(averaged(messages)["n"].numpy()) == pytest.approx(value, rel=1e-15, abs=0.5)


@quick
@given(data=st.data(), count=st.floats(1e-300, 1e9))
def test_equal_models_are_their_average(data, count, reply):
    row = data.draw(matrices(np.float32, clients=1))[0]
    messages = [reply({"w": row}, node=i, metrics={"num-examples": count}) for i in range(5)]
    for weighted in (False, True):
        np.testing.assert_array_equal(averaged(messages, weighted=weighted)["w"].numpy(), row)


def test_a_second_reply_to_a_request_has_no_vote(reply):
    honest = [reply({"w": np.array([float(i)])}, node=i, request=f"r{i}") for i in range(3)]
    again = [reply({"w": np.array([1e6])}, node=2, request="r2") for _ in range(9)]
    strategy = FedAvg()
    arrays, metrics = strategy.aggregate_train(1, honest + again)
    assert arrays == averaged(honest)
    assert metrics["invalid"] == 1  # a node is one, however often it answers
    assert sorted(strategy.rounds[1]["nodes"]) == [0, 1, 2]
    assert strategy.rounds[1]["invalid_nodes"] == [2]


def test_an_attackers_count_only_counts_if_weighted(reply):
    messages = [
        reply({"w": np.array([0.0])}, node=1, metrics={"num-examples": 1}),
        reply({"w": np.array([1.0])}, node=2, metrics={"num-examples": 999}),
    ]
    assert averaged(messages)["w"].numpy() == 0.5
    assert averaged(messages, weighted=True)["w"].numpy() == pytest.approx(0.999)


def test_the_strategys_own_metrics_win(reply):
    messages = [reply({"w": np.zeros(2)}, node=i, metrics={"invalid": 66}) for i in range(3)]
    _, metrics = FedAvg().aggregate_train(1, messages)
    assert metrics["invalid"] == 0


def test_other_keys_and_aggregation_functions_of_flower_work(reply):
    seen = []

    def count(contents, key):
        seen.append((len(contents), key))
        return contents[0]["metrics"].__class__({"clients": len(contents)})

    strategy = FedAvg(weighted_by_key="images", train_metrics_aggr_fn=count)
    messages = [reply({"w": np.zeros(2)}, node=i, metrics={"images": 5}) for i in range(3)]
    _, metrics = strategy.aggregate_train(1, messages)
    assert metrics == {"clients": 3, "invalid": 0}
    assert seen == [(3, "images")]
    _, metrics = strategy.aggregate_train(1, [reply({"w": np.zeros(2)})])
    assert metrics == {"invalid": 1}
