"""Tests of `strategies.vertical.active_party`: a bare loop's bits, and parties that misbehave."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import GradientReplacement, PassiveParty, party_app
from fl_backdoor.federation.engines import LocalGrid
from strategies.vertical import (
    ActiveParty,
    BackdoorActiveParty,
    DenseTop,
    GradientClipping,
    GradientNoise,
    GradientSparsification,
    Party,
    ProtocolError,
    SumTop,
    active_party,
    enrol,
)

from .conftest import unavailable
from .test_passive_party import bottom, drawn

FEATURES = (4, 2)
CLASSES = 3


def features(party: int, rows: int) -> Tensor:
    return drawn(rows, FEATURES[party], seed=party)


def stamp(rows: Tensor) -> Tensor:
    rows = rows.clone()
    rows[:, 0] = 3.0
    return rows


def labels_of(rows: int) -> Tensor:
    return torch.arange(rows) * 7 % 5 % CLASSES


def parties(rows: int, *, restless: bool = False, **options: Any) -> list[PassiveParty]:
    """Build an honest party and one that holds the trigger."""
    members: list[PassiveParty] = []
    options |= {"train_digest": "a", "test_digest": "b"}
    for number, width in enumerate(FEATURES):
        model = bottom(width, CLASSES, restless=restless, seed=number + 1)
        data = features(number, rows), drawn(6, width, seed=50 + number)
        if number and restless:
            targets = {"target_rows": torch.tensor([1]), "poisoned_rows": torch.tensor([0, 4])}
            attack = GradientReplacement(blur_variance=0.1, **targets)
            members.append(PassiveParty(model, *data, party=number, attack=attack, **options))
        else:
            own = options | ({"stamp": stamp} if number else {})
            members.append(PassiveParty(model, *data, party=number, **own))
    return members


class Wire(LocalGrid):
    """Keeps what is sent and answered, and may spoil party 1's answer to one message."""

    def __init__(
        self,
        members: Sequence[PassiveParty],
        kind: str = "",
        number: int = 0,
        spoil: Callable[[Message, Message], Message | None] | None = None,
    ) -> None:
        honest = party_app(
            lambda _, context: members[int(context.node_config["partition-id"])], checkpoints=True
        )
        count: Counter[tuple[int, str]] = Counter()
        self.passed: list[tuple[Message, Message]] = []
        self.lost: set[int] = set()

        def app(message: Message, context: Context) -> Message:
            reply = honest(message, context)
            self.passed.append((message, reply))
            this = context.node_id, message.metadata.message_type
            count[this] += 1
            if spoil is None or (*this, count[this] - 1) != (2, kind, number):
                return reply
            spoilt = spoil(message, reply)
            if spoilt is None:
                self.lost.add(context.node_id)
            return spoilt or reply

        super().__init__(app, len(members))  # type: ignore[arg-type]

    def pull_messages(self, message_ids: Any) -> list[Message]:
        replies = super().pull_messages(message_ids)
        return [reply for reply in replies if reply.metadata.src_node_id not in self.lost]


def top(kind: str, dropout: float = 0.0) -> nn.Module:
    if kind == "sum":
        return SumTop([CLASSES] * 2, CLASSES)
    dense = DenseTop([CLASSES] * 2, CLASSES, hidden=4, seed=5)
    dense.layers.insert(2, nn.Dropout(dropout))
    return dense


def federation(
    rows: int = 11, kind: str = "dense", *, restless: bool = False, **options: Any
) -> tuple[Wire, ActiveParty]:
    local_steps = options.get("local_steps", 1)
    rate = options.get("learning_rate", 0.01)
    members = parties(rows, restless=restless, local_steps=local_steps, learning_rate=rate)
    grid = Wire(members)
    enrolled = enrol(grid, 2, {"train": (rows, "a"), "test": (6, "b")}, timeout=1)
    model = top(kind, 0.3 if restless else 0.0)
    active = ActiveParty(
        model, labels_of(rows), **{"parties": enrolled, "batch_size": 4, "seed": 0} | options
    )
    active.begin(grid)
    grid.passed.clear()
    return grid, active


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name].numpy(), b[name].numpy()) for name in a
    )


