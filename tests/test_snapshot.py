"""What Flower's strategies remember comes back: the next round gives the same bits."""

import functools
import json
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import load, save

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, GaussianNoise, NormClipping, Screened
from strategies.snapshot import restore, snapshot

pytestmark = pytest.mark.usefixtures("no_collection")

CLIENTS = 4


class Own(FlowerFedAvg):
    """A counter, arrays by client, draws, and whatever else people keep."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.last = {}
        self.draws = np.random.default_rng(3)
        self.seen = set()
        self.best = None
        self.losses = defaultdict(list)
        self.head = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.zeros_(self.head.weight)
        self.optimizer = torch.optim.SGD(self.head.parameters(), 0.1, momentum=0.9)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.calls += 1
        self.best = metrics
        for message in replies:
            node = message.metadata.src_node_id
            now = message.content["arrays"]["w"].numpy()
            self.last[node] = now - self.last.get(node, 0)
            self.seen.add((node, self.calls))
            self.losses[node].append(float(now[0]))
        self.head.weight.grad = torch.full((1, 2), float(self.calls))
        self.optimizer.step()
        new = arrays["w"].numpy() + self.draws.standard_normal(4) / self.calls
        new += sum(self.last.values()) + len(self.seen) + sum(map(sum, self.losses.values()))
        new += self.head.weight.detach().numpy()[0, 0]
        return ArrayRecord({**arrays, "w": Array(new.astype(np.float32))}), metrics


def dp(kind, inner):
    adaptive = getattr(flowers, f"DifferentialPrivacy{kind}SideAdaptiveClipping")
    return adaptive(inner, 0.0, CLIENTS, clipped_count_stddev=0.0)


BUILDS = {
    "FedAvgM": lambda: flowers.FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    "FedAdam": flowers.FedAdam,
    "FedYogi": flowers.FedYogi,
    "FedAdagrad": flowers.FedAdagrad,
    "DP server": lambda: dp("Server", FlowerFedAvg()),
    "DP client": lambda: dp("Client", FlowerFedAvg()),
    "QFedAvg": lambda: flowers.QFedAvg(client_learning_rate=0.1, train_loss_key="loss"),
    "FedXgbBagging": flowers.FedXgbBagging,
    "FedXgbCyclic": flowers.FedXgbCyclic,
    "own": Own,
}
NESTED = {
    "clipped": lambda: NormClipping(dp("Server", flowers.FedAdam()), "median"),
    "noisy": lambda: GaussianNoise(Screened(BUILDS["FedAvgM"]()), 0.01, seed=4),
    "twice": lambda: NormClipping(GaussianNoise(Own(), 0.01, seed=1), 1.0),
    "ours inside": lambda: Screened(NormClipping(flowers.FedYogi(), 1.0)),
}
ALL = {name: lambda b=build: Screened(b()) for name, build in BUILDS.items()} | NESTED


def booster(trees):
    model = {
        "gbtree_model_param": {"num_trees": str(len(trees)), "num_parallel_tree": "1"},
        "iteration_indptr": list(range(len(trees) + 1)),
        "trees": [{"id": i, "leaf": leaf} for i, leaf in enumerate(trees)],
        "tree_info": [0] * len(trees),
    }
    content = json.dumps({"learner": {"gradient_booster": {"model": model}}})
    return ArrayRecord([np.frombuffer(content.encode(), np.uint8)])


def trained(name, arrays, node, server_round):
    """Return what a client makes of a model: another thing in every round."""
    rng = np.random.default_rng([node, server_round])
    if name == "FedXgbBagging":
        return booster([node + server_round])
    if name == "FedXgbCyclic":
        return ArrayRecord([np.append(arrays["0"].numpy(), np.uint8(node))])
    return ArrayRecord(
        {
            key: Array(np.asarray(array.numpy() + rng.normal(0, 0.1, array.shape), array.dtype))
            for key, array in arrays.items()
        }
    )


def play(name, strategy, arrays, rounds, reply):
    """Return the model after some rounds, and who was asked."""
    asked = []
    for server_round in rounds:
        messages = strategy.configure_train(
            server_round, arrays, ConfigRecord(), LocalGrid(None, CLIENTS)
        )
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            model = trained(name, message.content["arrays"], node, server_round)
            replies.append(
                reply(model, node=node, metrics={"norm_bit": int(node > 1), "loss": 0.5})
            )
            asked.append(node)
        arrays, _ = strategy.aggregate_train(server_round, replies)
    return arrays, sorted(asked)


def kept(memory):
    """Save and load, as a run does."""
    return load(save({name: np.asarray(array, order="C") for name, array in memory.items()}))


@pytest.mark.parametrize("name", ALL)
def test_the_third_round_gives_the_same_bits(name, reply):
    initial = ArrayRecord({"w": Array(np.linspace(-1, 1, 4, dtype=np.float32))})
    if "Xgb" in name:
        initial = ArrayRecord([np.zeros(0, np.uint8)])
    strategy = ALL[name]()
    after_two, _ = play(name, strategy, initial, (1, 2), reply)
    memory = kept(strategy.remember())
    expected = play(name, strategy, after_two, (3,), reply)
    after_three = snapshot_bits(strategy)

    resumed = ALL[name]()
    resumed.remind(memory)
    assert snapshot_bits(resumed) == {n: (a.dtype, a.tobytes()) for n, a in memory.items()}
    assert play(name, resumed, after_two, (3,), reply) == expected
    assert snapshot_bits(resumed) == after_three

    forgetful = ALL[name]()
    if name in ("QFedAvg", "FedXgbBagging"):  # they remember what they are told in each round
        return
    other = play(name, forgetful, after_two, (3,), reply)
    assert other != expected or snapshot_bits(forgetful) != after_three


def snapshot_bits(strategy):
    return {n: (a.dtype, np.asarray(a).tobytes()) for n, a in strategy.remember().items()}


# --- Any attribute ----------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
arrays = npst.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
)
keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))
values = st.recursive(
    plain | arrays | st.binary(max_size=4) | arrays.filter(np.size).map(lambda a: a.flat[0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
        | st.frozensets(st.text(max_size=2), max_size=3)
    ),
    max_leaves=8,
)


def same(found, value):
    """Compare types and bits, NaN included."""
    assert type(found) is type(value)
    if isinstance(value, np.ndarray | np.generic):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()
    elif isinstance(value, dict):
        assert list(found) == list(value)
        for key in value:
            same(found[key], value[key])
    elif isinstance(value, list | tuple):
        assert len(found) == len(value)
        for one, other in zip(found, value, strict=True):
            same(one, other)
    elif isinstance(value, set | frozenset):
        assert found == value
    else:
        assert repr(found) == repr(value)


@settings(max_examples=100)
@given(value=values)
def test_data_come_back_as_they_were(value):
    strategy, fresh = FlowerFedAvg(), FlowerFedAvg()
    strategy.state = value
    restore(fresh, kept(snapshot(strategy)))
    same(fresh.state, value)


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_generators_go_on(kind):
    strategy, fresh = FlowerFedAvg(), FlowerFedAvg()
    strategy.draws = {n: np.random.Generator(getattr(np.random, kind)(n)) for n in (1, 2)}
    strategy.draws[2].standard_normal(7)
    restore(fresh, kept(snapshot(strategy)))
    for number, draws in strategy.draws.items():
        np.testing.assert_array_equal(fresh.draws[number].random(5), draws.random(5))


class Rule:
    """A callable that remembers."""

    def __init__(self):
        self.total = 0.0

    def __call__(self, values):
        self.total += float(np.sum(values))


def filled(strategy):
    """Give a strategy attributes of kinds of their own; return what is to come back."""
    strategy.rule = Rule()
    strategy.rules = [Rule(), np.mean]
    strategy.others = {"adam": flowers.FedAdam(), "f": np.median}
    strategy.ordered = OrderedDict()
    strategy.counter = Counter()
    strategy.record = None
    strategy.records = []
    strategy.path = Path("here")
    strategy.partial = functools.partial(np.mean, axis=0)
    strategy.module = np
    strategy.method = strategy.summary
    return strategy


def test_code_and_settings_are_the_new_ones_and_what_they_hold_comes_back():
    strategy, fresh = filled(FlowerFedAvg()), filled(FlowerFedAvg())
    strategy.rule([1, 2])
    strategy.rules[0]([5])
    strategy.others["adam"].m_t = {"w": np.ones(2)}
    strategy.ordered.update(b=1, a=2)
    strategy.counter.update("aab")
    strategy.record = MetricRecord({"loss": 0.5})
    strategy.records = [ConfigRecord({"a": "b"}), ArrayRecord([np.ones(2, np.float32)])]
    strategy.path = Path("there")
    rule, rules, partial = fresh.rule, list(fresh.rules), fresh.partial
    restore(fresh, kept(snapshot(strategy)))
    assert fresh.rule is rule
    assert rule.total == 3
    assert fresh.rules[0] is rules[0]
    assert rules[0].total == 5
    assert fresh.rules[1] is np.mean
    assert fresh.others["f"] is np.median
    np.testing.assert_array_equal(fresh.others["adam"].m_t["w"], [1, 1])
    assert (type(fresh.ordered), list(fresh.ordered)) == (OrderedDict, ["b", "a"])
    assert fresh.counter == Counter("aab")
    assert fresh.record == strategy.record
    assert fresh.records == strategy.records
    assert fresh.path == Path("here")
    assert fresh.partial is partial
    assert fresh.method.__self__ is fresh


Point = namedtuple("Point", "x y")
CANNOT = {
    "lock": (threading.Lock, "lock"),
    "file": (Path(__file__).open, "TextIOWrapper"),
    "deque": (deque, "deque"),
    "point": (lambda: Point(1, 2), "Point"),
    "objects": (lambda: np.array([{}]), "ndarray"),
    "generator": (lambda: iter(range(3)), "range_iterator"),
}


@pytest.mark.parametrize("name", CANNOT)
@pytest.mark.parametrize("inside", [False, True])
def test_what_cannot_be_kept_is_named(name, inside):
    build, kind = CANNOT[name]
    value, strategy = build(), FlowerFedAvg()
    strategy.held = [1, {"a": value}] if inside else value
    path = "FedAvg.held" + ("/1/0" if inside else "")
    for wrapped in (Screened(strategy), NormClipping(Screened(strategy), 1.0)):
        with pytest.raises(ValueError, match="which cannot be kept") as error:
            wrapped.remember()
        assert str(error.value).startswith(f"{path} is a {kind}, ")
    if hasattr(value, "close"):
        value.close()


def test_what_only_a_new_strategy_could_make_is_named():
    strategy = FlowerFedAvg()
    for value in (defaultdict(int), flowers.FedAdam(), [np.mean]):
        strategy.held = value
        with pytest.raises(ValueError, match=r"FedAvg\.held.* cannot be restored"):
            restore(FlowerFedAvg(), kept(snapshot(strategy)))


def test_ours_remember_their_memory_only():
    strategy = NormClipping(FedAvg(), 1.0)
    strategy.memory["history/3"] = np.ones(2)
    strategy.inner.memory["best"] = np.zeros(1)
    memory = strategy.remember()
    assert set(memory) == {"history/3", "inner/best"}
    fresh = NormClipping(FedAvg(), 1.0)
    fresh.remind(kept(memory))
    assert set(fresh.memory) == {"history/3"}
    assert set(fresh.inner.memory) == {"best"}
