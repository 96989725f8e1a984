"""The wrapper around any Flower strategy, alone and through whole trainings."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, GaussianNoise, NormClipping, Screened, Sniper

from .conftest import unavailable

FLOWERS = {
    "FedAvg": FlowerFedAvg,
    "Krum": lambda: Krum(num_malicious_nodes=1),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    "Bulyan": lambda: Bulyan(num_malicious_nodes=1),
    "FedMedian": FedMedian,
    "FedTrimmedAvg": lambda: FedTrimmedAvg(beta=0.2),
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": FedAdam,
}


pytestmark = pytest.mark.usefixtures("no_collection")


@pytest.mark.parametrize("name", FLOWERS)
@settings(max_examples=10)
@given(
    models=npst.arrays(np.float32, (7, 4), elements={"min_value": -9, "max_value": 9}, unique=True),
    counts=st.lists(st.integers(1, 99), min_size=7, max_size=7),
    weighted=st.booleans(),
)
def test_honest_replies_are_aggregated_as_flower_does(
    name, models, counts, weighted, reply, record
):
    def replies(count_of):
        rows = sorted(zip(models, counts, strict=True), key=lambda row: row[0].tobytes())
        return [
            reply({"w": row}, node=i, metrics={"num-examples": count_of(count), "loss": row[0]})
            for i, (row, count) in enumerate(rows)
        ]

    models = models.astype(np.float64)
    sent, grid = record({"w": np.zeros(4)}), LocalGrid(None, 7)
    alone, screened = FLOWERS[name](), Screened(FLOWERS[name](), weighted=weighted)
    alone.configure_train(1, sent, ConfigRecord(), grid)
    screened.configure_train(1, sent, ConfigRecord(), grid)
    expected, their_metrics = alone.aggregate_train(
        1, replies(float if weighted else lambda _: 1.0)
    )
    arrays, metrics = screened.aggregate_train(1, replies(float))
    assert arrays == expected
    assert metrics == {**their_metrics, "invalid": 0}


# --- Whole trainings ------------------------------------------------------------------------

TRAININGS = {
    "ours": FedAvg,
    "Sniper": Sniper,
    **{
        f"Screened({name})": lambda build=build: Screened(build())
        for name, build in FLOWERS.items()
    },
    **{
        f"NormClipping({name})": lambda build=build: NormClipping(build(), 100.0)
        for name, build in FLOWERS.items()
    },
    "weak DP of Sniper": lambda: GaussianNoise(NormClipping(Sniper(), "median"), 1e-9, seed=1),
    "weak DP of Krum": lambda: GaussianNoise(NormClipping(Krum(1), 100.0), 0.0),
    "clipped noise": lambda: NormClipping(GaussianNoise(Screened(FedAdam()), 1e-9), "median"),
}
INITIAL = {
    "w": np.zeros(3, np.float32),
    "wide": np.ones(2),
    "half": np.ones((), np.float16),
    "steps": np.array(0),
    "mask": np.array([True, False]),
}


def client_app() -> ClientApp:
    """Partition 0 sends an extra metric, 1 raises; the others add one to every number."""
    app = ClientApp()

    def answer(message: Message, context: Context, arrays: bool) -> Message:
        client = context.node_config["partition-id"]
        if client == 1:
            raise ValueError("no data\nWARNING: forged")
        metrics = {"num-examples": 5 + client, "loss": 0.5}
        if client == 0:
            metrics["extra"] = 1.0
        content = RecordDict({"metrics": MetricRecord(metrics)})
        if arrays:
            content["arrays"] = ArrayRecord(
                {
                    key: Array(np.asarray(array.numpy() + np.ones((), array.dtype)))
                    for key, array in message.content["arrays"].items()
                }
            )
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, arrays=True)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(message, context, arrays=False)

    return app


@pytest.mark.parametrize("name", TRAININGS)
def test_training_goes_on_despite_hostile_clients(name, record, caplog):
    evaluated = []
    strategy = TRAININGS[name]()
    with caplog.at_level("INFO", "flwr"):
        result = strategy.start(
            grid=LocalGrid(client_app(), 9),
            initial_arrays=record(INITIAL),
            num_rounds=3,
            evaluate_fn=lambda server_round, arrays: evaluated.append((server_round, arrays)),
        )
    assert [server_round for server_round, _ in evaluated] == [0, 1, 2, 3]
    assert [m["invalid"] for m in result.train_metrics_clientapp.values()] == [2] * 3
    assert [report["invalid_nodes"] for report in strategy.rounds.values()] == [[1, 2]] * 3
    assert [m["loss"] for m in result.evaluate_metrics_clientapp.values()] == [
        pytest.approx(0.5)
    ] * 3
    assert result.arrays == evaluated[-1][1]
    for key, start in INITIAL.items():
        found = result.arrays[key].numpy()
        assert (found.dtype, found.shape) == (start.dtype, start.shape)
        if "Adam" not in name and "noise" not in name and key != "mask":
            np.testing.assert_allclose(found, start + 3, rtol=5e-3 if key == "half" else 1e-6)
    assert not (result.arrays["w"].numpy() == 0).any()  # a model that is left alone stays 0
    assert "Dropped the reply of node 2" in caplog.text
    assert "\nWARNING: forged" not in caplog.text


# --- What it guards against -----------------------------------------------------------------


class Rule(Strategy):
    """A strategy that aggregates as it is told."""

    def __init__(self, aggregate, asked=0):
        self.aggregate = aggregate
        self.asked = asked

    def configure_train(self, server_round, arrays, config, grid):
        return [Message(RecordDict(), node, "train") for node in range(self.asked)]

    def aggregate_train(self, server_round, replies):
        return self.aggregate(list(replies))

    def configure_evaluate(self, server_round, arrays, config, grid):
        return []

    def aggregate_evaluate(self, server_round, replies):
        return None

    def summary(self):
        pass


def rounds(strategy, sent, messages):
    strategy.configure_train(1, sent, ConfigRecord(), None)
    return strategy.aggregate_train(1, messages)


def fail(replies):
    raise ValueError("too few\nWARNING: forged")


@pytest.mark.parametrize("wrap", [Screened, lambda rule: GaussianNoise(Screened(rule), 1.0)])
def test_a_failing_rule_keeps_the_model_if_replies_were_dropped(wrap, reply, record, caplog):
    sent = record({"w": np.zeros(2)})
    messages = [reply({"w": np.ones(2)}, node=1), reply({"w": np.full(2, np.nan)}, node=2)]
    with caplog.at_level("WARNING", "flwr"):
        strategy = wrap(Rule(fail))
        arrays, metrics = rounds(strategy, sent, messages)
    assert arrays is sent
    assert metrics == {"invalid": 1, "cannot-act": 1}
    assert strategy.rounds[1]["invalid_nodes"] == [2]
    assert "too few" in caplog.text
    assert "\nWARNING: forged" not in caplog.text
    with pytest.raises(ValueError, match="too few"):
        rounds(wrap(Rule(fail)), sent, messages[:1])


@pytest.mark.parametrize("gone", [[], ["unavailable"]])
def test_a_failing_rule_keeps_the_model_if_a_node_is_gone(gone, reply, record, train_message):
    """It did not answer in time, or the SuperLink says so."""
    sent = record({"w": np.zeros(2)})
    strategy = Screened(Rule(fail, asked=2))
    strategy.configure_train(1, sent, ConfigRecord(), None)
    messages = [reply({"w": np.ones(2)}, node=1), *(unavailable(train_message(sent)) for _ in gone)]
    arrays, metrics = strategy.aggregate_train(1, messages)
    assert arrays is sent
    assert metrics == {"invalid": 0, "cannot-act": 1}


def test_bulyan_with_too_few_replies_keeps_the_model(reply, record):
    sent = record({"w": np.zeros(2)})
    strategy = Screened(Bulyan(num_malicious_nodes=1))
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 7))
    arrays, metrics = strategy.aggregate_train(
        1, [reply({"w": np.ones(2)}, node=node) for node in range(6)]
    )
    assert arrays is sent
    assert metrics == {"invalid": 0, "cannot-act": 1}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_aggregate_that_overflowed_is_refused(value, reply, record, caplog):
    sent = record({"w": np.zeros(2, np.float32), "n": np.array(1)})
    bad = record({"w": np.array([0.0, value]), "n": np.array(2.0)})
    arrays, _ = rounds(
        Screened(Rule(lambda _: (bad, None))),
        sent,
        [reply({"w": np.ones(2, np.float32), "n": np.array(1)})],
    )
    assert arrays is sent
    assert "the aggregate is not finite" in caplog.text


@pytest.mark.parametrize("rule", [FedMedian, Bulyan, FedTrimmedAvg])
def test_rules_that_empty_their_replies_empty_copies(rule, reply, record):
    sent = record({"w": np.zeros(2)})
    messages = [reply({"w": np.ones(2)}, node=node) for node in range(3)]
    for weighted in (False, True):
        strategy = Screened(rule(), weighted=weighted)
        strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 3))
        for _ in range(2):
            arrays, _ = strategy.aggregate_train(1, messages)
            assert arrays == messages[0].content["arrays"] == record({"w": np.ones(2)})


def test_the_wrapped_strategy_sees_one_vote_each(reply, record):
    seen = []

    def look(replies):
        seen.append([message.content["metrics"]["num-examples"] for message in replies])
        return None, None

    messages = [reply({"w": np.ones(2)}, node=n, metrics={"num-examples": n}) for n in (1, 2)]
    sent = record({"w": np.zeros(2)})
    rounds(Screened(Rule(look)), sent, messages)
    rounds(Screened(Rule(look), weighted=True), sent, messages)
    rounds(Screened(Screened(Rule(look), weighted=True)), sent, messages)
    assert seen == [[1.0, 1.0], [1, 2], [1.0, 1.0]]
    assert [message.content["metrics"]["num-examples"] for message in messages] == [1, 2]


def test_settings_of_the_wrapped_strategy_pass_through(record, caplog):
    inner = FedProx(proximal_mu=0.25, weighted_by_key="images", fraction_evaluate=0.5)
    strategy = Screened(Screened(inner))
    assert strategy.weighted_by_key == "images"
    grid, sent = LocalGrid(None, 4), record({"w": np.zeros(2)})
    messages = list(strategy.configure_train(3, sent, ConfigRecord(), grid))
    assert len(messages) == 4
    assert messages[0].content["config"] == {"server-round": 3, "proximal-mu": 0.25}
    assert len(list(strategy.configure_evaluate(3, sent, ConfigRecord(), grid))) == 2
    with caplog.at_level("INFO", "flwr"):
        strategy.summary()
    assert "Screened around FedProx" in caplog.text
    assert "Proximal mu: 0.25" in caplog.text


@pytest.mark.parametrize("value", [None, "Krum", Krum, 3])
def test_only_strategies_can_be_wrapped(value):
    for build in (Screened, lambda v: NormClipping(v, 1.0), lambda v: GaussianNoise(v, 1.0)):
        with pytest.raises(ValueError, match="strategy = "):
            build(value)


@pytest.mark.parametrize("name", ["num_nodes", "num-nodes", "nodes", "votes"])
def test_clients_may_name_a_metric_as_ids_are_named(name, reply, record):
    for strategy in (Screened(FlowerFedAvg()), NormClipping(FlowerFedAvg(), 1.0)):
        sent, grid = record({"w": np.zeros(4)}), LocalGrid(None, 3)
        list(strategy.configure_train(1, sent, ConfigRecord(), grid))
        metrics = {"num-examples": 1, name: 3.0}
        replies = [reply({"w": np.ones(4)}, node=i, metrics=metrics) for i in range(3)]
        arrays, told = strategy.aggregate_train(1, replies)
        assert arrays is not None
        assert told[name] == 3.0
        assert strategy.rounds[1]["nodes"] == [0, 1, 2]
