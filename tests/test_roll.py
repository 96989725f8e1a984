"""Nodes that come, go and lie about who they are."""

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fl_backdoor.errors import UserError
from fl_backdoor.federation.engines import LocalGrid, error_reply
from fl_backdoor.federation.roll import Roll

from .conftest import unavailable

ATTACKER = 1
"""Of the three clients that every federation here begins with."""

DATA = "MNIST"

FIT: dict[str, Any] = {"partition-id": 0, "attacker": False, "data": DATA}
MISFITS: list[Any] = [
    {},
    *({name: FIT[name] for name in FIT if name != missing} for missing in FIT),
    *(FIT | {"partition-id": p} for p in (-1, 3, 2**62, 0.0, True, "0", [0], b"0")),
    *(FIT | {"attacker": a} for a in (0, "False", [False])),
    *(FIT | {"data": d} for d in ("MNIST stand-in", "", 0, "\x1b[31m", b"MNIST")),
    "no\nplace \x1b[31m",
]


class OpenGrid(LocalGrid):
    """Anybody can move in and out, and those in `mute` do not answer for now."""

    def __init__(self, *answers: Any) -> None:
        self.answers: dict[int, Any] = {}
        self.asked: list[int] = []
        self.mute: set[int] = set()
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            self.asked.append(context.node_id)
            answer = self.answers[context.node_id]
            if callable(answer):
                return answer(message)  # type: ignore[no-any-return]
            if isinstance(answer, str):
                return error_reply(message, answer)
            return Message(RecordDict({"enrolment": ConfigRecord(answer)}), reply_to=message)

        super().__init__(app, 0)
        for answer in answers:
            self.add(answer)

    def add(self, answer: Any, node: int | None = None) -> int:
        node = node or len(self.answers) + 1
        self.answers[node] = answer
        self._contexts[node] = Context(1, node, {}, RecordDict(), {})
        return node

    def remove(self, node: int) -> None:
        del self._contexts[node]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        there = [
            name
            for name in message_ids
            if self._replies[name].metadata.src_node_id not in self.mute
        ]
        return list(super().pull_messages(there))


def claim(partition: int) -> dict[str, Any]:
    return {"partition-id": partition, "attacker": partition == ATTACKER, "data": DATA}


def begun() -> tuple[OpenGrid, Roll]:
    grid = OpenGrid(claim(2), claim(0), claim(ATTACKER))
    return grid, Roll(grid, 3, DATA, timeout=1)


def test_those_who_are_there() -> None:
    grid, roll = begun()
    assert roll.partitions == {1: 2, 2: 0, 3: ATTACKER}
    assert roll.attackers == (ATTACKER,)
    assert roll.players() == [2, 3, 1]
    assert grid.asked == [1, 2, 3]


def test_a_newcomer_takes_the_place_of_one_who_is_gone() -> None:
    grid, roll = begun()
    late = grid.add(claim(0))
    assert roll.players() == [2, 3, 1]
    grid.remove(2)
    assert roll.players() == [late, 3, 1]
    assert roll.partitions[late] == roll.partitions[2] == 0
    grid.add(claim(0), node=2)
    assert roll.players() == [late, 3, 1]
    assert grid.asked == [1, 2, 3, late, 2]


def test_who_comes_back_is_asked_again() -> None:
    grid, roll = begun()
    grid.remove(2)
    assert roll.players() == [3, 1]
    grid.remove(1)
    grid.add(claim(2), node=2)
    assert roll.players() == [3, 2]
    assert roll.partitions == {1: 2, 2: 2, 3: ATTACKER}


def test_nobody_changes_sides(caplog: pytest.LogCaptureFixture) -> None:
    grid, roll = begun()
    grid.remove(3)
    grid.add(claim(ATTACKER) | {"attacker": False})
    assert roll.players() == [2, 1]
    assert "node 4 (partition-id=1, attacker=false): the run began otherwise" in caplog.text


