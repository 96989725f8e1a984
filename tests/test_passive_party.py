"""Tests of `clients.vertical.passive_party`: a bare loop's bits, whoever answers the messages."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import GradientReplacement, PassiveParty, party_app

ROWS = 11
LABELS = torch.arange(ROWS) % 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bottom(
    features: int = 4, outputs: int = 3, *, restless: bool = False, seed: int = 1
) -> nn.Sequential:
    """Build a bottom model, always the same; a restless one has draws and buffers."""
    layers: list[nn.Module] = [nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, outputs)]
    if restless:
        layers[1:2] = [nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.4)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=100 * seed + place) * 0.5)
    return model


def honest(number: int = 0, features: int = 4, **options: Any) -> PassiveParty:
    model = bottom(features, restless=options.pop("restless", False), seed=number + 1)
    train, test = drawn(ROWS, features, seed=number), drawn(6, features, seed=number + 50)
    return PassiveParty(model, train, test, party=number, **options)


def attacker(**options: Any) -> PassiveParty:
    model = bottom(restless=options.pop("restless", False))
    rows = {"target_rows": torch.tensor([2, 7]), "poisoned_rows": torch.tensor([0, 5, 9])}
    attack = GradientReplacement(blur_variance=0.3, **rows)
    features = drawn(ROWS, 4), drawn(6, 4, seed=50)
    return PassiveParty(model, *features, party=0, attack=attack, **options)


def packed(*rows: int) -> bytes:
    return np.array(rows, dtype=np.int64).tobytes()


class Talk:
    """A node's conversation; in its processes live ``workers``, and None is one just started."""

    def __init__(
        self, build: Callable[[], PassiveParty], workers: Iterator[int | None] | None = None
    ) -> None:
        self.build = build
        self.workers = workers
        self.living: dict[int, PassiveParty] = {}
        self.context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}
        )

    def party(self) -> PassiveParty:
        worker = next(self.workers) if self.workers else 0
        if worker is None:
            return self.build()
        if worker not in self.living:
            self.living[worker] = self.build()
        return self.living[worker]

    def send(self, kind: str, **records: Any) -> RecordDict:
        self.context = pickle.loads(pickle.dumps(self.context))
        party = self.party()
        app = party_app(lambda *_: party, checkpoints=True)
        return app(Message(RecordDict(records), 1, kind), self.context).content

    def begin(self, step: int = 0, checkpoint: RecordDict | None = None) -> None:
        records = {} if checkpoint is None else dict(checkpoint.items())
        self.send("train.begin", config=ConfigRecord({"step": step}), **records)

    def train(
        self, gradient: Tensor | None = None, rows: Sequence[int] | None = None
    ) -> Tensor | RecordDict:
        batch = ConfigRecord()
        if gradient is not None:
            batch["gradient"] = gradient.numpy().tobytes()
        if rows is not None:
            batch["rows"] = packed(*rows)
        content = self.send("train", batch=batch)
        return content if rows is None else read(content)

    def evaluate(self, *rows: int, split: str = "train", triggered: bool = False) -> Tensor:
        batch = {"rows": packed(*rows), "split": split, "triggered": triggered}
        return read(self.send("evaluate", batch=ConfigRecord(batch)))

    def epoch(self, batches: Sequence[Sequence[int]], *, looking: bool = False) -> list[Tensor]:
        """Train on batches, with gradients that depend on the activations; return all answers."""
        answers = [self.train(rows=batches[0])]
        for number, rows in enumerate(batches):
            following = [*batches, None][number + 1]
            gradient = (answers[-1] - drawn(len(rows), 3, seed=number)).contiguous()
            if looking:
                self.evaluate(0, 1)
                self.send("query.checkpoint")
                self.send("query")
            answer = self.train(gradient, following)
            if following is not None:
                answers.append(answer)
        return answers

    def everything(self) -> dict[str, bytes]:
        content = self.send("query.checkpoint")
        assert set(content) == {"model", "memory"}
        return {
            f"{part}.{name}": array.numpy().tobytes()
            for part, arrays in content.array_records.items()
            for name, array in arrays.items()
        }


