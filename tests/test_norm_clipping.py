"""Norm clipping of Sun et al. 2019: against byzfl, and around other defenses."""

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import FedMedian, Krum
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, NormClipping, Sniper
from strategies.clipping import clip
from strategies.graph.distances import distances_from

quick = settings(max_examples=50)
models = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.just(3)),
    elements={"min_value": -100, "max_value": 100},
)
centers = npst.arrays(np.float64, 3, elements={"min_value": -100, "max_value": 100})


def clipped(models, center, max_norm):
    models = models.copy()
    clip(models, center, distances_from(center, models), max_norm)
    return models


@pytest.fixture(scope="module")
def byzfl_clipping(byzfl):
    return byzfl("aggregators.preaggregators").Clipping


@quick
@given(models=models, center=centers, max_norm=st.floats(1e-3, 1e3))
def test_clipping_is_byzfls_around_the_global_model(models, center, max_norm, byzfl_clipping):
    updates = byzfl_clipping(max_norm)(models - center)
    np.testing.assert_allclose(clipped(models, center, max_norm), center + updates, atol=1e-10)


@quick
@given(models=models, center=centers, max_norm=st.floats(0, 1e3))
@example(models=np.zeros((2, 3)), center=np.zeros(3), max_norm=0.0)
@example(models=np.ones((2, 3)), center=np.zeros(3), max_norm=5e-324)
def test_clipped_updates_are_short_and_keep_their_direction(models, center, max_norm):
    updates = clipped(models, center, max_norm) - center
    before = models - center
    norms = np.linalg.norm(before, axis=1)
    assert (np.linalg.norm(updates, axis=1) <= max_norm * (1 + 1e-12) + 1e-12).all()
    expected = before * np.minimum(1, max_norm / np.maximum(norms, 1e-300))[:, None]
    np.testing.assert_allclose(updates, expected, atol=1e-11)


@quick
@given(models=models, center=centers)
def test_an_immense_bound_is_the_identity(models, center, reply, record):
    np.testing.assert_allclose(clipped(models, center, 1e300), models, atol=1e-12)
    messages = [reply({"w": row}, node=i) for i, row in enumerate(models)]
    sent = record({"w": center})
    plain, _ = aggregate(FedAvg(), messages, sent)
    strategy = NormClipping(FedAvg(), 1e300)
    arrays, metrics = aggregate(strategy, messages, sent)
    assert arrays == plain
    assert metrics["clipped"] == 0
    assert strategy.rounds[1]["clipped_nodes"] == []


def aggregate(strategy, messages, sent):
    grid = LocalGrid(None, max(2, len(messages)))
    strategy.configure_train(1, sent, ConfigRecord(), grid)
    return strategy.aggregate_train(1, messages)


class Spy(FlowerFedAvg):
    def aggregate_train(self, server_round, replies):
        self.replies = {message.metadata.src_node_id: message for message in replies}
        return super().aggregate_train(server_round, self.replies.values())


@quick
@given(
    scales=st.lists(st.floats(0, 50, width=32), min_size=1, max_size=7),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    max_norm=st.sampled_from(["median", 0.5, 3.0]),
)
@example(scales=[0.0, 0.0, 0.0, 9.0], dtype=np.float32, max_norm="median")
def test_replies_within_the_bound_pass_bit_for_bit(scales, dtype, max_norm, reply, record):
    sent = {"w": np.linspace(-1, 1, 4).astype(dtype), "n": np.array(3), "b": np.array(2, dtype)}
    messages = [
        reply({"w": sent["w"] + dtype(scale), "n": np.array(node), "b": sent["b"]}, node=node)
        for node, scale in enumerate(scales)
    ]
    spy = Spy()
    strategy = NormClipping(spy, max_norm)
    arrays, metrics = aggregate(strategy, messages, record(sent))
    report = strategy.rounds[1]
    if max_norm == "median" and len(scales) == 1:  # whose norm would bound itself
        assert metrics["cannot-act"] == 1
        assert arrays == record(sent)
        return

    wide = sent["w"].astype(np.float64)
    norms = {
        n: np.linalg.norm(m.content["arrays"]["w"].numpy() - wide) for n, m in enumerate(messages)
    }
    bound = np.median(list(norms.values())) if max_norm == "median" else max_norm
    assert metrics["clipping-norm"] == pytest.approx(bound)
    assert report["update_norms"] == pytest.approx([norms[node] for node in report["nodes"]])
    assert report["clipped_nodes"] == [n for n in norms if norms[n] > metrics["clipping-norm"]]
    assert metrics["clipped"] == len(report["clipped_nodes"])
    for node, message in enumerate(messages):
        before, after = message.content["arrays"], spy.replies[node].content["arrays"]
        assert after["n"] == before["n"]
        assert {k: (a.dtype, a.shape) for k, a in after.items()} == {
            k: (a.dtype, a.shape) for k, a in before.items()
        }
        if node not in report["clipped_nodes"]:
            assert after == before
        else:
            norm = np.linalg.norm(after["w"].numpy() - wide)
            rounding = float(np.finfo(dtype).eps) * (np.linalg.norm(wide) + bound)
            assert norm <= bound * (1 + 1e-6) + 2 * rounding


def test_fewer_than_half_the_clients_cannot_raise_the_median(reply, record):
    rng = np.random.default_rng(1)
    honest = [reply({"w": 0.1 * rng.standard_normal(4)}, node=node) for node in range(4)]
    norms = [np.linalg.norm(message.content["arrays"]["w"].numpy()) for message in honest]
    attackers = [reply({"w": np.full(4, 1e9)}, node=node) for node in (7, 8, 9)]
    strategy = NormClipping(FedAvg(), "median")
    arrays, metrics = aggregate(strategy, honest + attackers, record({"w": np.zeros(4)}))
    assert metrics["clipping-norm"] <= max(norms)
    assert {7, 8, 9} <= set(strategy.rounds[1]["clipped_nodes"])
    assert np.linalg.norm(arrays["w"].numpy()) <= max(norms)


@pytest.mark.parametrize(
    "build", [Sniper, lambda: Krum(num_malicious_nodes=1), FedMedian], ids=["Sniper", "Krum", "Med"]
)
def test_it_wraps_other_defenses(build, reply, record):
    """A boosted update is clipped first; what is left decides what the inner defense sees."""
    values = [0.010, 0.011, 0.012, 0.013, 50.0]
    messages = [reply({"w": np.full(4, v)}, node=i) for i, v in enumerate(values)]
    strategy = NormClipping(build(), 0.024)
    arrays, _ = aggregate(strategy, messages, record({"w": np.zeros(4)}))
    assert strategy.rounds[1]["clipped_nodes"] == [3, 4]
    assert (arrays["w"].numpy() <= 0.0121).all()
    if build is Sniper:  # the attacker is now as near as the others
        assert strategy.rounds[1]["kept_nodes"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), "mean", "1", None, True, [1.0], ("median",)]
)
def test_the_bound_is_validated(value):
    with pytest.raises(ValueError, match="max_norm = ") as error:
        NormClipping(FedAvg(), value)
    assert repr(value) in str(error.value)


def test_aggregation_without_a_round_is_refused(reply):
    with pytest.raises(RuntimeError, match="configure_train must run"):
        NormClipping(FedAvg(), 1.0).aggregate_train(1, [reply({"w": np.zeros(2)})])