def step(weights: Sequence[Tensor], along: Sequence[Tensor], rate: float) -> None:
    with torch.no_grad():
        for weight, gradient in zip(weights, along, strict=True):
            weight.sub_(gradient, alpha=rate)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 13),
    batch_size=st.integers(1, 15),
    kind=st.sampled_from(["sum", "dense"]),
    local_steps=st.sampled_from([1, 3]),
    rate=st.sampled_from([0.01, 0.05]),
)
def test_training_is_that_of_a_bare_loop(
    rows: int, batch_size: int, kind: str, local_steps: int, rate: float
) -> None:
    """In a bare loop's later steps each side uses what it last had of the other."""
    options = {"batch_size": batch_size, "learning_rate": rate, "local_steps": local_steps}
    grid, active = federation(rows, kind, **options)
    seen: list[tuple[Tensor, list[Tensor]]] = []
    reports = [
        active.train_epoch(grid, epoch, lambda chosen, sent: seen.append((chosen, sent)))
        for epoch in (1, 2)
    ]
    joint = top(kind)
    bottoms = [bottom(width, CLASSES, seed=k + 1) for k, width in enumerate(FEATURES)]
    losses = []
    for batch, sent in seen:
        rate_of_batch = rate / len(batch)
        blocks = [features(k, rows)[batch] for k in range(2)]
        outputs = [model(block) for model, block in zip(bottoms, blocks, strict=True)]
        leaves = [output.detach().requires_grad_() for output in outputs]
        for output in outputs:
            output.retain_grad()
        loss = functional.cross_entropy(joint(outputs), labels_of(rows)[batch], reduction="sum")
        loss.backward()
        losses.append(loss.item())
        for output, gradient in zip(outputs, sent, strict=True):
            assert torch.equal(output.grad, gradient)
        for model, block, gradient in zip(bottoms, blocks, sent, strict=True):
            step(list(model.parameters()), [p.grad for p in model.parameters()], rate_of_batch)
            for _ in range(local_steps - 1):
                weights = list(model.parameters())
                step(weights, torch.autograd.grad(model(block), weights, gradient), rate_of_batch)
            model.zero_grad()
        weights = list(joint.parameters())
        step(weights, [p.grad for p in weights], rate_of_batch)
        for _ in range(local_steps - 1 if weights else 0):
            loss = functional.cross_entropy(joint(leaves), labels_of(rows)[batch], reduction="sum")
            step(weights, torch.autograd.grad(loss, weights), rate_of_batch)
        joint.zero_grad()
    whole = active.checkpoint(grid)
    parts = {"top": joint, "party0.model": bottoms[0], "party1.model": bottoms[1]}
    twin = {f"{part}.{n}": p for part, m in parts.items() for n, p in m.state_dict().items()}
    assert same(whole, twin)
    assert sum(report.loss for report in reports) == pytest.approx(sum(losses) / rows, rel=1e-5)