def read(content: RecordDict) -> Tensor:
    sent = content["batch"]["activations"]  # type: ignore[index]
    return torch.from_numpy(np.frombuffer(sent, dtype=np.float32).reshape(-1, 3).copy())


def alike(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


BATCHES = [[3, 0, 7, 5], [1, 9, 2, 4], [6, 8, 10]]


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    order=st.permutations(range(ROWS)),
    batch_size=st.integers(1, ROWS + 1),
    local_steps=st.sampled_from([1, 3]),
    rate=st.sampled_from([0.01, 0.3]),
)
def test_training_is_that_of_a_bare_loop(
    widths: list[int], order: list[int], batch_size: int, local_steps: int, rate: float
) -> None:
    """The loop's first step of a batch is joint; those after it use the stale gradient."""
    options = {"local_steps": local_steps, "learning_rate": rate}
    talks = [Talk(lambda k=k, d=d: honest(k, d, **options)) for k, d in enumerate(widths)]
    models = [bottom(d, seed=k + 1) for k, d in enumerate(widths)]
    features = [drawn(ROWS, d, seed=k) for k, d in enumerate(widths)]
    batches = [order[start : start + batch_size] for start in range(0, ROWS, batch_size)]
    for talk in talks:
        talk.begin()
    gradient = None
    for rows in batches:
        activations = [talk.train(gradient, rows) for talk in talks]
        total = sum(activations[1:], start=activations[0]).requires_grad_()
        loss = functional.cross_entropy(total, LABELS[rows], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, total)

        own = [model(x[rows]) for model, x in zip(models, features, strict=True)]
        assert alike(activations, [h.detach() for h in own])
        for h in own:
            h.retain_grad()
        logits = sum(own[1:], start=own[0])
        functional.cross_entropy(logits, LABELS[rows], reduction="sum").backward()
        for model, x, h in zip(models, features, own, strict=True):
            for step in range(local_steps):
                if step:
                    model(x[rows]).backward(h.grad)
                with torch.no_grad():
                    for weight in model.parameters():
                        weight.sub_(weight.grad, alpha=rate / len(rows))
                model.zero_grad()
    for talk, model in zip(talks, models, strict=True):
        talk.train(gradient)
        state = talk.send("query.checkpoint").array_records["model"].to_torch_state_dict()
        assert all(torch.equal(state[name], own) for name, own in model.state_dict().items())


@settings(max_examples=16)
@given(
    workers=st.lists(st.sampled_from([0, 1, 2, None]), min_size=40, max_size=40),
    build=st.sampled_from([honest, attacker]),
    restless=st.booleans(),
    local_steps=st.sampled_from([1, 3]),
)
def test_it_does_not_matter_which_process_answers(
    workers: list[int | None], build: Callable[..., PassiveParty], restless: bool, local_steps: int
) -> None:
    def party() -> PassiveParty:
        return build(restless=restless, local_steps=local_steps)

    answers = []
    for choice in (None, iter(workers), iter([None] * 40)):
        torch.manual_seed(len(answers))
        talk = Talk(party, choice)
        talk.begin()
        sent = [*talk.epoch(BATCHES), talk.evaluate(0, 5)]
        sent += [*talk.epoch(BATCHES[::-1], looking=True), talk.evaluate(1, 2, split="test")]
        answers.append((sent, talk.everything()))
    first, *others = answers
    for sent, everything in others:
        assert alike(sent, first[0])
        assert everything == first[1]


@pytest.mark.parametrize("restless", [False, True])
@pytest.mark.parametrize("workers", [[0] * 5, [0, 1, 0, 1, 0]])
def test_global_generator_is_left_alone(restless: bool, workers: list[int | None]) -> None:
    talk = Talk(lambda: honest(restless=restless, local_steps=2), iter(workers))
    talk.living = {0: talk.build(), 1: talk.build()}
    before = torch.get_rng_state()
    talk.begin()
    talk.train(rows=[1, 2, 3])
    talk.train(drawn(3, 3), [4, 5])
    talk.evaluate(1)
    talk.train(drawn(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_party_and_step_decide_the_draws() -> None:
    def sent(number: int = 0, step: int = 0, **options: int) -> list[Tensor]:
        model, train = bottom(restless=True), drawn(ROWS, 4)
        talk = Talk(lambda: PassiveParty(model, train, train, party=number, **options))
        talk.begin(step)
        return [talk.train(rows=[1, 2, 3]) for _ in range(2)]

    first = sent()
    assert alike(first, sent())
    assert not torch.equal(*first)
    for other in (sent(1), sent(seed=1), sent(step=5)):
        assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], sent(step=1)[0])
    party = honest()
    assert party.draw(0) != party.draw(1)


