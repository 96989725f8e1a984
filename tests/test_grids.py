"""Replies that come late, in parts, or not at all."""

import time
from collections.abc import Iterable
from unittest.mock import Mock

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from hypothesis import given
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.federation.grids import GridProxy, PartOfGrid, PromptGrid

NODES = 5


class Slow(LocalGrid):
    """Has the reply of node n only when asked for the n-th time of `turns`; 0: never."""

    def __init__(self, turns: list[int]) -> None:
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            return Message(RecordDict(), reply_to=message)

        super().__init__(app, len(turns))
        self.turns, self.looks = turns, 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.looks += 1
        assert set(message_ids) <= self._replies.keys()
        there = [
            name
            for name in message_ids
            if self.turns[self._replies[name].metadata.src_node_id - 1] == self.looks
        ]
        return list(super().pull_messages(there))


def ask(grid: Grid, timeout: float | None = None) -> list[int]:
    messages = [Message(RecordDict(), node, "query") for node in range(1, NODES + 1)]
    replies = grid.send_and_receive(messages, timeout=timeout)
    return sorted(reply.metadata.src_node_id for reply in replies)


@given(st.lists(st.integers(1, 4), min_size=NODES, max_size=NODES))
def test_replies_come_once_and_waiting_ends_with_the_last(turns: list[int]) -> None:
    slow = Slow(turns)
    assert ask(PromptGrid(slow)) == list(range(1, NODES + 1))
    assert slow.looks == max(turns)


def test_who_does_not_answer_in_time_is_missing() -> None:
    assert ask(PromptGrid(Slow([1, 0, 2, 0, 1])), timeout=0.05) == [1, 3, 5]


def test_what_could_not_be_sent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's grid has None for it."""
    slow = Slow([1] * NODES)
    push = slow.push_messages
    monkeypatch.setattr(slow, "push_messages", lambda messages: [*push(messages)[1:], None])
    assert ask(PromptGrid(slow)) == [2, 3, 4, 5]


def test_without_messages_there_is_no_look() -> None:
    slow = Slow([])
    assert list(PromptGrid(slow).send_and_receive([])) == []
    assert slow.looks == 0


def test_looks_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, naps = [0.0], []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    ask(PromptGrid(Slow([0] * NODES)), timeout=200)
    assert naps[0] == 0.005
    assert naps == sorted(naps)
    assert naps[-1] == 1


def test_a_proxy_forwards_all_that_a_grid_has() -> None:
    grid = Mock(spec=Grid)
    proxy = GridProxy(grid)
    assert proxy.run is grid.run
    calls = {
        "set_run": ["run"],
        "create_message": ["content", "query", 1, "group", None],
        "get_node_ids": [],
        "push_messages": ["messages"],
        "pull_messages": ["identifiers"],
        "send_and_receive": ["messages"],
    }
    assert {*calls, "run"} == Grid.__abstractmethods__
    for name, arguments in calls.items():
        result = getattr(proxy, name)(*arguments)
        assert result is (None if name == "set_run" else getattr(grid, name).return_value)
        assert list(getattr(grid, name).call_args.args) == arguments


def test_a_part_of_a_grid_has_its_nodes_whoever_goes() -> None:
    slow = Slow([1] * NODES)
    part = PartOfGrid(slow, [2, 4])
    slow._contexts.clear()
    assert list(part.get_node_ids()) == [2, 4]
