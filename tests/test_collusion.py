"""Tests of `clients.collusion`: who is changed, what is known, around anybody's strategy."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg
from flwr.serverapp.strategy import Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients import Attack, Colluders, View
from clients.grids import GridProxy
from clients.memory import is_asked, keep
from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAvg, Sniper

NODES = 7
WHO = {2, 5, 6}
_copies = itertools.count()


class ALittle(Attack):
    """Baruch et al. 2019, as far as a test needs it: mean - z * standard deviation for all."""

    knowledge = "attackers"

    def __init__(self, z: float = 1.5) -> None:
        super().__init__()
        self.z = z
        self.views: list[View] = []

    def collude(self, view: View) -> NDArray[np.float64]:
        self.views.append(view)
        row = view.known.mean(axis=0) - self.z * view.known.std(axis=0)
        return np.tile(row, (len(view.own), 1))


class InnerProduct(Attack):
    """Xie et al. 2019: a negative multiple of the mean of the others."""

    knowledge = "all"

    def __init__(self) -> None:
        super().__init__()
        self.views: list[View] = []

    def collude(self, view: View) -> NDArray[np.float64]:
        self.views.append(view)
        assert view.honest is not None
        return np.tile(-2 * view.honest.mean(axis=0), (len(view.own), 1))


class Alone(Attack):
    """Each turns its own update around, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[View] = []

    def collude(self, view: View) -> NDArray[np.float64]:
        self.views.append(view)
        view.memory["times"] = view.memory.get("times", np.zeros(1)) + 1
        return -view.own


def update_of(node: int) -> NDArray[np.float32]:
    return np.float32(0.1) * np.array([[node, 1, -node], [1, node % 3, 2]], np.float32)


def client(message: Message, context: Any) -> Message:
    """Train like anybody's client, with BatchNorm's buffers beside the weights."""
    (received,) = message.content.array_records.values()
    node = context.node_id
    arrays = {name: np.array(array.numpy()) for name, array in received.items()}
    arrays["bn.running_var"] += node
    arrays["weight"] = arrays["weight"] + update_of(node)
    arrays["bias"] = np.asarray(arrays["bias"] + np.float32(node))
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "metrics": MetricRecord({"num-examples": 1, "loss": float(node)}),
        }
    )
    reply = Message(content, reply_to=message)
    keep({"trigger": np.full(1, node)}, context, reply, asked=is_asked(message))
    return reply


def start() -> ArrayRecord:
    arrays = {
        "weight": np.full((2, 3), 2, np.float32),
        "bn.running_var": np.ones(3, np.float32),
        "bias": np.zeros((), np.float32),
    }
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def messages(number: int = 1, nodes: Iterable[int] = range(1, NODES + 1)) -> list[Message]:
    content = RecordDict({"arrays": start(), "config": ConfigRecord({"server-round": number})})
    return [Message(content, node, "train") for node in nodes]


def sent(reply: Message) -> dict[str, NDArray[Any]]:
    return {name: array.numpy() for name, array in reply.content["arrays"].items()}  # type: ignore[union-attr]


def by_node(replies: Iterable[Message]) -> dict[int, Message]:
    return {reply.metadata.src_node_id: reply for reply in replies}


def ask(grid: Any, how: str, number: int = 1) -> dict[int, Message]:
    if how == "send":
        return by_node(grid.send_and_receive(messages(number)))
    waiting = set(grid.push_messages(messages(number)))
    return by_node(grid.pull_messages(waiting))


