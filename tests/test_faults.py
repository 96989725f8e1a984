"""Apps whose replies, models or strategies are not the plain case: averaged, or one clear line."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as FixedClipping
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import FedXgbCyclic
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, GaussianNoise, Krum, Median, NormClipping, Screened, Sniper

from .conftest import grid_of_calls
from .test_replies import STRATEGIES

pytestmark = pytest.mark.usefixtures("no_collection")


def plus_one(arrays, node):
    return ArrayRecord({n: Array(np.asarray(a.numpy() + 1, a.dtype)) for n, a in arrays.items()})


def run(strategy, initial, train=plus_one, rounds=1, **options):
    grid = grid_of_calls(train, **options)
    arrays = initial if isinstance(initial, ArrayRecord) else ArrayRecord(initial)
    return strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds)


def zeros(*names):
    return ArrayRecord({name: Array(np.zeros(2, np.float32)) for name in names or ("w",)})


OURS = {
    "FedAvg": FedAvg,
    "Sniper": Sniper,
    "Screened": lambda: Screened(FlowerFedAvg()),
    "NormClipping": lambda: NormClipping(FedAvg(), 100.0),
    "Median": Median,
    "Krum": lambda: Krum(0),
}
ours = pytest.mark.parametrize("name", OURS)


# --- Replies that are not the model that was sent ---------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
@ours
def test_replies_in_another_precision_are_averaged(name, dtype):
    def train(arrays, node):
        return ArrayRecord({n: Array((a.numpy() + 1).astype(dtype)) for n, a in arrays.items()})

    result = run(OURS[name](), zeros(), train, rounds=2)
    found = result.arrays["w"].numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [2, 2])


@pytest.mark.parametrize(("model", "value"), [("f2", 1e5), ("f4", 1e39), ("f4", -1e100)])
@ours
def test_a_value_that_the_model_cannot_hold_is_dropped(name, model, value, reply):
    """The average would not be finite, in every round."""
    strategy, sent = OURS[name](), ArrayRecord({"w": Array(np.zeros(2, model))})
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 4))
    messages = [reply({"w": np.ones(2, model)}, node=node) for node in (1, 2, 3)]
    messages.append(reply({"w": np.array([0, value])}, node=4))
    arrays, _ = strategy.aggregate_train(1, messages)
    assert strategy.rounds[1]["invalid_nodes"] == [4]
    np.testing.assert_array_equal(arrays["w"].numpy(), np.ones(2, model))


@ours
def test_a_part_of_the_model_is_averaged_and_the_rest_stays(name):
    def train(arrays, node):
        return ArrayRecord({"body": Array(arrays["body"].numpy() + np.float32(node / 10))})

    arrays = run(OURS[name](), zeros("head", "body"), train).arrays
    assert list(arrays) == ["head", "body"]
    assert arrays["head"] == zeros()["w"]
    assert 0.09 < arrays["body"].numpy()[0] < 0.31


def test_an_odd_part_is_no_majority(reply):
    strategy, whole = FedAvg(), {"a": np.ones(2), "b": np.ones(2)}
    sent = ArrayRecord({name: Array(np.zeros(2)) for name in whole})
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 3))
    part = reply({"a": np.full(2, 9.0)}, node=3)
    for messages in ([reply(whole, node=1), part], [part, reply(whole, node=1)]):
        arrays, _ = strategy.aggregate_train(1, messages)
        assert strategy.rounds[1]["invalid_nodes"] == [3]
        np.testing.assert_array_equal(arrays["a"].numpy(), np.ones(2))


@pytest.mark.parametrize("name", [name for name in OURS if name not in ("NormClipping", "Krum")])
def test_an_empty_initial_model_is_the_clients(name):
    result = run(OURS[name](), {}, lambda arrays, node: plus_one(arrays or zeros(), node), rounds=2)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), [2, 2])


@settings(max_examples=20)
@given(dtypes=st.lists(st.sampled_from(["f2", "f4", "f8"]), min_size=1, max_size=7))
def test_without_a_model_the_precision_is_that_of_most(dtypes, reply):
    strategy = FedAvg()
    messages = [reply({"w": np.ones(2, dtype)}, node=i) for i, dtype in enumerate(dtypes)]
    arrays, _ = strategy.aggregate_train(1, messages)
    counts = sorted({dtype: dtypes.count(dtype) for dtype in dtypes}.items(), key=lambda c: -c[1])
    if len(counts) == 1 or counts[0][1] > counts[1][1]:
        assert arrays["w"].numpy().dtype == counts[0][0]
    else:
        assert arrays is None


class Scaffold(FlowerFedAvg):
    """Average a second record as well, as SCAFFOLD does its control variates."""

    def aggregate_train(self, server_round, replies):
        contents = [message.content for message in replies]
        self.control = np.mean([c["control"]["w"].numpy() for c in contents], axis=0)
        mean = np.mean([c["arrays"]["w"].numpy() for c in contents], axis=0)
        return ArrayRecord({"w": Array(mean)}), MetricRecord()


def with_control(arrays, node):
    trained = plus_one(arrays, node)
    return {"control": ArrayRecord({"w": Array(np.full(2, node))}), "arrays": trained}


@pytest.mark.parametrize("wrap", [Screened, lambda s: NormClipping(s, 1.0)])
def test_a_second_record_reaches_the_strategy_that_wants_it(wrap):
    inner = Scaffold()
    arrays = run(wrap(inner), zeros(), with_control).arrays
    expected = np.float32(1 if wrap is Screened else 2**-0.5)
    np.testing.assert_allclose(arrays["w"].numpy(), [expected] * 2, rtol=1e-6)
    np.testing.assert_array_equal(inner.control, [2, 2])


def test_a_second_record_that_nobody_reads_is_refused():
    with pytest.raises(RuntimeError, match="FedAvg: no reply of any round was valid"):
        run(FedAvg(), zeros(), with_control)


# --- What cannot be averaged ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FedAvg", "Sniper", "Screened", "NormClipping"])
def test_what_all_clients_alike_cannot_send_ends_the_first_round(name):
    def train(arrays, node):
        return ArrayRecord({"w": Array(np.zeros(3, np.float32)), "x": Array(np.zeros(1))})

    with pytest.raises(ValueError, match="cannot average: all clients sent") as error:
        run(OURS[name](), zeros(), train)
    said = str(error.value)
    assert said == (
        f"{type(OURS[name]()).__name__} cannot average: all clients sent 'w' (float (3,)), "
        "'x' (float (1,)); the strategy sent 'w' (float (2,))"
    )


def test_one_client_cannot_end_the_first_round(reply, caplog):
    """That all others failed does not make it all clients."""
    strategy, sent = FedAvg(), zeros()
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 3))
    messages = [reply({"w": np.full(2, np.nan)}, node=node) for node in (1, 2)]
    arrays, _ = strategy.aggregate_train(1, [*messages, reply({"w": np.zeros(3)}, node=3)])
    assert arrays is sent
    assert strategy.rounds[1]["invalid_nodes"] == [1, 2, 3]
    assert sum(line.startswith("Dropped the reply of node ") for line in caplog.messages) == 3


def test_in_later_rounds_it_is_one_line_and_the_model_stays(caplog):
    rounds = {0: 0}

    def train(arrays, node):
        rounds[0] += 1
        return plus_one(arrays if rounds[0] <= 3 else {"x": arrays["w"]}, node)

    strategy = FedAvg()
    result = run(strategy, zeros(), train, rounds=3)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), [1, 1])
    assert [len(report["nodes"]) for report in strategy.rounds.values()] == [3, 0, 0]
    dropped = [m for m in caplog.messages if m.startswith("Dropped")]
    assert dropped == 2 * [
        "Dropped all replies: all clients sent 'x' (float (2,)); the strategy sent 'w' (float (2,))"
    ]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_without_one_valid_reply_is_no_success(name):
    def train(arrays, node):
        return ArrayRecord({n: Array(a.numpy() * np.float32(np.nan)) for n, a in arrays.items()})

    with pytest.raises(RuntimeError, match="no reply of any round was valid"):
        run(STRATEGIES[name](), zeros(), train, rounds=2)


def grown(arrays, node):
    return ArrayRecord([np.append(arrays["0"].numpy(), np.uint8(7))])


def test_models_that_grow_pass():
    for strategy in (FedXgbCyclic(), Screened(FedXgbCyclic()), Screened(Screened(FedXgbCyclic()))):
        result = run(strategy, [np.zeros(0, np.uint8)], grown, rounds=3)
        np.testing.assert_array_equal(result.arrays["0"].numpy(), [7, 7, 7])


@pytest.mark.parametrize(
    "build",
    [Sniper, Median, lambda: NormClipping(FedXgbCyclic(), 1.0), lambda: GaussianNoise(Sniper(), 1)],
)
def test_models_that_grow_are_refused_in_the_first_round_by_rules_on_parameters(build):
    with pytest.raises(ValueError, match=r"cannot (average|act on)") as error:
        run(build(), [np.zeros(0, np.uint8)], grown, rounds=3)
    assert str(error.value).isprintable()


# --- Strategies of an app ---------------------------------------------------------------------


class CustomFedAvg(FlowerFedAvg):
    """Save what comes out, as Flower's advanced-pytorch does."""

    path = ""
    saved = ()

    def set_save_path(self, path):
        self.path = path

    def start(self, *arguments, **options):
        result = super().start(*arguments, **options)
        self.saved = (*self.saved, (self.path, result.arrays))
        return result


