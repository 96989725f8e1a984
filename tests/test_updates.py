"""Tests of `clients.updates` and `clients.mods`: crafted updates, in clients and as mods."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch import nn

from clients import (
    ALIE,
    Attack,
    BackdoorClient,
    Gaussian,
    LabelFlipping,
    ModelReplacement,
    NormProjection,
    Seat,
    SignFlip,
    attack_mod,
    malicious,
    model_replacement_mod,
    norm_projection_mod,
)
from clients.seat import Update
from clients.updates import crafted

CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})

vectors = arrays_of.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32))


def model(values: np.ndarray, counter: int = 0) -> ArrayRecord:
    """Spread values over two floating arrays, beside a counter as of BatchNorm."""
    parts = {"a": values[:2], "n": np.array(counter), "b": values[2:].reshape(1, -1)}
    return ArrayRecord({name: Array(part) for name, part in parts.items()})


def values(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([arrays["a"].numpy(), arrays["b"].numpy()[0]]).astype(np.float64)


def same(a: ArrayRecord, b: ArrayRecord) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[n].numpy(), b[n].numpy()) for n in a)


def scale_update(received: ArrayRecord, trained: ArrayRecord, factor: float) -> ArrayRecord:
    sent = crafted(ModelReplacement(factor=factor), Seat(), received, trained)
    return trained if sent is None else sent


def project_update(received: ArrayRecord, trained: ArrayRecord, max_norm: float) -> ArrayRecord:
    sent = crafted(NormProjection(max_norm=max_norm), Seat(), received, trained)
    return trained if sent is None else sent


@given(vectors, vectors, st.floats(0.01, 20))
def test_scaling_is_exact_up_to_the_last_rounding(
    received: np.ndarray, local: np.ndarray, factor: float
) -> None:
    sent = scale_update(model(received, 3), model(local, 7), factor)
    center = received.astype(np.float64)
    expected = center + factor * (local - center)
    np.testing.assert_array_equal(values(sent), expected.astype(np.float32))
    assert list(sent) == ["a", "n", "b"]
    assert sent["b"].numpy().dtype == np.float32
    assert sent["b"].numpy().shape == (1, 3)
    assert (sent["n"].numpy().dtype, int(sent["n"].numpy())) == (np.int64, 7)


@given(vectors, vectors, st.floats(0.01, 1000))
def test_projection_bounds_the_norm_and_keeps_the_direction(
    received: np.ndarray, local: np.ndarray, max_norm: float
) -> None:
    sent = project_update(model(received, 3), model(local, 7), max_norm)
    before, after = local.astype(np.float64) - received, values(sent) - received
    norm = np.linalg.norm(before)
    assert int(sent["n"].numpy()) == 7
    if norm <= max_norm:
        assert same(sent, model(local, 7))
    else:
        assert np.linalg.norm(after) == pytest.approx(max_norm, rel=1e-4, abs=1e-4)
        np.testing.assert_allclose(after, before * max_norm / norm, atol=1e-4)


def test_golden() -> None:
    received, local = model(np.zeros(5)), model(np.array([3.0, 0, 0, 4.0, 0]))
    assert values(scale_update(received, local, 2.0)).tolist() == [6, 0, 0, 8, 0]
    assert values(project_update(received, local, 2.5)).tolist() == [1.5, 0, 0, 2, 0]
    assert values(project_update(received, received, 2.5)).tolist() == [0] * 5


def add_one(message: Message, context: Context) -> Message:
    """Train like anybody's client: every weight and counter grows by 1."""
    (record,) = message.content.array_records.values()
    grown = ArrayRecord({name: Array(np.asarray(a.numpy() + 1)) for name, a in record.items()})
    content = RecordDict({"arrays": grown, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def answer(
    message: Message,
    *mods: Mod,
    client: Callable[[Message, Context], Message] = add_one,
) -> Message:
    app = ClientApp(mods=list(mods))
    app.train()(client)
    app.evaluate()(client)
    return app(message, CONTEXT)


def test_mods_do_what_the_backdoor_client_does(train_message: Callable[..., Message]) -> None:
    received = model(np.arange(5.0), 4)
    mods = norm_projection_mod(0.5), model_replacement_mod(10.0)
    for used, own in (((), (None, None)), (mods, (10.0, 0.5)), (mods[:1], (None, 0.5))):
        client = BackdoorClient(
            nn.Linear(1, 1),
            torch.zeros(2, 1, 1, 1),
            torch.zeros(2).long(),
            target=0,
            pattern=[(0, 0)],
            replacement=own[0],
            max_norm=own[1],
        )
        reply = answer(train_message(received), *used)
        expected = crafted(client.attack, client.seat, received, model(np.arange(5.0) + 1, 5))
        assert same(reply.content["arrays"], expected)  # type: ignore[arg-type]
        assert reply.content["metrics"] == MetricRecord({"num-examples": 1})


def test_the_first_mod_is_the_outermost(train_message: Callable[..., Message]) -> None:
    def norm(*mods: Mod) -> float:
        sent = answer(train_message(model(np.zeros(5))), *mods).content["arrays"]
        return float(np.linalg.norm(values(sent)))  # type: ignore[arg-type]

    project, scale = norm_projection_mod(1.0), model_replacement_mod(10.0)
    assert norm() == pytest.approx(5**0.5)
    assert norm(project, scale) == pytest.approx(1)
    assert norm(scale, project) == pytest.approx(10)


def test_other_replies_pass_untouched(train_message: Callable[..., Message]) -> None:
    mods = norm_projection_mod(0.1), model_replacement_mod(10.0)
    received = model(np.zeros(5))

    def fail(message: Message, context: Context) -> Message:
        return Message(Error(code=5, reason="gone"), reply_to=message)

    failed = answer(train_message(received), *mods, client=fail)
    assert (failed.error.code, failed.error.reason) == (5, "gone")
    question = Message(RecordDict({"arrays": received}), 1, "evaluate")
    answered = answer(question, *mods)
    assert same(answered.content["arrays"], model(np.ones(5), 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["clear", "replace", "in place"])
def test_a_client_that_changes_its_message(train_message: Callable[..., Message], how: str) -> None:
    def careless(message: Message, context: Context) -> Message:
        reply = add_one(message, context)
        if how == "clear":
            message.content.clear()
        elif how == "replace":
            message.content["arrays"] = reply.content["arrays"]
        else:
            own, new = message.content["arrays"], reply.content["arrays"]
            for name in own:
                own[name].data = new[name].data  # type: ignore[union-attr, index]
        return reply

    sent = answer(train_message(model(np.zeros(5))), model_replacement_mod(3.0), client=careless)
    assert values(sent.content["arrays"]).tolist() == [3] * 5  # type: ignore[arg-type]


def test_statistics_and_counters_of_batch_norm_stay() -> None:
    """Scaled, a variance would be negative here; counted, statistics would be most of the norm."""
    layer = nn.BatchNorm1d(2)
    received = ArrayRecord(layer.state_dict())
    layer(torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * 1e-3)
    nn.init.constant_(layer.weight, 1.5)
    trained = layer.state_dict()
    scaled = scale_update(received, ArrayRecord(trained), 50.0).to_torch_state_dict()
    projected = project_update(received, ArrayRecord(trained), 0.1).to_torch_state_dict()
    for sent in (scaled, projected):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(sent[name], trained[name])
    assert scaled["weight"].tolist() == [26.0, 26.0]
    assert float((projected["weight"] - 1).norm()) == pytest.approx(0.1)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_a_radius_is_positive(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm={max_norm}: allowed is a number > 0"):
        norm_projection_mod(max_norm)


def test_a_scalar_is_scaled_as_well() -> None:
    received, trained = (ArrayRecord({"scale": Array(np.array(v, np.float32))}) for v in (1, 2))
    scaled = scale_update(received, trained, 10.0)["scale"]
    assert (tuple(scaled.shape), scaled.numpy()) == ((), 11)


def test_what_an_attack_leaves_is_sent_to_the_bit() -> None:
    """``received + (trained - received)`` need not be ``trained``."""
    received, trained = model(np.full(5, 1e10, "f4")), model(np.full(5, 1.23, "f4"))
    assert same(project_update(received, trained, 1e12), trained)


def test_an_update_is_not_changed_in_place() -> None:
    class Careless(Attack):
        def craft(self, update: Update, seat: Seat) -> Update:
            for array in update.values():
                array *= 2
            return update

    with pytest.raises(ValueError, match="read-only"):
        crafted(Careless(), Seat(), model(np.zeros(5)), model(np.ones(5)))


def partial(**arrays: np.ndarray) -> Callable[[Message, Context], Message]:
    def client(message: Message, context: Context) -> Message:
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        content = RecordDict({"model": record, "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    return client


ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"head": ONES}, [10.0]),  # a part of what was received
        ({"head": ONES.astype("f2")}, [10.0]),  # in another dtype
        ({"head": ONES, "own": ONES}, [10.0, 1.0]),
        ({"head": ONES, "body": np.ones(3, "f4")}, [10.0, 1.0]),  # of another shape
        ({"0": ONES, "1": ONES}, [10.0, 10.0]),  # by place
        ({"0": ONES, "1": ONES, "2": ONES}, None),
        ({"0": ONES}, None),
        ({"head": ONES.astype("i8")}, None),
        ({"head": np.ones(3, "f4")}, None),
    ],
)
def test_what_both_have_is_changed_and_else_it_is_said(
    arrays: dict[str, np.ndarray],
    expected: list[float] | None,
    train_message: Callable[..., Message],
    caplog: pytest.LogCaptureFixture,
) -> None:
    received = ArrayRecord({name: Array(np.zeros(2, np.float32)) for name in ("body", "head")})
    mod = model_replacement_mod(10)
    for _ in range(2):
        reply = answer(train_message(received), mod, client=partial(**arrays))
        sent = reply.content["model"]
        assert {n: a.dtype for n, a in sent.items()} == {n: str(a.dtype) for n, a in arrays.items()}
        wanted = [1.0] * len(arrays) if expected is None else expected
        assert [float(a.numpy()[0]) for a in sent.values()] == wanted  # type: ignore[union-attr]
        assert reply.content["metrics"] == MetricRecord({"num-examples": 1})
        assert ("attack-cannot-act" in reply.content) == (expected is None)
    warnings = [r for r in caplog.records if "cannot act" in r.getMessage()]
    assert len(warnings) == (expected is None)


def test_a_mark_does_not_end_the_round_of_a_strategy_of_flowers(
    train_message: Callable[..., Message],
) -> None:
    """They refuse replies that differ in their metrics, and read no ConfigRecord."""
    received = ArrayRecord({"head": Array(np.zeros(2, np.float32))})
    honest, untrained = partial(head=ONES), partial(head=0 * ONES)
    idle = answer(train_message(received), model_replacement_mod(10), client=untrained)
    assert "attack-cannot-act" in idle.content
    replies = [answer(train_message(received), client=honest), idle]
    arrays, _ = FlowersFedAvg().aggregate_train(1, replies)
    assert arrays is not None
    assert arrays["head"].numpy().tolist() == [0.5, 0.5]


def test_an_update_of_0_is_nothing_to_scale() -> None:
    """But where it is noise that is sent, or the model was trained, there is something."""
    zero, grown = model(np.zeros(5)), model(np.full(5, 1e-30, np.float32))
    assert crafted(ModelReplacement(factor=2), Seat(), zero, zero) is None
    assert crafted(Gaussian(), Seat(), zero, zero) is not None
    assert crafted(ModelReplacement(factor=1e-30), Seat(), zero, grown) is not None


def test_a_second_record_is_matched_by_its_name_alone() -> None:
    """As SCAFFOLD's control variates: no update of the model."""

    def client(message: Message, context: Context) -> Message:
        content = RecordDict({n: ArrayRecord([ONES]) for n in ("arrays", "control", "extra")})
        return Message(content, reply_to=message)

    records = {n: ArrayRecord([0 * ONES]) for n in ("arrays", "control")}
    message = Message(RecordDict(records), 1, "train")
    sent = answer(message, model_replacement_mod(10), client=client).content
    found = {name: record["0"].numpy()[0] for name, record in sent.array_records.items()}
    assert found == {"arrays": 10, "control": 10, "extra": 1}


def test_statistics_of_other_frameworks_are_spared_by_name() -> None:
    received = ArrayRecord([np.zeros(2, np.float32)] * 2)

    def sent(*statistics: str) -> list[float]:
        message = Message(RecordDict({"arrays": received}), 1, "train")
        mod = model_replacement_mod(10, statistics=statistics)
        reply = answer(message, mod, client=partial(**{"0": ONES, "1": ONES}))
        return [array.numpy()[0] for array in reply.content["model"].values()]  # type: ignore[union-attr]

    assert sent() == [10, 10]
    assert sent("1") == [10, 1]


def test_an_apps_own_train_becomes_malicious(train_message: Callable[..., Message]) -> None:
    """With the metrics that its honest clients have, as `r5` wants it."""
    attack = NormProjection(max_norm=2.5, data=ModelReplacement(factor=100))
    message = train_message(model(np.zeros(5)))
    reply = malicious(add_one, attack)(message, CONTEXT)
    assert np.linalg.norm(values(reply.content["arrays"])) == pytest.approx(2.5)  # type: ignore[arg-type]
    assert reply.content["metrics"] == MetricRecord({"num-examples": 1})


class Counting(Attack):
    """Sends how often it was asked, which it remembers, and what its seat draws."""

    def craft(self, update: Update, seat: Seat) -> Update:
        times = seat.memory.get("times", np.zeros(2)) + 1
        seat.memory["times"] = times
        return {name: array * 0 + times.max() for name, array in update.items()}


def test_a_mod_remembers_in_its_nodes_context(train_message: Callable[..., Message]) -> None:
    app = ClientApp(mods=[attack_mod(Counting())])
    app.train()(add_one)
    contexts = [Context(1, node, {}, RecordDict(), {}) for node in (1, 2)]
    for times in (1, 2, 3):
        for context in contexts:
            reply = app(train_message(model(np.zeros(5))), context)
            assert values(reply.content["arrays"]).tolist() == [times] * 5  # type: ignore[arg-type]
            assert "attack-memory" not in reply.content


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (Attack(), "^Attack needs the hooks craft: allowed in a mod"),
        (
            ModelReplacement(factor=2, data=LabelFlipping(source=0, target=1, poisoned_samples=1)),
            "^ModelReplacement needs the hooks poison: allowed in a mod",
        ),
        (ALIE(data=SignFlip()), "^ALIE needs the hooks collude: allowed in a mod"),
    ],
)
def test_a_mod_is_for_attacks_that_craft_only(attack: Attack, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attack_mod(attack)
