"""BatchNorm's statistics and counters are averaged, and never judged, clipped or noised."""

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import (
    Bulyan,
    FedAvg,
    GaussianNoise,
    Krum,
    Median,
    MultiKrum,
    NormClipping,
    Screened,
    Sniper,
)

HONEST, ATTACKER = 6, 99
SENT = {
    "fc.weight": np.zeros((2, 2), np.float32),
    "bn.running_mean": np.zeros(40, np.float32),
    "bn.running_var": np.ones(40, np.float32),
    "bn.num_batches_tracked": np.array(0),
}


def models(seed, renamed=None):
    """Honest models that differ in their statistics most; the attacker's differs in its weights."""
    rng = np.random.default_rng(seed)
    found = {
        node: {
            "fc.weight": (0.1 + 0.01 * rng.standard_normal((2, 2))).astype(np.float32),
            "bn.running_mean": (100 * rng.standard_normal(40)).astype(np.float32),
            "bn.running_var": rng.uniform(0, 1000, 40).astype(np.float32),
            "bn.num_batches_tracked": np.array(10 * node),
        }
        for node in range(1, HONEST + 1)
    }
    found[ATTACKER] = {
        **SENT,
        "fc.weight": np.full((2, 2), -2, np.float32),
        "bn.num_batches_tracked": np.array(10**6),
    }
    return {node: rename(model, renamed or {}) for node, model in found.items()}


def rename(model, names):
    return {names.get(name, name): array for name, array in model.items()}


KERAS = {"bn.running_mean": "bn/moving_mean", "bn.running_var": "bn/moving_variance"}
NAMES = {"pytorch": ({}, ()), "keras": (KERAS, ("*moving_*",)), "exact": (KERAS, KERAS.values())}


def aggregate(strategy, clients, sent, reply, record):
    strategy.configure_train(1, record(sent), ConfigRecord(), LocalGrid(None, len(clients)))
    arrays, _ = strategy.aggregate_train(1, [reply(m, node=n) for n, m in clients.items()])
    return {name: array.numpy() for name, array in arrays.items()}, strategy.rounds[1]


def check_averaged(arrays, clients, nodes):
    """Statistics and counters are the mean of those of some nodes."""
    for name in arrays:
        if name != "fc.weight":
            rows = np.array([clients[node][name] for node in nodes], np.float64)
            mean = rows.mean(axis=0)
            tolerance = 0.5 if arrays[name].dtype.kind == "i" else 1e-6 * np.abs(rows).max()
            np.testing.assert_allclose(arrays[name], mean, atol=tolerance)


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("max_norm", ["median", 0.5])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_clipping_looks_at_parameters_only(names, max_norm, seed, reply, record):
    renamed, statistics = NAMES[names]
    clients = models(seed, renamed)
    strategy = NormClipping(FedAvg(), max_norm, statistics=statistics)
    arrays, report = aggregate(strategy, clients, rename(SENT, renamed), reply, record)
    norms = {node: np.linalg.norm(model["fc.weight"]) for node, model in clients.items()}
    assert report["update_norms"] == pytest.approx([norms[n] for n in report["nodes"]], rel=1e-6)
    assert ATTACKER in report["clipped_nodes"]  # twenty times as long as the others
    assert report["clipping_norm"] <= 0.5
    assert np.linalg.norm(arrays["fc.weight"]) <= 0.5
    check_averaged(arrays, clients, clients)  # the attacker's too: clipping drops nobody


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    ("build", "kept"),
    [
        (Sniper, HONEST),
        (lambda **options: MultiKrum(1, HONEST, **options), HONEST),
        (lambda **options: MultiKrum(1, 3, **options), 3),
        (lambda **options: Krum(1, **options), 1),
        (lambda **options: NormClipping(Sniper(), 1.5, **options), HONEST),
        (lambda **options: GaussianNoise(Krum(1), 1e-3, **options), 1),
    ],
    ids=["Sniper", "MultiKrum", "three", "Krum", "clipped Sniper", "noisy Krum"],
)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_distances_ignore_them_and_the_dropped_do_not_average(
    names, build, kept, seed, reply, record
):
    renamed, statistics = NAMES[names]
    clients = models(seed, renamed)
    strategy = build(statistics=statistics)
    arrays, report = aggregate(strategy, clients, rename(SENT, renamed), reply, record)
    assert ATTACKER not in report["kept_nodes"]
    assert len(report["kept_nodes"]) == kept
    check_averaged(arrays, clients, report["kept_nodes"])


def test_an_infinite_statistic_of_nobody_kept_is_nobodys_business(reply, record):
    clients = models(0)
    clients[ATTACKER]["bn.running_var"] = np.full(40, 3e38, np.float32)
    arrays, _ = aggregate(Sniper(), clients, SENT, reply, record)
    assert arrays["bn.running_var"].max() < 1000


# --- Names that nobody knows ------------------------------------------------------------------

ACT = {
    "Sniper": Sniper,
    "Median": Median,
    "Bulyan": lambda **options: Bulyan(1, **options),
    "NormClipping": lambda **options: NormClipping(FedAvg(), 1.0, **options),
    "nested": lambda **options: GaussianNoise(NormClipping(Sniper(), "median"), 1.0, **options),
}
LISTED = {"0": np.zeros((3, 2)), "1": np.zeros(2), "2": np.full(2, 1e-3)}


def warnings_of(strategy, sent, record, caplog, rounds=(1, 2)):
    caplog.clear()
    for server_round in rounds:
        strategy.configure_train(server_round, record(sent), ConfigRecord(), LocalGrid(None, 2))
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize("name", ACT)
def test_a_model_that_may_have_unnamed_statistics_is_warned_of_once(name, record, caplog):
    keras = rename(SENT, KERAS)
    for sent, names in (
        (keras, "'bn/moving_mean', 'bn/moving_variance'"),
        (LISTED, "'2'"),
        ({"batch_stats/mean": np.zeros(2)}, "'batch_stats/mean'"),
    ):
        (line,) = warnings_of(ACT[name](), sent, record, caplog)
        assert f": {names} may be moving averages: name those that are in statistics=" in line
    for sent, statistics in ((keras, "*moving*"), (LISTED, ["2"]), (SENT, ()), (SENT, "none")):
        assert not warnings_of(ACT[name](statistics=statistics), sent, record, caplog)
    assert not warnings_of(ACT[name](), {"0": np.zeros((3, 2)), "1": np.zeros(2)}, record, caplog)


def test_what_only_averages_warns_of_nothing(record, caplog):
    for build in (FedAvg, lambda: Screened(FedAvg())):
        assert not warnings_of(build(), LISTED, record, caplog)


def test_a_named_variance_gets_no_noise(reply, record):
    """A moving variance of a list of arrays, as Keras' get_weights gives it."""
    sent = {"0": np.ones(1000, np.float32), "1": np.full(1000, 1e-3, np.float32)}
    strategy = GaussianNoise(FedAvg(), 0.001, seed=0, statistics=["1"])
    arrays, _ = aggregate(strategy, {1: sent, 2: sent}, sent, reply, record)
    np.testing.assert_array_equal(arrays["1"], sent["1"])
    assert not np.array_equal(arrays["0"], sent["0"])
