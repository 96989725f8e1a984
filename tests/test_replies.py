"""Whatever a client sends: it is dropped, named and without effect, whichever the strategy."""

import gc
import io
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
)
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, GaussianNoise, NormClipping, Screened, Sniper
from strategies.replies import screen
from strategies.vectors import Layout, decode, decoded, is_floating, to_array

from .conftest import to_record, unavailable

quick = settings(max_examples=8)

STRATEGIES = {
    "FedAvg": FedAvg,
    "weighted FedAvg": lambda: FedAvg(weighted=True),
    "Sniper": Sniper,
    "Flower's FedAvg": lambda: Screened(FlowerFedAvg()),
    "weighted Flower's FedAvg": lambda: Screened(FlowerFedAvg(), weighted=True),
    "Krum": lambda: Screened(Krum(num_malicious_nodes=1)),
    "MultiKrum": lambda: Screened(MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3)),
    "Bulyan": lambda: Screened(Bulyan(num_malicious_nodes=1)),
    "FedMedian": lambda: Screened(FedMedian()),
    "FedTrimmedAvg": lambda: Screened(FedTrimmedAvg()),
    "FedProx": lambda: Screened(FedProx(proximal_mu=0.1)),
    "FedAdam": lambda: Screened(FedAdam()),
    "median clipping": lambda: NormClipping(FedAvg(), "median"),
    "clipping, then Krum": lambda: NormClipping(Krum(num_malicious_nodes=1), 0.01),
    "weak DP of Sniper": lambda: GaussianNoise(
        NormClipping(Sniper(), "median"), stddev=0.01, seed=3
    ),
    "nested in vain": lambda: Screened(Screened(Screened(FedMedian()))),
}

MODEL = {
    "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "scale": np.array([1.0, -2.0]),
    "temperature": np.float32(0.5).reshape(()),
    "half": np.ones(3, np.float16),
    "steps": np.array(7),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 4), np.float32),
}


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch) -> None:
    """Keep Flower's Bulyan from a garbage collection per reply, most of these tests' time."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def trained(seed: int) -> dict[str, np.ndarray]:
    """Arrays as an honest client sends them."""
    rng = np.random.default_rng(seed)
    moved = {
        name: np.asarray(array + 0.02 * rng.standard_normal(array.shape), array.dtype)
        for name, array in MODEL.items()
        if array.dtype.kind == "f"
    }
    return {**MODEL, **moved, "steps": np.array(8 + seed % 3)}


def npy(shape: str = "(3, 2)", descr: str = "'<f4'", data: bytes = bytes(24)) -> bytes:
    """Write a file as np.save does, with a header of one's own."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def saved(array: np.ndarray, **kwargs: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def raw(
    data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (3, 2), stype="numpy.ndarray"
) -> Array:
    return Array(dtype, shape, stype, data)


