"""Nodes that come, go and lie about who they are."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fl_backdoor.engines import LocalGrid, error_reply
from fl_backdoor.errors import UserError
from fl_backdoor.roll import Roll

from .conftest import unavailable

ATTACKER = 1
"""Of the three clients that every federation here begins with."""

MISFITS: list[Any] = [
    {},
    {"attacker": False},
    {"partition-id": 0},
    *({"partition-id": p, "attacker": False} for p in (-1, 3, 2**62, 0.0, True, "0", [0], b"0")),
    *({"partition-id": 0, "attacker": a} for a in (0, "False", [False])),
    "no\nplace \x1b[31m",
    unavailable,
]


class OpenGrid(LocalGrid):
    """A federation in which anybody can move in and out, and which counts its questions."""

    def __init__(self, *answers: Any) -> None:
        self._answers: dict[int, Any] = {}
        self.asked: list[int] = []
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            self.asked.append(context.node_id)
            answer = self._answers[context.node_id]
            if callable(answer):
                return answer(message)  # type: ignore[no-any-return]
            if isinstance(answer, str):
                return error_reply(message, answer)
            return Message(RecordDict({"enrolment": ConfigRecord(answer)}), reply_to=message)

        super().__init__(app, 0)
        for answer in answers:
            self.add(answer)

    def add(self, answer: Any) -> int:
        node = len(self._answers) + 1
        self._answers[node] = answer
        self._contexts[node] = Context(1, node, {}, RecordDict(), {})
        return node

    def remove(self, node: int) -> None:
        del self._contexts[node]


def claim(partition: int) -> dict[str, Any]:
    return {"partition-id": partition, "attacker": partition == ATTACKER}


def begun() -> tuple[OpenGrid, Roll]:
    grid = OpenGrid(claim(2), claim(0), claim(ATTACKER))
    return grid, Roll(grid, 3, timeout=1)


def test_those_who_are_there() -> None:
    grid, roll = begun()
    assert roll.partitions == {1: 2, 2: 0, 3: ATTACKER}
    assert roll.attackers == (ATTACKER,)
    assert list(roll.get_node_ids()) == [2, 3, 1]
    assert grid.asked == [1, 2, 3]


def test_a_newcomer_takes_the_place_of_one_who_is_gone() -> None:
    grid, roll = begun()
    late = grid.add(claim(0))
    assert list(roll.get_node_ids()) == [2, 3, 1]
    grid.remove(2)
    assert list(roll.get_node_ids()) == [late, 3, 1]
    assert roll.partitions[late] == roll.partitions[2] == 0
    assert grid.asked == [1, 2, 3, late]


def test_nobody_changes_sides(caplog: pytest.LogCaptureFixture) -> None:
    grid, roll = begun()
    grid.remove(3)
    grid.add(claim(ATTACKER) | {"attacker": False})
    assert list(roll.get_node_ids()) == [2, 1]
    assert "node 4 (partition-id=1, attacker=False) cannot take part" in caplog.text


@pytest.mark.parametrize("answer", MISFITS, ids=repr)
def test_who_gives_no_answer_stays_out(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    grid, roll = begun()
    grid.remove(2)
    grid.add(answer)
    for _ in range(2):
        assert list(roll.get_node_ids()) == [3, 1]
    assert grid.asked.count(4) == 1
    assert caplog.messages[-1].startswith("node 4 cannot take part: ")
    with pytest.raises(UserError, match=r"^node 1 cannot take part: ") as error:
        Roll(OpenGrid(answer, claim(1), claim(2)), 3, timeout=1)
    for said in (caplog.messages[-1], str(error.value)):
        assert said.isprintable()


@pytest.mark.parametrize("partitions", [[0, 0, 1], [0, 1, 2, 2]])
def test_a_run_begins_with_every_client_once(partitions: list[int]) -> None:
    with pytest.raises(UserError, match=r"^num_clients=3: the nodes that answered hold partitions"):
        Roll(OpenGrid(*map(claim, partitions)), 3, timeout=1)


def test_a_run_waits_for_its_clients() -> None:
    with pytest.raises(UserError, match=r"^num_clients=3: only 2 nodes connected$"):
        Roll(OpenGrid(claim(0), claim(1)), 3, timeout=0)


@given(st.lists(st.one_of(st.integers(1, 12), st.sampled_from([claim(p) for p in range(3)]))))
def test_one_node_a_client_and_all_of_them_there(moves: list[Any]) -> None:
    """Whoever comes (a claim) and goes (a number)."""
    grid, roll = begun()
    before: list[int] = []
    for move in moves:
        if isinstance(move, dict):
            grid.add(move)
        elif move in grid.get_node_ids():
            grid.remove(move)
        nodes, online = list(roll.get_node_ids()), set(grid.get_node_ids())
        players = [roll.partitions[node] for node in nodes]
        assert players == sorted({grid._answers[node]["partition-id"] for node in online})
        assert set(nodes) <= online
        assert set(before) & online <= set(nodes)  # nobody loses a place while there
        before = nodes
    assert sorted(grid.asked) == sorted(set(grid.asked))
