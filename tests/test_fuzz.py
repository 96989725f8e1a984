"""A thousand seeded hostile replies, and hundreds of hostile answers in split learning.

Where `test_replies` names each kind of reply, these are drawn: kinds, places and values, several
kinds in one reply. ``pytest -m exhaustive tests/test_fuzz.py`` does it again with nine other seeds.
"""

import math
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from safetensors.numpy import save

from fl_backdoor.federation.engines import LocalGrid
from strategies import Aggregator, FedAvg, GaussianNoise, NormClipping, Screened, Sniper
from strategies.vertical import ActiveParty, Party, ProtocolError, enrol

from .conftest import make_reply, to_record
from .test_active_party import CLASSES, Wire, labels_of, parties, top
from .test_enrolment import ROWS, answer
from .test_enrolment import grid as enrolment_grid
from .test_replies import MODEL, flower_log, npy, raw, saved, trained
from .test_with_flower import FLOWERS

STRATEGIES: dict[str, Callable[[], Any]] = {
    "FedAvg": FedAvg,
    "Sniper": Sniper,
    "NormClipping": lambda: NormClipping(FedAvg(), "median"),
    "GaussianNoise": lambda: GaussianNoise(FedAvg(), stddev=0.01, seed=3),
    "median": lambda: Aggregator(lambda models: np.median(models, axis=0)),
    **{name: lambda build=build: Screened(build()) for name, build in FLOWERS.items()},
}
HONEST = 7
REPLIES = math.ceil(1000 / len(STRATEGIES))
DTYPES = ["<f2", "<f4", "<f8", ">f4", ">f8", "<i4", "<i8", "<u2", "?", "<c8", "S3", "<U2", "M8[s]"]
FLOATS = [name for name, array in MODEL.items() if array.dtype.kind == "f" and array.size]


class Bomb:
    """Tells when somebody unpickles it."""

    exploded = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Bomb.explode, ()

    @staticmethod
    def explode() -> int:
        Bomb.exploded += 1
        return 0


class Draft:
    """A reply in the making, as honest as its node until it is garbled."""

    def __init__(self, node: int, draw: random.Random) -> None:
        self.node, self.draw = node, draw
        self.arrays = {name: Array(array) for name, array in trained(node).items()}
        self.metrics: dict[str, Any] = {"num-examples": 10, "loss": 0.5}
        self.records = {"arrays": 1, "metrics": 1}
        self.message_type = "train"
        self.error = ""

    def message(self) -> Message:
        content = RecordDict()
        metrics = MetricRecord()
        metrics.__dict__["_data"].update(self.metrics)  # a hostile client's sends anything
        for kind, record in (("arrays", ArrayRecord(self.arrays)), ("metrics", metrics)):
            for number in range(self.records[kind]):
                content[f"{kind}{number or ''}"] = record
        reply = make_reply(None, node=self.node, message_type=self.message_type)
        reply = Message(content=content, metadata=reply.metadata)
        if self.error:
            return Message(Error(self.draw.randrange(300), self.error), metadata=reply.metadata)
        reply.metadata.__dict__["_reply_to_message_id"] = f"message to {self.node}"
        return reply


def text(draw: random.Random) -> str:
    return "".join(chr(draw.choice([10, 27, 0x202E, draw.randrange(32, 0xD800)])) for _ in range(9))