FOREIGN_ARRAYS: dict[str, object] = {
    "NaN": np.full((3, 2), np.nan, np.float32),
    "one inf": np.array([[0, 1], [np.inf, 0], [0, 0]], np.float32),
    "-inf": np.full((3, 2), -np.inf, np.float32),
    "other shape": np.zeros((2, 3), np.float32),
    "flat": np.zeros(6, np.float32),
    "empty": np.zeros((0, 2), np.float32),
    "a float64 beyond float32": np.full((3, 2), 1e39),
    "complex": np.zeros((3, 2), np.complex64),
    "integers": np.zeros((3, 2), np.int32),
    "text": np.full((3, 2), "0123456789\n"),
    "dates": np.zeros((3, 2), "M8[s]"),
    "fields": np.zeros((3, 2), [("a\nb", "f4")]),
    "garbage": raw(b"\x00garbage"),
    "no bytes": raw(b""),
    "truncated": raw(npy()[:-1]),
    "trailing bytes": raw(npy() + b"\x00"),
    "gigabytes promised": raw(npy("(99999, 99999)")),
    "more than memory promised": raw(npy("(" + "9" * 60 + ",)"), shape=(10**60,)),
    "whatever fits": raw(npy("(3, -1)")),
    "another shape in the header": raw(npy("(2, 3)")),
    "another dtype in the header": raw(npy(descr="'<i4'")),
    "another shape declared": raw(npy(), shape=(6,) * 10_000),
    "another dtype declared": raw(npy(), dtype="float64"),
    "no dtype at all": raw(npy(), dtype="f4\n" * 1000),
    "a header of Python 2": raw(npy("(3L, 2L)")),
    "code in the header": raw(npy("__import__('os').abort()")),
    "pickled objects": raw(saved(np.full((3, 2), {}), allow_pickle=True), dtype="object"),
    "a pickle": raw(pickle.dumps(MODEL["weight"])),
    "a zip file": raw(b"PK\x03\x04" + bytes(30)),
    "another serialization": raw(npy(), stype="pickle\n"),
}
FOREIGN_METRICS: dict[str, dict[str, object]] = {
    "no examples": {"num-examples": 0},
    "negative examples": {"num-examples": -10},
    "too many examples": {"num-examples": 10**12},
    "NaN examples": {"num-examples": float("nan")},
    "infinite examples": {"num-examples": float("inf")},
    "examples beyond float64": {"num-examples": 10**400},
    "a list of examples": {"num-examples": [10, 10]},
    "an extra metric": {"evil\n": 1.0},
    "our own metric": {"invalid": 1},
    "a list for a number": {"loss": [0.5, 0.5]},
    "NaN loss": {"loss": float("nan")},
    "a loss beyond float64": {"loss": -(10**400)},
    "inf in a list": {"loss": [0.5, float("inf")]},
}
FOREIGN_SCALES = {
    "square overflows": 1e200,
    "sum of squares overflows": -1e150,
    "-inf scale": -np.inf,
}
FOREIGN_MESSAGES = (
    "an error",
    "no content",
    "evaluate",
    "query",
    "a missing array",
    "an extra array",
    "a renamed array",
    "no ArrayRecord",
    "two ArrayRecords",
    "a renamed ArrayRecord",
    "no MetricRecord",
    "two MetricRecords",
    "a renamed MetricRecord",
    "a missing metric",
    "true examples",
)
HOSTILE = sorted({*FOREIGN_ARRAYS, *FOREIGN_METRICS, *FOREIGN_SCALES, *FOREIGN_MESSAGES})


def hostile(reply: Callable[..., Message], kind: str, node: int) -> Message:
    arrays = trained(node)
    if kind in FOREIGN_ARRAYS:
        bad = FOREIGN_ARRAYS[kind]
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        record["weight"] = bad if isinstance(bad, Array) else Array(bad)
        return reply(record, node=node)
    if kind in FOREIGN_METRICS:
        return reply(arrays, node=node, metrics=FOREIGN_METRICS[kind])
    if kind in FOREIGN_SCALES:
        return reply({**arrays, "scale": np.array([0, FOREIGN_SCALES[kind]])}, node=node)
    if kind == "a missing array":
        del arrays["scale"]
        return reply(arrays, node=node)
    if kind == "an extra array":
        return reply({**arrays, "extra\n": np.zeros(1)}, node=node)
    if kind == "a renamed array":
        return reply({name.upper(): array for name, array in arrays.items()}, node=node)
    message = reply(None if kind == "no ArrayRecord" else arrays, node=node)
    content, metadata = message.content, message.metadata
    if kind == "an error":
        return Message(Error(20, "first line\nWARNING: forged line"), metadata=metadata)
    if kind == "no content":
        message.__dict__["_content"] = None
    elif kind in ("evaluate", "query"):
        return reply(arrays, node=node, message_type=kind)
    elif kind == "two ArrayRecords":
        content["more"] = content["arrays"]
    elif kind == "a renamed ArrayRecord":
        content["more"] = content["arrays"]
        del content["arrays"]
    elif kind == "no MetricRecord":
        del content["metrics"]
    elif kind == "two MetricRecords":
        content["more"] = content["metrics"]
    elif kind == "a renamed MetricRecord":
        content["more"] = content["metrics"]
        del content["metrics"]
    elif kind == "a missing metric":
        del content["metrics"]["loss"]
    elif kind == "true examples":  # no MetricRecord takes it, but its dictionary does
        content["metrics"].__dict__["_data"]["num-examples"] = True
    return message


