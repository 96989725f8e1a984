"""Rules of other people as strategies: against byzfl, Flower and FedAvg, and misbehaving."""

import copy

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_backdoor.config import build
from fl_backdoor.errors import UserError
from fl_backdoor.federation.engines import LocalGrid
from strategies import Aggregator, FedAvg, GaussianNoise, NormClipping, Screened

quick = settings(max_examples=50)
floats = st.sampled_from([np.float16, np.float32, np.float64])


@pytest.fixture(scope="module", autouse=True)
def aggregators(byzfl):
    return byzfl("aggregators")


@st.composite
def federations(draw, dtypes=floats, least=5):
    """Draw clients' models: two floating arrays, a single number and a counter."""
    dtype, clients = draw(dtypes), draw(st.integers(least, 8))
    rows = draw(npst.arrays(dtype, (clients, 7), elements={"min_value": -100, "max_value": 100}))
    counts = draw(st.lists(st.integers(0, 99), min_size=clients, max_size=clients))
    return [
        {"w": row[:6].reshape(2, 3), "n": np.array(count), "b": row[6]}
        for row, count in zip(rows, counts, strict=True)
    ]


def aggregate(strategy, messages, sent):
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, max(2, len(messages))))
    return strategy.aggregate_train(1, messages)


def invalid(strategy):
    return strategy.rounds[1]["invalid_nodes"]


def zeros(models):
    return {name: np.zeros_like(array) for name, array in models[0].items()}


def mean(models):
    return np.mean(models, axis=0)


def median(models):
    return np.median(models, axis=0)


# --- What it computes -----------------------------------------------------------------------


@quick
@given(models=federations(least=1), counts=st.data(), weighted=st.booleans())
def test_the_mean_is_fedavg(models, counts, weighted, reply, record):
    numbers = st.lists(st.integers(1, 99), min_size=len(models), max_size=len(models))
    sizes = counts.draw(numbers) if weighted else [1] * len(models)
    messages = [
        reply(model, node=node, metrics={"num-examples": size, "loss": float(node)})
        for node, (model, size) in enumerate(zip(models, sizes, strict=True))
    ]
    sent = record(zeros(models))
    expected, metrics = aggregate(FedAvg(weighted=weighted), messages, sent)
    arrays, own = aggregate(Aggregator(mean, weighted=weighted), messages, sent)
    assert own == {**metrics, "rule-failed": 0}
    assert arrays["n"] == expected["n"]  # a counter is no part of what the rule sees
    if weighted:  # but the rule gives each model one vote
        expected, _ = aggregate(FedAvg(), messages, sent)
    for name in ("w", "b"):
        found, wanted = arrays[name].numpy(), expected[name].numpy()
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        info = np.finfo(found.dtype)
        tiny = max(1e-12, float(info.smallest_subnormal))
        np.testing.assert_allclose(found, wanted, rtol=float(info.eps), atol=tiny)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("Average", {}),
        ("Median", {}),
        ("TrMean", {"f": 1}),
        ("Krum", {"f": 1}),
        ("MultiKrum", {"f": 1}),
        ("GeometricMedian", {}),
    ],
)
@quick
@given(models=federations())
def test_a_rule_of_byzfl_is_byzfl_on_the_same_matrix(
    rule, options, models, aggregators, reply, record
):
    build_rule = getattr(aggregators, rule)
    messages = [reply(model, node=node) for node, model in enumerate(models)]
    seen = []

    def spy(matrix):
        seen.append(matrix.copy())
        return build_rule(**options)(matrix)

    arrays, metrics = aggregate(Aggregator(spy), messages, record(zeros(models)))
    rows = [np.append(model["w"].ravel(), model["b"]).astype(np.float64) for model in models]
    (matrix,) = seen
    assert matrix.dtype == np.float64
    assert sorted(map(tuple, matrix)) == sorted(map(tuple, rows))
    expected = build_rule(**options)(matrix)
    dtype = models[0]["w"].dtype
    np.testing.assert_array_equal(arrays["w"].numpy(), expected[:6].reshape(2, 3).astype(dtype))
    np.testing.assert_array_equal(arrays["b"].numpy(), expected[6].astype(dtype))
    assert arrays["b"].numpy().shape == ()
    assert metrics["rule-failed"] == 0