def values(draft: Draft) -> None:
    name = draft.draw.choice(FLOATS)
    array = draft.arrays[name].numpy().copy()
    worst = [math.nan, math.inf, -math.inf] + [1e200, -1e300] * (array.dtype == np.float64)
    if draft.draw.randrange(3) == 0:  # more than the model's own precision holds
        array, worst = (
            array.astype(np.float64),
            [1e39, -1e139, 1e200][array.dtype.itemsize // 8 * 2 :],
        )
    for _ in range(draft.draw.randint(1, 3)):
        array.flat[draft.draw.randrange(array.size)] = draft.draw.choice(worst)
    draft.arrays[name] = Array(array)


def dtype(draft: Draft) -> None:
    name = draft.draw.choice(sorted(MODEL))
    own = MODEL[name].dtype  # floats of any precision are alike
    kinds = [d for d in DTYPES if (np.dtype(d).kind != "f" if own.kind == "f" else d != own)]
    other = draft.draw.choice(kinds)
    draft.arrays[name] = Array(np.zeros(MODEL[name].shape, other))


def shape(draft: Draft) -> None:
    name = draft.draw.choice(sorted(MODEL))
    other = MODEL[name].shape
    while other == MODEL[name].shape:
        other = tuple(draft.draw.randrange(5) for _ in range(draft.draw.randrange(5)))
    draft.arrays[name] = Array(np.ones(other, MODEL[name].dtype))


def missing(draft: Draft) -> None:
    for name in draft.draw.sample(sorted(draft.arrays), draft.draw.randint(1, len(draft.arrays))):
        del draft.arrays[name]


def extra(draft: Draft) -> None:
    draft.arrays[text(draft.draw)] = Array(np.zeros(draft.draw.randrange(4), np.float32))


def renamed(draft: Draft) -> None:
    name = draft.draw.choice(sorted(draft.arrays))
    draft.arrays[text(draft.draw)] = draft.arrays.pop(name)


def oversized(draft: Draft) -> None:
    size = 10 ** draft.draw.randint(4, 6)
    draft.arrays[draft.draw.choice(sorted(MODEL))] = Array(np.zeros(size, np.float32))


def giant(draft: Draft) -> None:
    """Write a file that promises more than any memory, and may say so in its record as well."""
    sides = tuple(10 ** draft.draw.randint(5, 60) for _ in range(draft.draw.randint(1, 4)))
    declared = draft.draw.choice([sides, (3, 2), (-1, 2), (10**6,) * 3])
    draft.arrays["weight"] = raw(npy(repr(sides)), shape=declared)


def garbage(draft: Draft) -> None:
    whole = draft.arrays["weight"].data
    content = draft.draw.choice(
        [
            draft.draw.randbytes(draft.draw.randrange(300)),
            whole[: draft.draw.randrange(len(whole))],
            whole + draft.draw.randbytes(draft.draw.randint(1, 9)),
            bytes([whole[0] ^ draft.draw.randint(1, 255)]) + whole[1:],
            whole[:6] + draft.draw.randbytes(100),
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(50),
            npy(text(draft.draw).encode("ascii", "replace").decode()),
        ]
    )
    draft.arrays["weight"] = raw(content)


def pickled(draft: Draft) -> None:
    bombs = np.array([Bomb()] * 6, dtype=object).reshape(3, 2)
    content = draft.draw.choice([saved(bombs, allow_pickle=True), pickle.dumps(Bomb())])
    dtype, stype = draft.draw.choice(["object", "float32", "|O"]), draft.draw.choice("ab")
    stype = "numpy.ndarray" if stype == "a" else "pickle"
    draft.arrays["weight"] = raw(content, dtype, stype=stype)


def examples(draft: Draft) -> None:
    lies = [0, -1, -(10**30), 10**12, 10**400, 0.0, -0.5, 1e300, math.nan, math.inf, -math.inf]
    lies += [True, False, "10", text(draft.draw), [10], [1, 2], [], None, b"10", {}]
    draft.metrics["num-examples"] = draft.draw.choice(lies)


def metrics(draft: Draft) -> None:
    lies = [math.nan, -math.inf, 10**400, [0.5, math.nan], [0.5, 0.5], "0.5", None]
    draft.draw.choice(
        [
            lambda: draft.metrics.update(loss=draft.draw.choice(lies)),
            lambda: draft.metrics.update({text(draft.draw): draft.draw.random()}),
            lambda: draft.metrics.update({text(draft.draw): draft.metrics.pop("loss", 0.5)}),
            draft.metrics.clear,
        ]
    )()


def records(draft: Draft) -> None:
    draft.records[draft.draw.choice(["arrays", "metrics"])] = draft.draw.choice([0, 2, 3])


def empty(draft: Draft) -> None:
    for part in draft.draw.choice([("arrays",), ("metrics",), ("arrays", "metrics")]):
        getattr(draft, part).clear()


def wrong_type(draft: Draft) -> None:
    draft.message_type = draft.draw.choice(["evaluate", "query", "query.train", "evaluate.train"])


def error(draft: Draft) -> None:
    draft.error = text(draft.draw) * draft.draw.choice([1, 100])


GARBLINGS = [
    values, dtype, shape, missing, extra, renamed, oversized, giant, garbage, pickled, examples,
    metrics, records, empty, wrong_type, error,
]  # fmt: skip


# What comes on top cannot undo what was garbled before.
ON_TOP = [extra, examples, metrics, records, empty, wrong_type, error]


def hostile(node: int, draw: random.Random) -> Message:
    draft = Draft(node, draw)
    draw.choice(GARBLINGS)(draft)
    for garbling in draw.sample(ON_TOP, draw.choice([0, 0, 1, 2])):
        garbling(draft)
    return draft.message()


def honest(node: int, draw: random.Random) -> Message:
    """One reply in three holds denormals."""
    draft = Draft(node, draw)
    if draw.randrange(3) == 0:
        name = draw.choice(FLOATS)
        array = draft.arrays[name].numpy().copy()
        smallest = np.finfo(array.dtype).smallest_subnormal
        array.flat[draw.randrange(array.size)] = smallest * draw.randint(-9, 9)
        draft.arrays[name] = Array(array)
    return draft.message()


def rounds(draw: random.Random, replies: int) -> Iterator[tuple[list[Message], list[Message]]]:
    """Draw honest replies and 1 to 6 hostile ones, until there were so many hostile ones."""
    while replies:
        count = min(replies, draw.randint(1, HONEST - 1))
        replies -= count
        good = [honest(node, draw) for node in range(1, HONEST + 1)]
        bad = [hostile(100 + number, draw) for number in range(count)]
        if draw.randrange(4) == 0:  # a reply that comes twice is one hostile reply
            bad[-1] = draw.choice(good)
        yield good, bad


def aggregated(
    build: Callable[[], Any], replies: list[Message], asked: int
) -> tuple[ArrayRecord, list[int]]:
    strategy = build()
    strategy.configure_train(1, to_record(MODEL), ConfigRecord(), LocalGrid(None, asked))  # type: ignore[arg-type]
    arrays, metrics = strategy.aggregate_train(1, replies)
    invalid: list[int] = strategy.rounds[1]["invalid_nodes"]
    assert metrics["invalid"] == len(invalid)
    return arrays, invalid


def bits(arrays: ArrayRecord) -> list[tuple[Any, ...]]:
    return [(name, a.dtype, tuple(a.shape), a.data) for name, a in arrays.items()]


def fuzz_replies(name: str, seed: int, replies: int = REPLIES) -> int:
    """Return how many hostile replies were without effect, all if it returns."""
    draw, count = random.Random(f"{name} {seed}"), 0
    for good, bad in rounds(draw, replies):
        asked = len({reply.metadata.src_node_id for reply in (*good, *bad)})
        alone, _ = aggregated(STRATEGIES[name], good, asked)
        mixed = draw.sample([*good, *bad], len(good) + len(bad))
        with flower_log() as lines:
            arrays, invalid = aggregated(STRATEGIES[name], mixed, asked)
        assert bits(arrays) == bits(alone)
        assert invalid == sorted(m.metadata.src_node_id for m in bad)
        assert all(line.isprintable() and len(line) < 400 for line in lines)
        count += len(bad)
    assert not Bomb.exploded
    return count


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("name", STRATEGIES)
def test_drawn_replies_have_no_effect(name: str) -> None:
    assert fuzz_replies(name, 0) == REPLIES


def test_a_reply_sent_many_times_takes_no_majority_away() -> None:
    """Sniper's majority is one of the clients asked; each is one, however often it answers."""
    draw = random.Random(5)
    good = [honest(node, draw) for node in range(1, HONEST + 1)]
    alone, _ = aggregated(Sniper, good, HONEST + 1)
    with flower_log():
        arrays, invalid = aggregated(Sniper, [*good, *20 * [hostile(100, draw)]], HONEST + 1)
    assert bits(arrays) == bits(alone)
    assert invalid == [100]


def anything(draw: random.Random) -> Any:
    """Draw a value that a ConfigRecord takes."""
    odd = [0, 1, -1, 2**63 - 1, 0.5, math.nan, math.inf, True, "", text(draw), b"", b"\0" * 12]
    odd += [draw.randbytes(48), np.float32([draw.uniform(-1, 1)] * 12).tobytes(), [1, 2], [0.5]]
    return draw.choice(odd)


def odd_array(draw: random.Random) -> Array:
    size = tuple(draw.randrange(4) for _ in range(draw.randrange(4)))
    kind = draw.choice([*DTYPES, "<f16", "<i2", "<u8", "m8[s]", "V3", "<c16"])
    array = np.zeros(size, kind)
    content = saved(array)
    return draw.choice(
        [
            Array(array),
            raw(content, draw.choice(["float32", "int64", text(draw)]), size),
            raw(content[: draw.randrange(len(content))]),
            raw(draw.randbytes(99)),
            raw(npy(repr((10 ** draw.randint(5, 60),)))),
            raw(saved(np.array([Bomb()], object), allow_pickle=True), "object", (1,)),
            raw(content, stype="pickle"),
        ]
    )


def odd_content(draw: random.Random) -> RecordDict:
    """Draw records under the names that the protocol has, of any kind and content."""
    content = RecordDict()
    names = ["batch", "model", "memory", "enrolment", "config", text(draw)]
    keys = ["activations", "weight", "layers.0.weight", "g_rec", *answer(0), text(draw)]
    for name in draw.sample(names, draw.randrange(4)):
        chosen = draw.sample(keys, draw.randrange(4))
        kind = draw.randrange(3)
        if kind == 0:
            content[name] = ArrayRecord({key: odd_array(draw) for key in chosen})
        elif kind == 1:
            content[name] = MetricRecord(
                {key: draw.choice([0, -1, 0.5, math.nan, [1.0, math.inf]]) for key in chosen}
            )
        else:
            content[name] = ConfigRecord({key: anything(draw) for key in chosen})
    return content


def odd_answer(draw: random.Random) -> Callable[[Message, Message], Message | None]:
    """Draw an answer of party 1: another one, the honest one spoilt, an error, or silence."""

    def spoil(message: Message, reply: Message) -> Message | None:
        match draw.randrange(8):
            case 0:
                return None
            case 1:
                return Message(Error(draw.randrange(300), text(draw) * 99), reply_to=message)
            case 2:
                raise draw.choice([RuntimeError, KeyError, MemoryError])(text(draw) * 99)
            case 3 | 4:
                return Message(odd_content(draw), reply_to=message)
        content = RecordDict(dict(reply.content))
        batch = content.get("batch")
        if isinstance(batch, ConfigRecord) and "activations" in batch:
            sent = bytearray(batch["activations"])  # type: ignore[arg-type]
            for _ in range(draw.randint(1, 4)):
                sent[draw.randrange(len(sent))] = draw.randrange(256)
            cut = draw.choice([len(sent), draw.randrange(len(sent))])
            value = bytes(sent[:cut]) if draw.randrange(3) else anything(draw)
            content["batch"] = ConfigRecord({"activations": value})
        elif isinstance(model := content.get("model"), ArrayRecord):
            arrays = dict(model)
            name = draw.choice([*arrays, text(draw)])
            content["model"] = ArrayRecord(arrays | {name: odd_array(draw)})
        return Message(content, reply_to=message)

    return spoil


PLACES = [("train.begin", 0), ("train", 0), ("train", 2), ("train", 3), ("train", 5)]
PLACES += [("evaluate", 0), ("query.checkpoint", 0)]
ANSWERS = 50


def refused(act: Callable[[], Any]) -> bool:
    """Tell whether a ProtocolError, one short line, was the end; any other exception is a fault."""
    said = ""
    try:
        act()
    except ProtocolError as error:
        said = str(error) or "\n"
    assert said.isprintable()
    assert len(said) < 400
    return bool(said)


def fuzz_party(kind: str, number: int, seed: int, answers: int = ANSWERS) -> int:
    """Return how many of party 1's odd answers were refused; the others were valid."""
    draw = random.Random(f"{kind} {number} {seed}")

    def train() -> None:
        grid = Wire(parties(11), kind, number, odd_answer(draw))
        active = ActiveParty(
            top("dense"), labels_of(11), parties=[Party(1, CLASSES), Party(2, CLASSES)],
            batch_size=4, timeout=7,
        )  # fmt: skip
        active.begin(grid)
        for epoch in (1, 2):
            report = active.train_epoch(grid, epoch)
            assert all(math.isfinite(v) for said in report.reports.values() for v in said.values())
        assert active.predict(grid, torch.arange(6)).shape == (6, CLASSES)
        # What is accepted can be kept, and names no other's part.
        whole = active.checkpoint(grid)
        save({name: np.asarray(array.numpy(), order="C") for name, array in whole.items()})
        assert {name.partition(".")[0] for name in whole} <= {"top", "party0", "party1"}

    total = sum(refused(train) for _ in range(answers))
    print(f"{kind} {number}, seed {seed}: {total} of {answers} refused")
    assert not Bomb.exploded
    return total


def fuzz_enrolment(seed: int, answers: int = 150) -> int:
    """Return how many of a party's odd enrolments were refused; the others were valid."""
    draw = random.Random(f"enrolment {seed}")

    def join() -> None:
        def reply(message: Message) -> Message:
            content = odd_content(draw)
            if draw.randrange(3):
                own = answer(1) | {draw.choice(list(answer(1))): anything(draw)}
                content["enrolment"] = ConfigRecord(own)
            return Message(content, reply_to=message)

        found = enrol(enrolment_grid([answer(0), reply]), 2, ROWS, timeout=1)
        assert [party.node for party in found] == [1, 2]
        assert found[0].outputs == 4
        assert 1 <= found[1].outputs <= 2**16

    total = sum(refused(join) for _ in range(answers))
    print(f"enrolment, seed {seed}: {total} of {answers} refused")
    return total


@pytest.mark.parametrize(("kind", "number"), PLACES)
def test_drawn_answers_of_a_party_are_valid_or_one_line(kind: str, number: int) -> None:
    assert 0 < fuzz_party(kind, number, 0) <= ANSWERS


def test_drawn_enrolments_are_valid_or_one_line() -> None:
    assert 75 < fuzz_enrolment(0) <= 150


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("seed", range(1, 10))
def test_nine_more_seeds(seed: int) -> None:
    assert [fuzz_replies(name, seed) for name in STRATEGIES] == [REPLIES] * len(STRATEGIES)
    for kind, number in PLACES:
        assert 0 < fuzz_party(kind, number, seed) <= ANSWERS
    assert 75 < fuzz_enrolment(seed) <= 150
