"""Who takes part, and whether all parties hold the same rows in the same order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ..checks import line
from ..replies import is_from_grid

MAX_OUTPUTS = 2**16
"""No party sends more values for a row: the top model would take all memory."""


class ProtocolError(RuntimeError):
    """A party that cannot take part: the message is one line that names it."""


@dataclass(frozen=True)
class Party:
    """What a passive party says of itself.

    Attributes
    ----------
    node : int
        Flower's node id.
    outputs : int
        m_k, the values that it sends for a row.
    """

    node: int
    outputs: int


def enrol(
    grid: Grid,
    num_parties: int,
    rows: Mapping[str, tuple[int, str]],
    *,
    timeout: float,
) -> list[Party]:
    """Ask every node which passive party it is, and compare its rows with those of the labels.

    Parameters
    ----------
    grid : Grid
        The federation; all its nodes must be passive parties.
    num_parties : int
        K.
    rows : mapping of "train" and "test" to (count, digest)
        The rows that the labels belong to, and a digest of their ids in order that every party
        makes alike.
    timeout : float
        Seconds to wait for the answers.

    Returns
    -------
    list of Party
        Party 0 to K-1.

    Raises
    ------
    ProtocolError
        If a node does not answer, the parties are not 0 to K-1, or rows are not aligned.
    ValueError
        If a digest is empty: alignment could not be checked.
    """
    for split, (_, digest) in rows.items():
        if not digest:
            raise ValueError(f"the digest of the {split} rows must not be empty")
    messages = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    silent = {message.metadata.dst_node_id for message in messages}
    parties: dict[int, Party] = {}
    for node, reply in ask(grid, messages, timeout).items():
        silent.discard(node)
        if is_from_grid(reply):  # it has just gone: another may be in its place
            continue
        if reply.has_error():
            raise ProtocolError(f"node {node} cannot take part: {line(reply.error.reason)}")
        try:
            record = dict(reply.content.config_records["enrolment"])
            number = _integer(record, "party", num_parties - 1)
            party = Party(node, _integer(record, "outputs", MAX_OUTPUTS))
            own = {s: (_integer(record, f"{s}-rows"), record[f"{s}-digest"]) for s in rows}
        except (KeyError, ValueError) as error:
            raise ProtocolError(f"node {node}: not an enrolment ({line(error)})") from error
        if party.outputs < 1:
            raise ProtocolError(f"party {number}: sends no values for a row")
        if number in parties:
            raise ProtocolError(f"party {number}: nodes {parties[number].node} and {node} both are")
        parties[number] = party
        for split, (count, digest) in rows.items():
            if own[split][0] != count:
                raise ProtocolError(
                    f"party {number}: {own[split][0]} {split} rows, the labels are of {count}"
                )
            if own[split][1] != digest:
                raise ProtocolError(
                    f"party {number}: its {split} rows are not those of the labels, or in another "
                    "order (the digests of their ids differ)"
                )
    if silent:
        raise ProtocolError(f"node {min(silent)} did not answer within {timeout:g} s")
    if sorted(parties) != list(range(num_parties)):
        raise ProtocolError(
            f"parties {sorted(parties)} answered; needed are 0 to {num_parties - 1}, each once"
        )
    return [parties[number] for number in range(num_parties)]


def ask(grid: Grid, messages: Sequence[Message], timeout: float) -> dict[int, Message]:
    """Send messages and return the replies, the last of each, by the node that was asked."""
    asked = {}
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        if is_from_grid(reply):
            request = reply.metadata.reply_to_message_id
            sent = (m.metadata for m in messages if m.metadata.message_id == request)
            node = next((metadata.dst_node_id for metadata in sent), node)
        asked[node] = reply
    return asked


def _integer(record: Mapping[str, object], name: str, most: int = 2**63 - 1) -> int:
    value = record[name]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is no integer of 0 to {most}")
    return value