@pytest.fixture(params=["send", "push"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("who", [WHO, WHO.__contains__])
def test_honest_replies_pass_and_the_attackers_send_what_they_agree_on(who: Any, how: str) -> None:
    attack = ALittle()
    honest = ask(LocalGrid(client, NODES), how)
    replies = ask(Colluders(LocalGrid(client, NODES), attack, who), how)
    assert replies.keys() == honest.keys()
    (view,) = attack.views
    rows = np.array([np.append(update_of(node), node) for node in sorted(WHO)])
    np.testing.assert_allclose(view.own, rows, atol=1e-6)
    assert view.center.tolist() == [2] * 6 + [0]
    assert view.columns == {"weight": slice(0, 6), "bias": slice(6, 7)}
    assert (view.asked, view.round) == (NODES, 1)
    agreed = rows.mean(axis=0) - 1.5 * rows.std(axis=0)
    for node, reply in replies.items():
        assert "attack-memory" not in reply.content
        assert reply.content["metrics"] == honest[node].content["metrics"]
        if node not in WHO:
            assert reply.content == honest[node].content
            continue
        arrays = sent(reply)
        np.testing.assert_allclose(arrays["weight"].ravel(), 2 + agreed[:6], rtol=1e-6)
        np.testing.assert_allclose(arrays["bias"], agreed[6], rtol=1e-6)
        assert arrays["bn.running_var"].tolist() == [1 + node] * 3  # a statistic: as it was
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_with_own_and_attackers_knowledge_no_honest_update_is_seen(how: str) -> None:
    for attack, rows in ((ALittle(), 3), (Alone(), 1)):
        ask(Colluders(LocalGrid(client, NODES), attack, WHO), how)
        assert len(attack.views) == 3 // rows
        honest = {update_of(node).ravel()[0] for node in range(1, NODES + 1) if node not in WHO}
        for view in attack.views:
            assert view.honest is None
            assert view.known is view.own
            assert view.own.shape == (rows, 7)
            assert not honest & {np.float32(value) for value in view.own[:, 0]}


def test_with_all_knowledge_the_honest_updates_are_there(how: str) -> None:
    attack = InnerProduct()
    replies = ask(Colluders(LocalGrid(client, NODES), attack, WHO), how)
    (view,) = attack.views
    others = [node for node in range(1, NODES + 1) if node not in WHO]
    mean = np.mean([update_of(node).ravel() for node in others], axis=0)
    assert view.honest is not None
    assert view.known.shape == (NODES, 7)
    for node in WHO:
        np.testing.assert_allclose(sent(replies[node])["weight"].ravel(), 2 - 2 * mean, rtol=1e-6)


class Slow(GridProxy):
    """Gives out one reply a time, the attackers' before the others'."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        nodes = {i: self.nodes[i] for i in message_ids if i in self.nodes}
        for identifier in sorted(nodes, key=lambda i: (nodes[i] not in WHO, nodes[i]))[:1]:
            del self.nodes[identifier]
            return super().pull_messages([identifier])
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        identifiers = list(super().push_messages(messages))
        self.nodes = {
            identifier: message.metadata.dst_node_id
            for identifier, message in zip(identifiers, messages, strict=True)
        }
        return identifiers


@pytest.mark.parametrize(
    ("attack", "come"),
    [
        (ALittle(), [[], [], [2, 5, 6], [1], [3], [4], [7]]),
        (InnerProduct(), [[], [], [], [1], [3], [4], [2, 5, 6, 7]]),
        (Attack(), [[2], [5], [6], [1], [3], [4], [7]]),
    ],
)
def test_the_attackers_wait_for_what_they_may_know(attack: Attack, come: list[list[int]]) -> None:
    grid = Colluders(Slow(LocalGrid(client, NODES)), attack, WHO)
    waiting = set(grid.push_messages(messages()))
    found = []
    for _ in range(NODES):
        replies = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
        found.append(sorted(by_node(replies)))
    assert found == come
    assert not waiting
    assert not grid._batches


@settings(max_examples=10)
@given(failing=st.sets(st.integers(1, NODES)), knows=st.sampled_from([ALittle, InnerProduct]))
def test_those_who_fail_take_no_part(failing: set[int], knows: Callable[[], Any]) -> None:
    def failing_client(message: Message, context: Any) -> Message:
        if context.node_id in failing:
            return Message(Error(code=5, reason="gone"), reply_to=message)
        return client(message, context)

    attack = knows()
    if knows is InnerProduct:
        failing -= {1}  # without an honest one there is no mean
    for how in ("send", "push"):
        attack.views.clear()
        replies = ask(Colluders(LocalGrid(failing_client, NODES), attack, WHO), how)
        assert {node for node, reply in replies.items() if reply.has_error()} == failing
        assert [len(view.own) for view in attack.views] == [len(WHO - failing)] * (
            not failing >= WHO
        )


@pytest.mark.parametrize("attack", [ALittle(z=3.0), InnerProduct(), Alone()])
@pytest.mark.parametrize("kind", [FedAvg, FlowersFedAvg, Sniper])
def test_around_anybodys_strategy(attack: Attack, kind: type[Strategy]) -> None:
    def run(*attackers: int) -> NDArray[Any]:
        grid = Colluders(LocalGrid(client, NODES), attack, attackers)
        strategy = kind(fraction_evaluate=0.0)
        result = strategy.start(grid=grid, initial_arrays=start(), num_rounds=2)
        for metrics in result.train_metrics_clientapp.values():
            assert not metrics.get("invalid-nodes")
        return result.arrays["weight"].numpy()

    assert np.abs(run(*WHO) - run()).max() > 0.01


def test_memory_is_kept_by_the_number_of_the_client_and_goes_out_again(how: str) -> None:
    given: dict[int, Any] = {}

    def remembering(message: Message, context: Any) -> Message:
        record = message.content.get("attack-memory")
        given[context.node_id] = None if record is None else dict(record)
        return client(message, context)

    attack = Alone()
    colluders = Colluders(LocalGrid(remembering, NODES), attack, {2, 5}, number=lambda n: n + 10)
    ask(colluders, how)
    assert {n: m for n, m in given.items() if m is not None} == {2: {}, 5: {}}
    assert {name: float(array[0]) for name, array in colluders.memory.items()} == {
        "12/trigger": 2.0,
        "15/trigger": 5.0,
        "colluders/times": 2.0,
    }
    resumed = Colluders(LocalGrid(remembering, NODES), attack, {2}, number=lambda n: n + 10)
    resumed.memory = colluders.memory
    ask(resumed, how, 2)
    assert given[2].keys() == {"trigger"}
    assert given[5] is None
    assert float(resumed.memory["colluders/times"][0]) == 3


def test_what_an_attack_leaves_is_sent_to_the_bit(how: str) -> None:
    honest = ask(LocalGrid(client, NODES), how)
    for attack in (Attack(), ALittle(z=0.0)):
        replies = ask(Colluders(LocalGrid(client, NODES), attack, {3}), how)
        assert replies[3].content == honest[3].content


def test_nested_attacks_agree_one_after_the_other() -> None:
    attack = Alone()
    attack.data = ALittle()
    replies = ask(Colluders(LocalGrid(client, NODES), attack, WHO), "send")
    (view,) = attack.views
    assert view.own.shape == (3, 7)  # the nest knows what its most knowing part does
    assert (view.own == view.own[0]).all()
    np.testing.assert_allclose(sent(replies[2])["weight"].ravel(), 2 - view.own[0, :6], rtol=1e-6)


@pytest.mark.parametrize("diverged", [False, True])
def test_an_attacker_with_other_arrays_or_none_that_are_finite_takes_no_part(
    diverged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(message: Message, context: Any) -> Message:
        reply = client(message, context)
        if context.node_id == 5:
            (own,) = reply.content.array_records.values()
            nan = {n: Array(np.full(a.shape, np.nan, np.float32)) for n, a in own.items()}
            other = ArrayRecord([np.ones(4, np.float32)])
            reply.content["arrays"] = ArrayRecord(nan) if diverged else other
        return reply

    attack = ALittle()
    grid = Colluders(LocalGrid(odd, NODES), attack, WHO)
    replies = ask(grid, "send")
    assert len(attack.views[0].own) == 2
    assert all(np.isfinite(sent(replies[node])["weight"]).all() for node in WHO - {5})
    assert np.isnan(sent(replies[5])["weight"]).all() if diverged else "0" in sent(replies[5])
    assert grid.notes == {"cannot-act": 1}
    (warning,) = [r.getMessage() for r in caplog.records if "cannot act" in r.getMessage()]
    assert "ALittle cannot act on 1 of 3 replies" in warning


def test_marks_of_replies_are_counted_and_no_strategy_sees_them(how: str) -> None:
    def marking(message: Message, context: Any) -> Message:
        reply = client(message, context)
        if context.node_id in {1, 5, 6}:  # of whom 1 is no attacker
            reply.content["attack-cannot-act"] = ConfigRecord({"why": ["no victims"]})
        return reply

    for attack in (Attack(), ALittle()):
        grid = Colluders(LocalGrid(marking, NODES), attack, WHO)
        for number in (1, 2):
            replies = ask(grid, how, number)
            assert grid.notes == {"cannot-act": 2}
            marked = {node for node in replies if "attack-cannot-act" in replies[node].content}
            assert marked == {1}


def test_a_wrong_shape_is_one_line() -> None:
    class Flat(Attack):
        def collude(self, view: View) -> NDArray[np.float64]:
            return view.own[0]

    grid = Colluders(LocalGrid(client, NODES), Flat(), WHO)
    with pytest.raises(
        ValueError, match=r"^Flat.collude returns shape \(7,\): allowed is \(1, 7\)"
    ):
        grid.send_and_receive(messages())


def test_other_messages_pass() -> None:
    attack = ALittle()
    grid = Colluders(LocalGrid(client, NODES), attack, WHO)
    question = [Message(RecordDict({"arrays": start()}), node, "evaluate") for node in (1, 2)]
    assert len(list(grid.send_and_receive(question))) == 2
    assert len(list(grid.pull_messages(grid.push_messages(question)))) == 2
    assert not attack.views


def test_in_a_nest_each_sees_what_it_may_know(how: str) -> None:
    outer, inner = ALittle(), InnerProduct()
    outer.data = inner
    ask(Colluders(LocalGrid(client, NODES), outer, WHO), how)
    assert [view.honest is None for view in outer.views] == [True]
    assert [view.honest is None for view in inner.views] == [False]
    assert len(outer.views[0].clients) == NODES
