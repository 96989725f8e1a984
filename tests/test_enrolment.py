"""Tests of `strategies.vertical.enrolment`: who answers what, and the one line that says so."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies.vertical import Party, ProtocolError, enrol

from .conftest import unavailable

ROWS = {"train": (7, "abc"), "test": (3, "def")}


def answer(party: int) -> dict[str, Any]:
    own: dict[str, Any] = {"party": party, "outputs": 4}
    for split, (count, digest) in ROWS.items():
        own |= {f"{split}-rows": count, f"{split}-digest": digest}
    return own


class Silent(LocalGrid):
    """Loses the replies of some nodes."""

    lost: tuple[int, ...] = ()

    def pull_messages(self, message_ids: Any) -> list[Message]:
        replies = super().pull_messages(message_ids)
        return [reply for reply in replies if reply.metadata.src_node_id not in self.lost]


def grid(
    answers: Sequence[Mapping[str, Any] | Callable[[Message], Message]], *lost: int
) -> LocalGrid:
    """Build a federation whose node n gives the n-th answer."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        own = answers[context.node_id - 1]
        if callable(own):
            return own(message)
        record = ConfigRecord({name: value for name, value in own.items() if value is not None})
        return Message(RecordDict({"enrolment": record}), reply_to=message)

    federation = Silent(app, len(answers))
    federation.lost = lost
    return federation


def refused(federation: LocalGrid, match: str, parties: int = 2) -> None:
    with pytest.raises(ProtocolError, match=match) as caught:
        enrol(federation, parties, ROWS, timeout=2.5)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(max_examples=20)
@given(order=st.integers(1, 5).flatmap(lambda k: st.permutations(range(k))))
def test_parties_come_in_their_order(order: list[int]) -> None:
    found = enrol(grid([answer(k) for k in order]), len(order), ROWS, timeout=1)
    assert found == [Party(order.index(k) + 1, 4) for k in range(len(order))]


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_without_a_digest_are_refused(split: str) -> None:
    rows = ROWS | {split: (ROWS[split][0], "")}
    with pytest.raises(ValueError, match=f"digest of the {split} rows must not be empty"):
        enrol(grid([answer(0)]), 1, rows, timeout=1)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_that_are_not_aligned_are_named(split: str) -> None:
    count = ROWS[split][0]
    wrong = answer(1) | {f"{split}-rows": count + 1}
    refused(grid([answer(0), wrong]), f"^party 1: {count + 1} {split} rows, the labels .* {count}$")
    wrong = answer(1) | {f"{split}-digest": "other"}
    refused(grid([answer(0), wrong]), f"^party 1: its {split} rows are not those of the labels")


def test_parties_that_are_not_each_there_once_are_named() -> None:
    refused(grid([answer(1), answer(0), answer(1)]), "^party 1: nodes 1 and 3 both are", 3)
    refused(grid([answer(0)]), r"parties \[0\] answered; needed are 0 to 1")
    refused(grid([answer(0), answer(2)]), "^node 2: not an enrolment .*party")
    refused(grid([answer(0), answer(-1)]), "^node 2: not an enrolment .*party")
    refused(grid([answer(k) for k in range(3)]), "^node 3: not an enrolment .*party")
    refused(grid([]), r"parties \[\] answered; needed are 0 to 1")


def test_an_error_reply_names_the_node() -> None:
    def fail(message: Message) -> Message:
        raise RuntimeError(500 * "x" + " out of\n  memory")

    refused(grid([answer(0), fail]), "^node 2 cannot take part: .*out of memory$")


def test_a_node_that_is_gone_is_as_if_it_never_came() -> None:
    assert enrol(grid([answer(0), unavailable, answer(1)]), 2, ROWS, timeout=1) == [
        Party(1, 4),
        Party(3, 4),
    ]
    refused(grid([answer(0), unavailable]), r"^parties \[0\] answered; needed are 0 to 1")


def test_silence_names_the_node() -> None:
    refused(grid([answer(0), answer(1)], 2), r"^node 2 did not answer within 2.5 s$")
    refused(grid([answer(0), answer(1)], 1, 2), r"^node 1 did not answer within 2.5 s$")


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in answer(0)),
        {"party": "one"},
        {"party": 1.5},
        {"party": True},
        {"party": [1]},
        {"party": "1\n2"},
        {"outputs": b"4"},
        {"outputs": ""},
        {"outputs": -3},
        {"outputs": 10**9},
        {"train-rows": [7]},
        {"test-rows": "x" * 1000},
    ],
    ids=str,
)
def test_a_malformed_answer_names_the_node(change: dict[str, Any]) -> None:
    refused(grid([answer(0), answer(1) | change]), "^node 2: not an enrolment")


def test_a_party_that_sends_nothing_is_named() -> None:
    refused(grid([answer(0), answer(1) | {"outputs": 0}]), "^party 1: sends no values for a row")


@pytest.mark.parametrize(
    "content",
    [RecordDict(), RecordDict({"enrolment": MetricRecord({"party": 1})})],
    ids=["no record", "another type"],
)
def test_an_answer_without_the_record_names_the_node(content: RecordDict) -> None:
    wrong = grid([answer(0), lambda message: Message(content, reply_to=message)])
    refused(wrong, "^node 2: not an enrolment")