@pytest.mark.parametrize(
    "wrap",
    [
        Screened,
        lambda s: NormClipping(s, "median"),
        lambda s: GaussianNoise(NormClipping(Screened(s), 1.0), 0.0),
    ],
)
def test_a_start_of_its_own_runs_and_attributes_are_its_own(wrap):
    inner = CustomFedAvg()
    strategy = wrap(inner)
    strategy.set_save_path("x")
    assert strategy.path == inner.path == "x"
    strategy.path = "y"
    assert inner.path == "y"
    strategy.fraction_evaluate = 0.0
    assert inner.fraction_evaluate == 0.0
    strategy.note = "of the wrapper's"
    assert not hasattr(inner, "note")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = strategy.nothing
    result = run(strategy, zeros())
    assert inner.saved == (("y", result.arrays),)
    assert strategy.saved is inner.saved
    assert strategy.rounds[1]["invalid_nodes"] == []  # it went through ours
    if not isinstance(strategy, Screened):
        assert len(strategy.rounds[1]["update_norms"]) == 3
    assert "aggregate_train" not in vars(inner)  # and nothing of ours stays behind


@pytest.mark.parametrize(
    "wrap", [Screened, lambda s: NormClipping(s, 100.0), lambda s: Screened(Screened(s))]
)
def test_the_key_of_the_examples_is_the_innermosts(wrap):
    strategy = wrap(FixedClipping(FlowerFedAvg(weighted_by_key="n"), 0.0, 100.0, 3))
    assert strategy.weighted_by_key == "n"
    arrays = run(strategy, zeros(), key="n").arrays
    np.testing.assert_allclose(arrays["w"].numpy(), [1, 1])


@pytest.mark.parametrize("name", STRATEGIES)
def test_metrics_are_numbers(name):
    """What logs or formats every metric of a round finds numbers, with bad replies and without."""

    def train(arrays, node):
        value = np.float32(np.nan if node == 7 else node / 100)
        return ArrayRecord({n: Array(a.numpy() + value) for n, a in arrays.items()})

    strategy = STRATEGIES[name]()
    result = run(strategy, zeros(), train, rounds=2, num_nodes=8)
    for metrics in result.train_metrics_clientapp.values():
        assert [f"{key} {value:.3f}" for key, value in metrics.items()]
        assert metrics["invalid"] == 1
    assert all(report["invalid_nodes"] == [7] for report in strategy.rounds.values())