@contextmanager
def flower_log() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())
    logging.getLogger("flwr").addHandler(handler)
    yield lines
    logging.getLogger("flwr").removeHandler(handler)


def aggregate(
    build, messages: list[Message], record
) -> tuple[ArrayRecord, MetricRecord, list[int]]:
    """Return the model, the metrics and the nodes whose replies were dropped."""
    strategy = build()
    strategy.configure_train(1, record(MODEL), ConfigRecord(), LocalGrid(None, 7))
    arrays, metrics = strategy.aggregate_train(1, messages)
    invalid = strategy.rounds[1]["invalid_nodes"]
    assert metrics["invalid"] == len(invalid)
    return arrays, metrics, invalid


def snapshot(messages: list[Message]) -> list[object]:
    return [
        {name: dict(entry) for name, entry in message.content.items()}
        for message in messages
        if message.has_content()
    ]


@pytest.mark.parametrize("name", STRATEGIES)
@quick
@given(kinds=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=6), shuffle=st.randoms())
@example(kinds=HOSTILE[:6], shuffle=None)
def test_hostile_replies_have_no_effect(name, kinds, shuffle, reply, record):
    honest = [reply(trained(node), node=node) for node in range(1, 8)]
    alone, *_ = aggregate(STRATEGIES[name], honest, record)
    messages = honest + [hostile(reply, kind, 100 + i) for i, kind in enumerate(kinds)]
    if shuffle:
        shuffle.shuffle(messages)
    before = snapshot(messages)
    with flower_log() as lines:
        arrays, _, invalid = aggregate(STRATEGIES[name], messages, record)

    assert arrays == alone
    bad = list(range(100, 100 + len(kinds)))
    assert invalid == bad
    for node in bad:
        assert sum(line.startswith(f"Dropped the reply of node {node}: ") for line in lines) == 1
    assert all("\n" not in line and len(line) < 400 for line in lines)
    assert snapshot(messages) == before
    assert {key: (a.dtype, a.shape) for key, a in arrays.items()} == {
        key: (str(a.dtype), a.shape) for key, a in MODEL.items()
    }


@pytest.mark.parametrize("kind", HOSTILE)
def test_each_hostile_reply_is_dropped(kind, reply, record):
    screening = screen([hostile(reply, kind, 5)], record(MODEL), "num-examples")
    majority = screen(
        [reply(trained(i), node=i) for i in (1, 2)] + [hostile(reply, kind, 5)],
        record(MODEL),
        "num-examples",
    )
    assert list(majority.invalid) == [5]
    assert len(majority.valid) == 2
    # Alone, only another choice of records, metrics and arrays passes: nothing says it is wrong.
    passes = {"an extra metric", "our own metric", "a list for a number", "a missing metric"}
    passes |= {"a missing array"}
    passes |= {"a renamed ArrayRecord", "a renamed MetricRecord"}
    assert bool(screening.valid) == (kind in passes)


@pytest.mark.parametrize("name", STRATEGIES)
def test_hostile_replies_alone_keep_the_old_model(name, reply, record):
    kinds = ["NaN", "an error", "no content", "garbage", "negative examples"]
    messages = [hostile(reply, kind, node) for node, kind in enumerate(kinds)]
    with flower_log() as lines:
        arrays, metrics, invalid = aggregate(STRATEGIES[name], messages, record)
    assert arrays == record(MODEL)
    assert invalid == [0, 1, 2, 3, 4]
    assert metrics == {"invalid": 5}
    assert "Round 1 keeps the old global model" in lines