@settings(max_examples=20)
@given(rows=st.integers(1, 13), batch_size=st.integers(1, 15))
def test_round_trips_and_bytes_are_those_counted_by_hand(rows: int, batch_size: int) -> None:
    grid, active = federation(rows, batch_size=batch_size)
    report = active.train_epoch(grid, 1)
    batches = -(-rows // batch_size)
    assert report.round_trips == batches + 1
    assert len(grid.passed) == 2 * (batches + 1)
    assert report.bytes == 2 * rows * (8 + 4 * CLASSES + 4 * CLASSES)
    on_the_wire = 0
    for message, reply in grid.passed:
        for content in (message.content, reply.content):
            on_the_wire += sum(len(v) for v in content.get("batch", {}).values())  # type: ignore[union-attr]
    assert report.bytes == on_the_wire
    assert report.reports == {0: {}, 1: {}}


def test_each_row_comes_up_once_an_epoch_in_another_seeded_order() -> None:
    def orders(seed: int) -> list[list[int]]:
        grid, active = federation(23, "sum", seed=seed)
        result: list[list[int]] = []
        for epoch in (1, 2):
            order: list[int] = []
            active.train_epoch(
                grid, epoch, lambda rows, _, order=order: order.extend(rows.tolist())
            )
            result.append(order)
        return result

    first = orders(0)
    assert [sorted(order) for order in first] == [list(range(23))] * 2
    assert first[0] != first[1]
    assert orders(0) == first
    assert not {tuple(order) for order in orders(1)} & {tuple(order) for order in first}


@pytest.mark.parametrize("kind", ["sum", "dense"])
def test_gradients_are_of_each_row_not_of_the_batchs_mean(kind: str) -> None:
    grid, active = federation(11, kind, learning_rate=0.0)
    seen = {}

    def observe(rows: Tensor, gradients: list[Tensor]) -> None:
        for place, row in enumerate(rows.tolist()):
            seen[row] = [gradient[place] for gradient in gradients]

    active.train_epoch(grid, 1, observe)
    bottoms = [bottom(width, CLASSES, seed=k + 1) for k, width in enumerate(FEATURES)]
    for row in range(11):
        leaves = [bottoms[k](features(k, 11)[[row]]).detach().requires_grad_() for k in range(2)]
        logits = top(kind)(leaves)
        loss = -torch.log_softmax(logits, dim=1)[0, labels_of(11)[row]]
        for sent, alone in zip(seen[row], torch.autograd.grad(loss, leaves), strict=True):
            torch.testing.assert_close(sent, alone[0], rtol=1e-4, atol=1e-6)


def test_observe_sees_what_is_sent() -> None:
    grid, active = federation(defenses=[GradientNoise(0.5), GradientSparsification(0.5)])
    seen: list[tuple[Tensor, list[Tensor]]] = []
    active.train_epoch(grid, 1, lambda rows, sent: seen.append((rows, sent)))
    assert len(seen) == 3
    for k in range(2):
        sent = [m.content["batch"] for m, _ in grid.passed if m.metadata.dst_node_id == k + 1]
        asked = [batch.get("rows") for batch in sent]
        assert asked == [*(rows.numpy().tobytes() for rows, _ in seen), None]
        gradients = [batch.get("gradient") for batch in sent]
        assert gradients == [None, *(g[k].numpy().tobytes() for _, g in seen)]


@pytest.mark.parametrize("kind", ["sum", "dense"])
def test_predictions_are_the_joint_models(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, active = federation(11, kind, learning_rate=0.2)
    for epoch in (1, 2):
        active.train_epoch(grid, epoch)
    whole = active.checkpoint(grid)
    for size in (5000, 4):
        monkeypatch.setattr(active_party, "ROWS_A_MESSAGE", size)
        for split, rows in {"train": [9, 0, 3, 3, 10], "test": [5, 0, 1, 2, 4]}.items():
            for triggered in (False, True):
                blocks = []
                for k, width in enumerate(FEATURES):
                    model = bottom(width, CLASSES)
                    names = (name for name in whole if name.startswith(f"party{k}.model."))
                    state = {n.split(".", 2)[2]: torch.tensor(whole[n].numpy()) for n in names}
                    model.load_state_dict(state)
                    x = features(k, 11) if split == "train" else drawn(6, width, seed=50 + k)
                    x = stamp(x[rows]) if triggered and k else x[rows]
                    blocks.append(model(x).detach())
                logits = active.predict(grid, torch.tensor(rows), split=split, triggered=triggered)
                torch.testing.assert_close(logits, active.top(blocks).detach())
                if size > len(rows):
                    assert torch.equal(logits, active.top(blocks).detach())
    assert same(active.checkpoint(grid), whole)


def test_predictions_of_no_rows_are_refused() -> None:
    grid, active = federation()
    with pytest.raises(ValueError, match="no rows to predict"):
        active.predict(grid, torch.empty(0, dtype=torch.int64))


def test_predictions_between_epochs_change_nothing() -> None:
    results = []
    for looking in (False, True):
        grid, active = federation(restless=True)
        for epoch in (1, 2):
            active.train_epoch(grid, epoch)
            if looking:
                active.predict(grid, torch.arange(5))
                active.predict(grid, torch.arange(5), split="train", triggered=True)
                active.checkpoint(grid)
        results.append(active.checkpoint(grid))
    assert same(*results)


def test_the_global_generator_is_left_alone() -> None:
    grid, active = federation(restless=True, defenses=[GradientNoise(0.1)])
    before = torch.get_rng_state()
    active.begin(grid)
    active.train_epoch(grid, 1)
    active.predict(grid, torch.arange(6))
    active.checkpoint(grid)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_backdoor_active_party_trains_poisoned_rows_to_the_target() -> None:
    poisoned = torch.tensor([0, 4, 7])
    labels = labels_of(11)
    whole = []
    for build in (
        lambda **options: BackdoorActiveParty(
            top("dense"), labels, poisoned_rows=poisoned, target=2, **options
        ),
        lambda **options: ActiveParty(
            top("dense"), labels.clone().index_fill_(0, poisoned, 2), **options
        ),
    ):
        grid = Wire(parties(11))
        active = build(parties=[Party(1, CLASSES), Party(2, CLASSES)], batch_size=4, seed=0)
        active.begin(grid)
        reports = [active.train_epoch(grid, epoch) for epoch in (1, 2)]
        whole.append(active.checkpoint(grid))
    assert same(*whole)
    assert torch.equal(labels, labels_of(11))
    assert reports[1].loss < reports[0].loss


@pytest.mark.parametrize("restless", [False, True])
def test_a_checkpoint_resumes_to_the_same_bits(restless: bool) -> None:
    """A restless federation has dropout, batch norm and an attacker with memory."""

    def build() -> tuple[Wire, ActiveParty]:
        defenses = [GradientClipping(1.0), GradientNoise(1e-3), GradientSparsification(0.6)]
        return federation(restless=restless, defenses=defenses, local_steps=2)

    grid, active = build()
    active.train_epoch(grid, 1)
    checkpoint = deepcopy(active.checkpoint(grid))
    assert {name for name in checkpoint if name.startswith("defense")} == {
        "defense2.residual0",
        "defense2.residual1",
    }
    assert ("party1.memory.g_rec" in checkpoint) == restless
    reports = [active.train_epoch(grid, epoch) for epoch in (2, 3)]
    again, resumed = build()
    resumed.train_epoch(again, 1)
    resumed.train_epoch(again, 2)
    resumed.begin(again, checkpoint, epochs_done=1)
    assert same(resumed.checkpoint(again), checkpoint)
    assert [resumed.train_epoch(again, epoch) for epoch in (2, 3)] == reports
    assert same(resumed.checkpoint(again), active.checkpoint(grid))


def with_activations(change: Callable[[bytes], Any]) -> Callable[[Message, Message], Message]:
    def spoil(message: Message, reply: Message) -> Message:
        sent = reply.content["batch"]["activations"]  # type: ignore[index]
        record = ConfigRecord({"activations": change(sent)})  # type: ignore[arg-type]
        return Message(RecordDict({"batch": record}), reply_to=message)

    return spoil


def with_content(**records: Any) -> Callable[[Message, Message], Message]:
    return lambda message, _: Message(RecordDict(records), reply_to=message)


def crash(message: Message, reply: Message) -> Message:
    raise RuntimeError(500 * "x" + " no\n  memory")


def first_value(value: float) -> Callable[[bytes], bytes]:
    return lambda sent: np.float32(value).tobytes() + sent[4:]


SPOILT = {
    "raises": (crash, "failed at {where}: .*no memory$"),
    "error": (
        lambda message, _: Message(Error(code=0, reason="lost\nit"), reply_to=message),
        "failed at {where}: lost it",
    ),
    "gone": (lambda message, _: unavailable(message), "failed at {where}: Error: Node Unavail"),
    "silent": (lambda *_: None, r"no answer to {where} \(it is gone, or took longer than 7 s\)"),
    "nan": (with_activations(first_value(float("nan"))), "not finite for {where}"),
    "inf": (with_activations(first_value(float("-inf"))), "not finite for {where}"),
    "both infinities": (
        with_activations(lambda sent: np.float32([np.inf, -np.inf]).tobytes() + sent[8:]),
        "not finite for {where}",
    ),
    "too short": (with_activations(lambda sent: sent[:-4]), "bytes of activations for {where}"),
    "too long": (with_activations(lambda sent: sent + b"x"), "bytes of activations for {where}"),
    "empty": (with_activations(lambda _: b""), "0 bytes of activations for {where}"),
    "text": (with_activations(lambda _: "0.0"), "no activations for {where}"),
    "numbers": (with_activations(lambda _: [0.0] * 12), "no activations for {where}"),
    "no record": (with_content(), "no activations for {where}"),
    "no value": (with_content(batch=ConfigRecord()), "no activations for {where}"),
    "wrong record": (with_content(batch=MetricRecord({"activations": 1})), "no activations"),
}
PLACES = {
    ("train", 0): "epoch 1, batch 1 of 3",
    ("train", 2): "epoch 1, batch 3 of 3",
    ("train", 5): "epoch 2, batch 2 of 3",
    ("evaluate", 0): "the test rows",
}
WITHOUT_ACTIVATIONS = {
    ("train.begin", 0): "the start",
    ("train", 3): "epoch 1, batch 3 of 3",
    ("query.checkpoint", 0): "the checkpoint",
}


def run(kind: str, number: int, spoil: Callable[[Message, Message], Message | None]) -> None:
    grid = Wire(parties(11), kind, number, spoil)
    enrolled = [Party(1, CLASSES), Party(2, CLASSES)]
    active = ActiveParty(top("dense"), labels_of(11), parties=enrolled, batch_size=4, timeout=7)
    active.begin(grid)
    for epoch in (1, 2):
        active.train_epoch(grid, epoch)
    active.predict(grid, torch.arange(6))
    active.checkpoint(grid)


CASES = [(name, place) for place in PLACES for name in SPOILT]
CASES += [
    (n, place) for place in WITHOUT_ACTIVATIONS for n in ("raises", "error", "gone", "silent")
]


@pytest.mark.parametrize(("name", "place"), CASES, ids=str)
def test_a_party_that_misbehaves_is_named_in_one_line(name: str, place: tuple[str, int]) -> None:
    spoil, match = SPOILT[name]
    where = (PLACES | WITHOUT_ACTIVATIONS)[place]
    with pytest.raises(ProtocolError, match="^party 1: .*" + match.format(where=where)) as caught:
        run(*place, spoil)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_loss_that_is_not_finite_names_no_party() -> None:
    """The sum of finite activations overflows, and that can be anybody's fault."""
    huge = with_activations(lambda sent: np.full(len(sent) // 4, 3e38, np.float32).tobytes())
    with pytest.raises(ProtocolError, match=r"^training has diverged at epoch 2, batch 2 of 3"):
        run("train", 5, huge)


def test_a_checkpoint_that_cannot_be_read_names_the_party() -> None:
    array = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"garbage")
    spoil = with_content(model=ArrayRecord({"weight": array}))
    with pytest.raises(ProtocolError, match=r"^party 1: array weight of its checkpoint") as caught:
        run("query.checkpoint", 0, spoil)
    assert "\n" not in str(caught.value)


def test_begin_lets_everybody_start_anew() -> None:
    grid, active = federation(restless=True, defenses=[GradientSparsification(0.6)])
    results = []
    for _ in range(2):
        active.begin(grid)
        results.append((active.train_epoch(grid, 1), active.checkpoint(grid)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


def test_reports_are_read_as_far_as_they_are_finite_numbers() -> None:
    odd = {"good": 1.5, "nan": float("nan"), "inf": float("inf"), "list": [1.0], "whole": 10**30}
    members = parties(11)
    members[1].attack.report = lambda: odd  # type: ignore[method-assign,assignment]
    grid = Wire(members)
    enrolled = [Party(1, CLASSES), Party(2, CLASSES)]
    active = ActiveParty(top("sum"), labels_of(11), parties=enrolled)
    active.begin(grid)
    assert active.train_epoch(grid, 1).reports == {0: {}, 1: {"good": 1.5}}


def test_the_config_is_sent_with_the_start() -> None:
    grid = Wire(parties(11))
    enrolled = [Party(1, CLASSES), Party(2, CLASSES)]
    active = ActiveParty(
        top("sum"), labels_of(11), parties=enrolled, batch_size=4, config={"clean": True}
    )
    active.begin(grid, epochs_done=3)
    sent = [dict(message.content["config"]) for message, _ in grid.passed]  # type: ignore[arg-type]
    assert sent == [{"clean": True, "step": 12}] * 2


def test_noise_cannot_be_computed_unless_a_seed_is_given() -> None:
    """Two trainings agree in what the parties get exactly if they were given the same seed."""

    def gradients(**options: Any) -> list[bytes]:
        grid, active = federation(defenses=[GradientNoise(0.1)], batch_size=11, **options)
        active.train_epoch(grid, 1)
        batches = [message.content["batch"] for message, _ in grid.passed]
        return [bytes(batch["gradient"]) for batch in batches if "gradient" in batch]  # type: ignore[arg-type]

    assert gradients(seed=3) == gradients(seed=3)
    assert gradients(seed=None) != gradients(seed=None)
    assert gradients(seed=None) != gradients(seed=0)