@pytest.mark.parametrize("name", ["median", "trimmed mean"])
@quick
@given(models=federations(dtypes=st.sampled_from([np.float32, np.float64])))
def test_coordinatewise_rules_are_flowers(name, models, aggregators, reply, record):
    rule, flowers = {
        "median": (aggregators.Median(), FedMedian()),
        "trimmed mean": (aggregators.TrMean(f=1), FedTrimmedAvg(beta=1.001 / len(models))),
    }[name]
    messages = [reply(model, node=node) for node, model in enumerate(models)]
    sent = record(zeros(models))
    arrays, _ = aggregate(Aggregator(rule), messages, sent)
    expected, _ = aggregate(Screened(flowers), messages, sent)
    for key in ("w", "b"):
        np.testing.assert_allclose(arrays[key].numpy(), expected[key].numpy(), rtol=1e-5, atol=1e-4)


@quick
@given(models=federations(), shuffle=st.randoms(use_true_random=False))
def test_order_of_replies_changes_no_bit(models, shuffle, aggregators, reply, record):
    sent = record(zeros(models))
    messages = [reply(model, node=node) for node, model in enumerate(models)]
    first, metrics = aggregate(Aggregator(aggregators.TrMean(f=1)), messages, sent)
    shuffle.shuffle(messages)
    second, again = aggregate(Aggregator(aggregators.TrMean(f=1)), messages, sent)
    assert first == second
    assert metrics == again


@pytest.mark.parametrize(
    "convert", [list, tuple, torch.from_numpy, np.longdouble, np.ascontiguousarray]
)
def test_whatever_is_like_an_array_will_do(convert, reply, record):
    sent = record({"w": np.zeros(3, np.float32)})
    messages = [reply({"w": np.full(3, v, np.float32)}, node=v) for v in (1, 2, 5)]
    arrays, metrics = aggregate(Aggregator(lambda m: convert(median(m))), messages, sent)
    assert arrays == record({"w": np.full(3, 2, np.float32)})
    assert metrics["rule-failed"] == 0


def test_a_rule_may_return_integers(reply, record):
    sent = record({"w": np.zeros(3, np.float32)})
    arrays, _ = aggregate(
        Aggregator(lambda m: np.sign(m).sum(axis=0).astype(int)),
        [reply({"w": np.full(3, v, np.float32)}, node=v) for v in (1, 2, 5)],
        sent,
    )
    assert arrays == record({"w": np.full(3, 3, np.float32)})


# --- Hostile replies ------------------------------------------------------------------------


def test_hostile_replies_are_dropped_before_the_rule_sees_them(aggregators, reply, record):
    sent = record({"w": np.zeros(2), "n": np.array(0)})

    def model(value, count=1):
        return {"w": np.full(2, value), "n": np.array(count)}

    honest = [reply(model(v), node=node) for node, v in enumerate((1.0, 2.0, 4.0))]
    hostile = [
        reply(model(np.nan), node=11),
        reply({"w": np.zeros(3), "n": np.array(0)}, node=12),
        reply({"w": np.zeros(2)}, node=13),
        reply(model(9.0), node=14, metrics={"num-examples": -1}),
        reply(None, node=15),
        reply(model(1e200), node=16),
    ]
    strategy = Aggregator(aggregators.Median())
    arrays, metrics = aggregate(strategy, hostile + honest, sent)
    assert arrays == record(model(2.0))
    assert invalid(strategy) == [11, 12, 13, 14, 15, 16]
    del hostile[2]  # alone it is a part of the model
    arrays, metrics = aggregate(strategy, hostile, sent)
    assert arrays is sent
    assert invalid(strategy) == [11, 12, 14, 15, 16]
    assert metrics == {"invalid": 5}