@pytest.mark.parametrize("name", STRATEGIES)
@quick
@given(
    kinds=st.lists(
        st.sampled_from([*FOREIGN_METRICS, "an error", "no content", "no MetricRecord"]),
        min_size=1,
        max_size=3,
    )
)
def test_hostile_evaluate_replies_have_no_effect(name, kinds, reply):
    def evaluated(message: Message) -> Message:
        message.metadata.__dict__["_message_type"] = "evaluate"
        return message

    honest = [
        reply(None, node=node, metrics={"loss": node / 8}, message_type="evaluate")
        for node in range(4)
    ]
    bad = [evaluated(hostile(reply, kind, 100 + i)) for i, kind in enumerate(kinds)]
    for message in bad:
        if message.has_content():
            message.content.pop("arrays")
    alone = STRATEGIES[name]().aggregate_evaluate(1, honest)
    with flower_log() as lines:
        metrics = STRATEGIES[name]().aggregate_evaluate(1, [*bad, *honest])
    assert metrics == alone == {"loss": 0.1875}
    assert sum(line.startswith("Dropped the evaluation of node 10") for line in lines) == len(bad)
    assert STRATEGIES[name]().aggregate_evaluate(1, []) is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_extreme_but_finite_replies_stop_nothing(name, reply, record):
    """Float32's largest and smallest numbers are numbers; two of nine send them."""
    largest, tiny = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    messages = [reply(trained(node), node=node) for node in range(1, 8)]
    for node, value in ((8, largest), (9, tiny)):
        weight = np.full((3, 2), value, np.float32)
        steps = np.array(np.iinfo(np.int64).max)
        messages.append(reply({**trained(node), "weight": weight, "steps": steps}, node=node))
    arrays, _, invalid = aggregate(STRATEGIES[name], messages, record)
    assert invalid == []
    assert all(np.isfinite(a.numpy()).all() for a in arrays.values())
    assert arrays["steps"].numpy() >= 0
    if any(word in name for word in ("rum", "Sniper", "Median", "Bulyan")):
        assert np.abs(arrays["weight"].numpy()).max() < 2


def test_names_of_duplicates_count_once(reply, record):
    messages = [
        reply(trained(1), node=1, request="a"),
        reply(trained(2), node=2, request="b"),
        reply(trained(3), node=2, request="b"),
        reply(trained(4), node=3, request="a"),
    ]
    screening = screen(messages, record(MODEL), "num-examples")
    assert sorted(reply.node for reply in screening.valid) == [1, 2]
    assert screening.invalid == dict.fromkeys((2, 3), "a second reply to the same message")


@quick
@given(seeds=st.lists(st.integers(0, 5), max_size=6), shuffle=st.randoms(use_true_random=False))
def test_order_depends_on_content_only(seeds, shuffle, reply, record):
    def contents(messages: list[Message]) -> list[dict[str, object]]:
        return snapshot([r.message for r in screen(messages, None, "num-examples").valid])

    messages = [reply(trained(seed), node=node) for node, seed in enumerate(seeds)]
    other = [reply(trained(seed), node=99 - node) for node, seed in enumerate(seeds)]
    for message in other:  # the order of keys is not content
        arrays = message.content["arrays"]
        message.content["arrays"] = ArrayRecord(dict(reversed(arrays.items())))
    shuffle.shuffle(other)
    assert contents(messages) == contents(other)


def test_majority_decides_the_structure_without_a_model(reply):
    messages = [reply({"w": np.zeros(size)}, node=size) for size in (3, 3, 2)]
    screening = screen(messages, None, "num-examples")
    assert list(screening.invalid) == [2]


@pytest.mark.parametrize("extra", ["a", "z"])
def test_in_a_tie_nobody_is_right(reply, record, extra):
    """The words that an attacker chooses decide nothing."""
    sent = record({"w": np.zeros(2)})
    strategy = FedAvg()
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, 2))
    honest = reply({"w": np.ones(2)}, node=1)
    hostile = reply({"w": np.full(2, 9.0)}, node=2, metrics={extra: 1.0})
    for messages in ([honest, hostile], [hostile, honest]):
        arrays, metrics = strategy.aggregate_train(1, messages)
        assert arrays is sent
        assert metrics == {"invalid": 2}
        assert strategy.rounds[1]["invalid_nodes"] == [1, 2]


real_arrays = npst.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_, ">f4"]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)


@settings(max_examples=60)
@given(real_arrays, st.sampled_from("CF"), st.sampled_from([(1, 0), (2, 0)]))
def test_decode_reads_what_numpy_writes(array, order, version):
    array = np.asarray(array, order=order)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    decoded = decode(raw(buffer.getvalue()))
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)
    assert not decoded.flags.writeable