@pytest.mark.parametrize("build", [honest, attacker])
def test_begin_forgets_everything(build: Callable[..., PassiveParty]) -> None:
    talk = Talk(lambda: build(restless=True))
    seen = []
    for _ in range(2):
        talk.begin()
        seen.append((talk.epoch(BATCHES), talk.everything()))
        talk.train(rows=[1, 2])
    assert alike(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1]
    talk.begin()
    with pytest.raises(ValueError, match="no rows are pending"):
        talk.train(drawn(1, 3))


@pytest.mark.parametrize("build", [honest, attacker])
@pytest.mark.parametrize("restless", [False, True])
def test_a_checkpoint_resumes_to_the_same_bits(
    build: Callable[..., PassiveParty], restless: bool
) -> None:
    whole = Talk(lambda: build(restless=restless, local_steps=2))
    whole.begin()
    whole.epoch(BATCHES)
    checkpoint = deepcopy(whole.send("query.checkpoint"))
    rest = whole.epoch(BATCHES[::-1])
    resumed = Talk(lambda: build(restless=restless, local_steps=2))
    resumed.begin(len(BATCHES) + 1, checkpoint)
    assert alike(resumed.epoch(BATCHES[::-1]), rest)
    assert resumed.everything() == whole.everything()


@pytest.mark.parametrize("restless", [False, True])
def test_looking_changes_nothing(restless: bool) -> None:
    results = []
    for looking in (False, True):
        talk = Talk(lambda: honest(restless=restless, local_steps=2))
        talk.begin()
        results.append((talk.epoch(BATCHES, looking=looking), talk.everything()))
        state = deepcopy(talk.context.state)
        talk.evaluate(0, 1)
        assert talk.context.state == state
    assert alike(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_evaluation_stamps_only_if_asked_and_able() -> None:
    def stamp(rows: Tensor) -> Tensor:
        rows = rows.clone()
        rows[:, 1] = 9.0
        return rows

    able, unable = Talk(lambda: honest(restless=True, stamp=stamp)), Talk(honest)
    able.begin()
    unable.begin()
    model = bottom(restless=True).eval()
    for split, features in {"train": drawn(ROWS, 4), "test": drawn(6, 4, seed=50)}.items():
        plain, stamped = (model(x[[4, 0]]).detach() for x in (features, stamp(features)))
        assert torch.equal(able.evaluate(4, 0, split=split), plain)
        assert torch.equal(able.evaluate(4, 0, split=split, triggered=True), stamped)
        assert torch.equal(able.evaluate(4, 0, split=split), plain)
        asked = unable.evaluate(4, 0, split=split, triggered=True)
        assert torch.equal(asked, unable.evaluate(4, 0, split=split))


def test_enrolment_says_who_and_which_rows() -> None:
    talk = Talk(lambda: honest(3, 6, train_digest="a", test_digest="b"))
    assert dict(talk.send("query")["enrolment"]) == {  # type: ignore[arg-type]
        "party": 3,
        "outputs": 3,
        "train-rows": ROWS,
        "train-digest": "a",
        "test-rows": 6,
        "test-digest": "b",
    }


def test_a_model_is_handed_out_only_if_asked_for() -> None:
    talk = Talk(honest)
    talk.begin()
    with pytest.raises(ValueError, match="checkpoint"):
        talk.party().app()(Message(RecordDict(), 1, "query.checkpoint"), talk.context)
    answer = talk.party().app()(Message(RecordDict(), 1, "query"), talk.context)
    assert "enrolment" in answer.content


def refused(talk: Talk, match: str, kind: str, **records: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        talk.send(kind, **records)
    assert "\n" not in str(caught.value)


LOOK = {"split": "train", "triggered": False, "rows": packed(1)}
WRONG = {
    "gradient too short": ("train", {"gradient": bytes(8)}, "has 8 bytes"),
    "gradient too long": ("train", {"gradient": bytes(28)}, "has 28 bytes"),
    "gradient empty": ("train", {"gradient": b""}, "has 0 bytes"),
    "gradient not bytes": ("train", {"gradient": [0.0] * 6}, "list where bytes are expected"),
    "row too large": ("train", {"rows": packed(0, ROWS)}, "rows outside the 11 of the train"),
    "row negative": ("train", {"rows": packed(-1)}, "rows outside the 11 of the train"),
    "rows torn": ("train", {"rows": packed(1)[:7]}, "7 bytes"),
    "rows empty": ("train", {"rows": b""}, "0 bytes"),
    "rows not bytes": ("train", {"rows": "0"}, "str where bytes are expected"),
    "test row too large": (
        "evaluate",
        LOOK | {"split": "test", "rows": packed(6)},
        "rows outside the 6 of the test",
    ),
    "unknown split": ("evaluate", LOOK | {"split": "validation"}, "validation"),
    "look at no bytes": ("evaluate", LOOK | {"rows": 3}, "int where bytes are expected"),
    "look at no rows": ("evaluate", LOOK | {"rows": b""}, "0 bytes"),
    "no split": ("evaluate", {"triggered": False, "rows": packed(1)}, "split"),
    "no triggered": ("evaluate", {"split": "test", "rows": packed(1)}, "triggered"),
    "no rows to look at": ("evaluate", {"split": "test", "triggered": False}, "rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_messages_are_refused_in_one_line(name: str) -> None:
    kind, batch, match = WRONG[name]
    talk = Talk(honest)
    talk.begin()
    talk.train(rows=[1, 2])
    refused(talk, match, kind, batch=ConfigRecord(batch))


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_wrong_records_are_refused_in_one_line(kind: str) -> None:
    talk = Talk(honest)
    talk.begin()
    refused(talk, "MetricRecord where a ConfigRecord", kind, batch=MetricRecord({"rows": 1}))
    refused(talk, "batch", kind)


def test_wrong_beginnings_are_refused_in_one_line() -> None:
    talk = Talk(honest)
    for kind in ("train", "evaluate", "query.checkpoint"):
        refused(talk, "training has not begun", kind, batch=ConfigRecord(LOOK))
    with pytest.raises(ValueError, match="needs parameters"):
        PassiveParty(nn.ReLU(), drawn(2, 2), drawn(2, 2), party=0)
    with pytest.raises(ValueError, match="float32"):
        PassiveParty(nn.Linear(2, 2).double(), drawn(2, 2), drawn(2, 2), party=0)


def test_a_beginning_without_a_step_is_refused_in_one_line() -> None:
    refused(Talk(honest), "step", "train.begin", config=ConfigRecord())


def test_a_checkpoint_of_another_model_is_refused_in_one_line() -> None:
    config, other = ConfigRecord({"step": 0}), ArrayRecord(bottom(5).state_dict())
    refused(Talk(honest), "size|shape|model", "train.begin", config=config, model=other)


def test_a_refused_checkpoint_changes_nothing() -> None:
    config, other = ConfigRecord({"step": 0}), bottom(seed=9).state_dict()
    other["2.weight"] = drawn(3, 6)
    results = []
    for choice in (None, iter([None] * 9)):
        talk = Talk(honest, choice)
        talk.begin()
        talk.train(rows=[1, 2])
        with pytest.raises((ValueError, RuntimeError)):
            talk.send("train.begin", config=config, model=ArrayRecord(other))
        results.append((talk.train(drawn(2, 3), [5]), talk.everything()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("name", [name for name, (kind, _, _) in WRONG.items() if kind == "train"])
def test_a_refused_message_changes_nothing(name: str) -> None:
    _, batch, match = WRONG[name]
    good = {"gradient": drawn(2, 3).numpy().tobytes(), "rows": packed(3, 4)}
    results = []
    for choice in (None, iter([None] * 9)):
        talk = Talk(honest, choice)
        talk.begin()
        talk.train(rows=[1, 2])
        refused(talk, match, "train", batch=ConfigRecord(good | batch))
        results.append((talk.train(drawn(2, 3), [5]), talk.everything()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