def test_an_immense_float32_cannot_make_a_rule_of_distances_fail(reply, record):
    def nearest_to_the_mean(models):
        return models[np.linalg.norm(models - models.mean(axis=0), axis=1).argmin()]

    def model(value):
        return {"w": np.full(2, value, np.float32)}

    seen = []

    def spy(models):
        seen.append(np.linalg.norm(models))
        return nearest_to_the_mean(models)

    messages = [reply(model(v), node=node) for node, v in enumerate((1, 2, 3e38))]
    _, metrics = aggregate(Aggregator(spy), messages, record(model(0)))
    assert metrics["rule-failed"] == 0
    assert np.isfinite(seen).all()


def test_clients_cannot_report_that_the_rule_failed(reply, record):
    messages = [reply({"w": np.ones(2)}, metrics={"rule-failed": 1.0}, node=n) for n in (1, 2)]
    _, metrics = aggregate(Aggregator(mean), messages, record({"w": np.zeros(2)}))
    assert metrics["rule-failed"] == 0


# --- Rules that misbehave -------------------------------------------------------------------


def fail(models):
    raise RuntimeError("no\nWARNING: forged")


BAD = {
    "raises": (fail, "no"),
    "scalar": (np.mean, "float64 () instead of floats (3,)"),
    "all rows": (lambda m: m, "float64 (4, 3) instead of floats (3,)"),
    "one row of a matrix": (lambda m: m[:1], "float64 (1, 3)"),
    "too short": (lambda m: m[0, :2], "float64 (2,)"),
    "nothing": (lambda _: None, "object ()"),
    "text": (lambda _: ["1", "2", "3"], "instead of floats"),
    "complex": (lambda m: m[0] + 1j, "complex128"),
    "bools": (lambda m: m[0] > 0, "bool"),
    "objects": (lambda m: m[0].astype(object), "object"),
    "ragged": (lambda _: [[1.0], [1.0, 2.0], 3.0], "inhomogeneous"),
    "NaN": (lambda m: m[0] * np.nan, "NaN, inf or immense"),
    "inf": (lambda m: m[0] * np.inf, "NaN, inf or immense"),
    "overflow": (lambda _: np.full(3, 1e39), "NaN, inf or immense"),
    "overflow inside": (lambda m: m[0] * 1e200 * 1e200, "NaN, inf or immense"),
    "tracked tensor": (lambda m: torch.from_numpy(m[0]).requires_grad_(), "requires grad"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failing_rule_keeps_the_model(name, reply, record, caplog):
    rule, message = BAD[name]
    sent = record({"w": np.zeros(3, np.float32), "n": np.array(1)})
    messages = [
        reply({"w": np.full(3, v, np.float32), "n": np.array(7)}, node=v) for v in range(1, 5)
    ]
    for wrap in (Aggregator, lambda r: Screened(Aggregator(r))):
        caplog.clear()
        arrays, metrics = aggregate(wrap(rule), messages, sent)
        assert arrays is sent
        assert metrics == {"rule-failed": 1, "invalid": 0}
        (line,) = [r.getMessage() for r in caplog.records if "rule failed" in r.getMessage()]
        assert line.startswith("Aggregator: the rule failed on 4 models: ")
        assert message in line
        assert "\n" not in line
        assert "Round 1 keeps the old global model" in caplog.text


def test_too_few_models_for_the_rule_keep_the_model_and_the_next_round_works(
    aggregators, reply, record
):
    sent = record({"w": np.zeros(2)})
    strategy = Aggregator(aggregators.Krum(f=1))
    messages = [reply({"w": np.full(2, 0.1 * node)}, node=node) for node in range(1, 6)]
    arrays, metrics = aggregate(strategy, messages[:2], sent)
    assert arrays is sent
    assert metrics["rule-failed"] == 1
    arrays, metrics = aggregate(strategy, messages, sent)
    assert arrays != sent
    assert metrics["rule-failed"] == 0


def test_interruptions_are_no_failures_of_the_rule(reply, record):
    def interrupt(models):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aggregate(Aggregator(interrupt), [reply({"w": np.ones(2)})], record({"w": np.zeros(2)}))


def test_a_rule_that_overwrites_its_matrix_changes_nothing_else(reply, record):
    kept = []

    def vandal(models):
        result = models[0]
        models += 1
        kept.append(models)
        return result

    sent = record({"w": np.zeros(3), "n": np.array(1)})
    messages = [reply({"w": np.full(3, float(v)), "n": np.array(v)}, node=v) for v in (1, 2, 3)]
    before = [copy.deepcopy(message.content) for message in messages]
    arrays, _ = aggregate(Aggregator(vandal), messages, sent)
    kept[0][:] = np.nan  # nor does what it does later
    assert np.isfinite(arrays["w"].numpy()).all()
    assert [message.content for message in messages] == before
    assert sent == record({"w": np.zeros(3), "n": np.array(1)})
    assert int(arrays["n"].numpy()) == 2


# --- With the rest of the suite -------------------------------------------------------------


def test_wrappers_go_around_it(aggregators, reply, record):
    values = [0.010, 0.011, 0.012, 0.013, 50.0]
    messages = [reply({"w": np.full(4, v), "n": np.array(3)}, node=i) for i, v in enumerate(values)]
    messages.append(reply({"w": np.full(4, np.inf), "n": np.array(3)}, node=9))
    sent = record({"w": np.zeros(4), "n": np.array(0)})
    clipped = NormClipping(Aggregator(aggregators.Average()), "median")
    arrays, metrics = aggregate(clipped, messages, sent)
    assert clipped.rounds[1]["clipped_nodes"] == [3, 4]
    assert invalid(clipped) == [9]
    assert (metrics["clipped"], metrics["invalid"]) == (2, 1)
    assert metrics["rule-failed"] == 0
    np.testing.assert_allclose(arrays["w"].numpy(), (0.010 + 0.011 + 3 * 0.012) / 5)
    noisy, metrics = aggregate(GaussianNoise(clipped, 1e-3, seed=1), messages, sent)
    noise = noisy["w"].numpy() - arrays["w"].numpy()
    assert 0 < np.abs(noise).max() < 1e-2
    assert metrics["noise-stddev"] == 1e-3
    assert noisy["n"] == arrays["n"] == record({"n": np.array(3)})["n"]


def test_a_round_that_keeps_the_model_adds_no_noise(reply, record):
    sent = record({"w": np.zeros(4)})
    messages = [reply({"w": np.ones(4)}, node=node) for node in range(3)]
    arrays, metrics = aggregate(GaussianNoise(Aggregator(fail), 1.0), messages, sent)
    assert arrays is sent
    assert metrics == {"rule-failed": 1, "invalid": 0}


def test_it_builds_from_yaml(reply, record):
    for rule in (
        {"_target_": "byzfl.aggregators.Median"},
        {"_target_": "numpy.median", "_partial_": True, "axis": 0},
    ):
        node = {"_target_": "strategies.Aggregator", "rule": rule, "min_train_nodes": 3}
        strategy = build("strategy", node)
        assert isinstance(strategy, Aggregator)
        assert strategy.min_train_nodes == 3
        messages = [reply({"w": np.full(2, v)}, node=i) for i, v in enumerate((1.0, 2.0, 9.0))]
        arrays, _ = aggregate(strategy, messages, record({"w": np.zeros(2)}))
        assert arrays == record({"w": np.full(2, 2.0)})
    around = {"_target_": "strategies.NormClipping", "strategy": node, "max_norm": "median"}
    assert isinstance(build("strategy", around).strategy, Aggregator)
    with pytest.raises(UserError, match="f must be a non-negative integer"):
        build("strategy", node | {"rule": {"_target_": "byzfl.aggregators.Krum", "f": -1}})


@pytest.mark.parametrize("rule", [None, "median", 3, FedMedian, FedMedian(), np.zeros(3)])
def test_a_rule_must_be_callable_and_no_class(rule):
    with pytest.raises(ValueError, match="rule = "):
        Aggregator(rule)


def test_the_summary_names_the_rule(caplog):
    with caplog.at_level("INFO", "flwr"):
        Aggregator(median).summary()
    assert "Aggregator: rule <function median" in caplog.text