@settings(max_examples=200)
@given(st.data())
def test_decode_accepts_only_what_flower_reads_alike(data):
    """Aggregation rules read the bytes with Flower: no file may mean two arrays."""
    content = bytearray(
        npy(
            data.draw(st.sampled_from(["(3, 2)", "(6,)", "()", "(-1,)", "(2, -1)", "(3, 2L)"])),
            data.draw(st.sampled_from(["'<f4'", "'|u1'", "'<f8'", "'|b1'", "[('a', '<f4')]"])),
        )
    )
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)
    ):
        content[position] = value
    array = raw(bytes(content[: data.draw(st.integers(100, len(content)))]))
    try:
        decoded = decode(array)
    except Exception:
        return
    np.testing.assert_array_equal(decoded, array.numpy())
    assert decoded.dtype == array.numpy().dtype


@settings(max_examples=60)
@given(st.lists(real_arrays, max_size=4), st.sets(st.integers(0, 3)))
def test_a_row_holds_a_models_floating_arrays(arrays, statistics):
    like = ArrayRecord({str(i): Array(array) for i, array in enumerate(arrays)})
    layout = Layout(like, [str(i) for i in statistics])
    floating = {name for name, array in like.items() if is_floating(array)}
    assert set(layout.shapes) == floating
    assert set(layout.counters) == set(like) - floating
    assert layout.size == sum(like[name].numpy().size for name in floating)
    row = np.empty(layout.size, layout.dtype)
    layout.fill(row, decoded(like))
    back = dict(layout.arrays(row[layout.parameters], row[layout.statistics]))
    for name in floating:
        assert (back[name].dtype, back[name].shape) == (like[name].dtype, like[name].shape)
        np.testing.assert_array_equal(back[name].numpy(), like[name].numpy())
        part = row[layout.columns(name)].reshape(like[name].shape)
        np.testing.assert_array_equal(part, like[name].numpy())
    # Parameters first, so that rules see a view of their columns.
    assert layout.parameters.start == 0
    assert layout.statistics == slice(layout.parameters.stop, layout.size)
    for name in floating:
        where = layout.statistics if int(name) in statistics else layout.parameters
        columns = layout.columns(name)
        assert where.start <= columns.start <= columns.stop <= where.stop
    assert set(layout.parameter_names) >= {
        n for n in floating if int(n) not in statistics and like[n].numpy().size
    }


@given(st.floats(0, 2.0**64), st.sampled_from([np.int64, np.uint64, np.int8, np.uint8, np.bool_]))
@example(2.0**63, np.int64)
@example(2.0**64, np.uint64)
def test_counters_are_rounded_and_never_wrap(value, dtype):
    dtype = np.dtype(dtype)
    largest = 1 if dtype.kind == "b" else np.iinfo(dtype).max
    counter = to_array(np.float64(value), dtype)
    assert (counter.dtype, counter.shape) == (str(dtype), ())
    found = int(counter.numpy())
    if value <= largest:
        assert abs(found - value) <= max(0.5, 2e-16 * value) or found >= largest * (1 - 2e-16)
    else:
        assert largest * (1 - 2e-16) <= found <= largest


def test_error_reasons_stay_on_one_short_line(reply, record):
    message = reply(trained(1))
    message = Message(Error(20, "a\n\x1b[31m" * 500), metadata=message.metadata)
    ((_, reason),) = screen([message], record(MODEL), "num-examples").invalid.items()
    assert reason.startswith("error reply (20): 'a\\n")
    assert len(reason) < 250
    assert reason.isprintable()


def test_nodes_that_are_gone_are_nobodys_invalid_reply(reply, train_message, caplog):
    """The SuperLink answers for them, and as itself: two that are gone, one name."""
    arrays = {"w": np.ones(2, np.float32)}
    gone = [unavailable(train_message(to_record(arrays))) for _ in range(2)]
    screening = screen([*gone, reply(arrays, node=1)], to_record(arrays), "num-examples")
    assert screening.invalid == {}
    assert len(screening.valid) == 1
    screening.report()
    assert len(caplog.messages) == len(screening.missing) == 2
    assert all(m.startswith("A node did not reply: error reply (5)") for m in caplog.messages)


def test_messages_stay_untouched_in_content(reply, record):
    message = reply(trained(1))
    content = RecordDict(dict(message.content))
    screen([message], record(MODEL), "num-examples")
    assert message.content == content