def test_nobody_waits_for_the_answer_of_a_newcomer() -> None:
    grid, roll = begun()
    grid.remove(2)
    late = grid.add(claim(0))
    grid.mute = {late}
    for _ in range(2):
        assert roll.players() == [3, 1]
    grid.mute = set()
    assert roll.players() == [late, 3, 1]
    assert grid.asked.count(late) == 1


def test_who_was_gone_when_asked_is_asked_again() -> None:
    grid, roll = begun()
    grid.remove(2)
    late = grid.add(unavailable)
    assert roll.players() == [3, 1]
    grid.answers[late] = claim(0)
    assert roll.players() == [late, 3, 1]


@pytest.mark.parametrize("answer", MISFITS, ids=repr)
def test_who_gives_no_answer_stays_out(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    grid, roll = begun()
    grid.remove(2)
    grid.add(answer)
    for _ in range(2):
        assert roll.players() == [3, 1]
    assert grid.asked.count(4) == 1
    assert caplog.messages[-1].startswith("node 4 cannot take part: ")
    with pytest.raises(UserError, match=r"^node 1 cannot take part: ") as error:
        Roll(OpenGrid(answer, claim(1), claim(2)), 3, DATA, timeout=1)
    for said in (caplog.messages[-1], str(error.value)):
        assert said.isprintable()


@pytest.mark.parametrize("partitions", [[0, 0, 1], [0, 1, 2, 2]])
def test_a_run_begins_with_every_client_once(partitions: list[int]) -> None:
    with pytest.raises(UserError, match=r"^num_clients=3: the nodes that answered hold partitions"):
        Roll(OpenGrid(*map(claim, partitions)), 3, DATA, timeout=60)


def test_a_run_begins_beside_a_node_that_is_gone_but_not_yet_missed() -> None:
    grid = OpenGrid(claim(0), claim(1), claim(2), claim(0))
    grid.mute = {1}
    assert Roll(grid, 3, DATA, timeout=1).partitions == {2: 1, 3: 2, 4: 0}
    grid = OpenGrid(unavailable, claim(1), claim(2), claim(0))
    assert Roll(grid, 3, DATA, timeout=1).partitions == {2: 1, 3: 2, 4: 0}


def test_a_run_waits_for_its_clients() -> None:
    with pytest.raises(UserError, match=r"^num_clients=3: only 2 nodes connected$"):
        Roll(OpenGrid(claim(0), claim(1)), 3, DATA, timeout=0)
    grid = OpenGrid(claim(0), claim(1), claim(2))
    grid.mute = {3}
    with pytest.raises(UserError, match=r"^num_clients=3: .* hold partitions \[0, 1\]$"):
        Roll(grid, 3, DATA, timeout=0)


CLAIMS = [claim(partition) for partition in range(3)]


@given(
    st.lists(
        st.one_of(
            st.integers(1, 12),
            st.sampled_from(CLAIMS),
            st.tuples(st.sampled_from(CLAIMS), st.integers(1, 6)),
        )
    )
)
def test_one_node_a_client_and_all_of_them_there(moves: list[Any]) -> None:
    """Whoever goes (a number), comes (a claim), or comes back, perhaps as another (both)."""
    grid, roll = begun()
    before: list[int] = []
    for move in moves:
        there = set(grid.get_node_ids())
        if isinstance(move, dict):
            grid.add(move)
        elif isinstance(move, tuple):
            answer, node = move
            if node in grid.answers and node not in there:
                grid.add(answer, node)
        elif move in there:
            grid.remove(move)
        nodes, online = roll.players(), set(grid.get_node_ids())
        players = [roll.partitions[node] for node in nodes]
        assert players == [grid.answers[node]["partition-id"] for node in nodes]
        assert players == sorted({grid.answers[node]["partition-id"] for node in online})
        assert set(nodes) <= online
        assert set(before) & online <= set(nodes)  # nobody loses a place while there
        before = nodes
