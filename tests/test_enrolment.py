"""Tests of `strategies.vertical.enrolment`: who answers what, and the one line that says so."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.engines import LocalGrid
from strategies.vertical import Party, ProtocolError, enrol

ROWS = {"train": (7, "abc"), "test": (3, "def")}


def answer(party: int, **change: Any) -> dict[str, Any]:
    own = {"party": party, "outputs": 4, "features": 5 + party}
    for split, (count, digest) in ROWS.items():
        own |= {f"{split}-rows": count, f"{split}-digest": digest}
    own |= {name.replace("_", "-"): value for name, value in change.items()}
    return {name: value for name, value in own.items() if value is not None}


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
        return Message(RecordDict({"enrolment": ConfigRecord(dict(own))}), reply_to=message)

    federation = Silent(app, len(answers))
    federation.lost = lost
    return federation


def refused(federation: LocalGrid, match: str, parties: int = 2) -> None:
    with pytest.raises(ProtocolError, match=match) as caught:
        enrol(federation, parties, ROWS, timeout=2.5)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(max_examples=20, deadline=None)
@given(order=st.integers(1, 5).flatmap(lambda k: st.permutations(range(k))))
def test_parties_come_in_their_order(order: list[int]) -> None:
    found = enrol(grid([answer(k) for k in order]), len(order), ROWS, timeout=1)
    assert found == [Party(order.index(k) + 1, 4, 5 + k) for k in range(len(order))]


def test_the_config_is_sent() -> None:
    seen = []

    def listen(message: Message) -> Message:
        seen.append(dict(message.content.config_records["config"]))
        return Message(RecordDict({"enrolment": ConfigRecord(answer(0))}), reply_to=message)

    enrol(grid([listen]), 1, ROWS, timeout=1, config={"clean": True})
    enrol(grid([listen]), 1, ROWS, timeout=1)
    assert seen == [{"clean": True}, {}]


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_that_are_not_aligned_are_named(split: str) -> None:
    count = ROWS[split][0]
    wrong = answer(1, **{f"{split}_rows": count + 1})
    refused(grid([answer(0), wrong]), f"^party 1: {count + 1} {split} rows, the labels .* {count}$")
    wrong = answer(1, **{f"{split}_digest": "other"})
    refused(grid([answer(0), wrong]), f"^party 1: its {split} rows are not those of the labels")


def test_parties_that_are_not_each_there_once_are_named() -> None:
    refused(grid([answer(1), answer(0), answer(1)]), "^party 1: nodes 1 and 3 both are", 3)
    refused(grid([answer(0)]), r"parties \[0\] answered; needed are 0 to 1")
    refused(grid([answer(0), answer(2)]), r"parties \[0, 2\] answered; needed are 0 to 1")
    refused(grid([answer(0), answer(-1)]), r"parties \[-1, 0\] answered; needed are 0 to 1")
    refused(grid([answer(k) for k in range(3)]), r"parties \[0, 1, 2\] answered; .* 0 to 1")
    refused(grid([]), r"parties \[\] answered; needed are 0 to 1")


def test_an_error_reply_names_the_node() -> None:
    def fail(message: Message) -> Message:
        raise RuntimeError("out of\n  memory " + 500 * "x")

    refused(grid([answer(0), fail]), "^node 2 cannot take part: .*out of memory x")


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
        {"outputs": 0},
        {"outputs": -3},
        {"features": "many"},
        {"train_rows": [7]},
        {"test_rows": "x" * 1000},
    ],
    ids=str,
)
def test_a_malformed_answer_names_the_node(change: dict[str, Any]) -> None:
    change = {name.replace("-", "_"): value for name, value in change.items()}
    wrong = answer(1) | {"party": 1}
    wrong |= {name.replace("_", "-"): value for name, value in change.items()}
    refused(
        grid([answer(0), {name: value for name, value in wrong.items() if value is not None}]),
        "^node 2: not an enrolment",
    )


@pytest.mark.parametrize(
    "content",
    [RecordDict(), RecordDict({"enrolment": MetricRecord({"party": 1})})],
    ids=["no record", "another type"],
)
def test_an_answer_without_the_record_names_the_node(content: RecordDict) -> None:
    wrong = grid([answer(0), lambda message: Message(content, reply_to=message)])
    refused(wrong, "^node 2: not an enrolment")
