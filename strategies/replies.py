"""Reading train replies as hostile input.

Whatever a client sends is checked against the model that was sent to it. A reply that fails
a check is dropped with a reason; the replies that pass come back in a canonical order, so
that nothing computed from them depends on which client happened to answer first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import WARNING

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore import log

from .structures import Structure, Values, complaint, disagreement, structure_of
from .vectors import decode, has_finite_norm, is_floating

MAX_EXAMPLES = 10**9
"""No client trains on more than a billion examples in a round: such a count is a lie."""


class InvalidReplyError(Exception):
    """A reply that must not reach the average; the message is the reason."""


@dataclass(frozen=True)
class Reply:
    """A train reply that can be averaged.

    Attributes
    ----------
    message : Message
        As it came.
    record : str
        Name of the ArrayRecord that is the model.
    values : dict from name to array
        The model, read once: views of the message's bytes.
    """

    message: Message
    record: str
    values: Values

    @property
    def node(self) -> int:
        """The node that sent it."""
        return int(self.message.metadata.src_node_id)


@dataclass(frozen=True)
class Screening:
    """What is left of a round's replies, and what was thrown away.

    Attributes
    ----------
    valid : tuple of Reply
        Replies that passed every check, in an order that depends on their content only.
    invalid : dict from node id to reason
        Replies that were dropped.
    missing : tuple of str
        What the federation itself says of nodes that did not reply.
    disagreement : str
        Where nothing is valid because all clients alike sent another model than they got: what
        they sent, and what the strategy sent. No client is to blame for it.
    """

    valid: tuple[Reply, ...]
    invalid: dict[int, str]
    missing: tuple[str, ...] = ()
    disagreement: str = ""

    def report(self) -> None:
        """Name the dropped and the missing replies in the log."""
        if self.disagreement:
            log(WARNING, "Dropped all replies: %s", self.disagreement)
        else:
            for node, reason in self.invalid.items():
                log(WARNING, "Dropped the reply of node %d: %s", node, reason)
        for reason in self.missing:
            log(WARNING, "A node did not reply: %s", reason)


def screen(
    replies: Iterable[Message],
    sent: ArrayRecord | None,
    weighted_by_key: str,
    *,
    record: str = "arrays",
    more_records: bool = False,
) -> Screening:
    """Separate the train replies that can be aggregated from those that cannot.

    Parameters
    ----------
    replies : iterable of Message
        The replies of one round, as they arrived.
    sent : ArrayRecord or None
        The model sent to the clients. A reply must hold its arrays, or some of them, in the same
        shapes; floating-point arrays may come in another precision. Of several such structures
        the one that most replies share is right, in a tie the whole model. Without ``sent``, or
        where it is empty, the structure that most replies share is right, in a tie none. So are,
        in any case, the metrics that most replies have.
    weighted_by_key : str
        Metric that must hold a believable number of examples.
    record : str (default: "arrays")
        Name of the record that is the model where several could be, as control variates could.
    more_records : bool (default: False)
        Permit further records beside the model and its metrics, and, where the model sent holds
        no floating-point array, models of any size: for strategies that read the messages
        themselves.
    """
    sent = sent or None
    opaque = more_records and sent is not None and not any(map(is_floating, sent.values()))
    open_ended = None if opaque else sent
    passed: list[tuple[Reply, Structure, object]] = []
    invalid: dict[int, str] = {}
    missing: list[str] = []
    answered: set[str] = set()
    for message in replies:
        request = message.metadata.reply_to_message_id
        try:
            if request and request in answered:
                raise InvalidReplyError("a second reply to the same message")
            answered.add(request)
            _check_envelope(message, "train")
            metrics = _check_metrics(message, weighted_by_key, more_records=more_records)
            reply, others = _read(message, open_ended, record, more_records=more_records)
        except InvalidReplyError as reason:
            if is_from_grid(message):
                missing.append(str(reason))
            else:
                invalid[message.metadata.src_node_id] = str(reason)
        else:
            structure = () if opaque else structure_of(reply.values, exact=sent is None)
            passed.append((reply, structure, (reply.record, metrics, others)))

    complaints = {structure: complaint(structure, open_ended) for _, structure, _ in passed}
    fitting = [entry for entry in passed if not complaints[entry[1]]]
    right = _most_common([entry[1:] for entry in fitting], open_ended)
    valid = []
    for reply, structure, rest in passed:
        if right == (structure, rest):
            valid.append(reply)
        else:
            invalid[reply.node] = complaints[structure] or (
                "records or metrics unlike most other replies"
            )
    valid.sort(key=_content_key)
    structures = [structure for _, structure, _ in passed]
    said = "" if fitting else disagreement(structures, sent, len(valid) + len(invalid))
    return Screening(tuple(valid), invalid, tuple(missing), said)


def screen_metrics(replies: Iterable[Message], weighted_by_key: str) -> list[Message]:
    """Return the evaluation replies that can be averaged, and name the others in the log."""
    passed: list[tuple[Message, object]] = []
    invalid: dict[int, str] = {}
    for reply in replies:
        try:
            _check_envelope(reply, "evaluate")
            passed.append((reply, _check_metrics(reply, weighted_by_key, more_records=False)))
        except InvalidReplyError as error:
            if not is_from_grid(reply):
                invalid[reply.metadata.src_node_id] = str(error)
    right = _most_common([((), metrics) for _, metrics in passed], None)
    valid = [reply for reply, metrics in passed if right == ((), metrics)]
    for reply, metrics in passed:
        if right != ((), metrics):
            invalid[reply.metadata.src_node_id] = "records or metrics unlike most other replies"
    valid.sort(key=lambda reply: repr(sorted(metrics_of(reply, weighted_by_key)[1].items())))
    for node, reason in invalid.items():
        log(WARNING, "Dropped the evaluation of node %d: %s", node, reason)
    return valid


def is_from_grid(reply: Message) -> bool:
    """Tell an error of the federation itself: its SuperLink answers for nodes that are gone."""
    return reply.has_error() and reply.metadata.src_node_id == reply.metadata.dst_node_id


def metrics_of(reply: Message, weighted_by_key: str) -> tuple[str, MetricRecord]:
    """Return the name and the content of the MetricRecord that holds the number of examples."""
    for name, record in reply.content.metric_records.items():
        if weighted_by_key in record:
            return name, record
    raise InvalidReplyError(f"no number under the metric {weighted_by_key!r}")


def with_records(reply: Message, records: Mapping[str, ArrayRecord | MetricRecord]) -> Message:
    """Return a copy of a reply with some records replaced; the original is left alone."""
    content = RecordDict({**reply.content, **records})
    copy: Message = Message(content=content, metadata=reply.metadata)  # type: ignore[call-overload]
    return copy


def with_votes(reply: Message, weighted_by_key: str, votes: float = 1.0) -> Message:
    """Return a copy of a reply with another number of examples: 1 for the uniform average."""
    name, metrics = metrics_of(reply, weighted_by_key)
    return with_records(reply, {name: MetricRecord({**metrics, weighted_by_key: votes})})


def _read(
    message: Message, sent: ArrayRecord | None, preferred: str, *, more_records: bool
) -> tuple[Reply, tuple[object, ...]]:
    """Read every array; return the model, and the structure of whatever else there is."""
    records = message.content.array_records
    if len(records) != 1 and not (more_records and records):
        raise InvalidReplyError(f"{len(records)} ArrayRecords instead of 1")
    values = {name: _decoded(record, sent or {}) for name, record in records.items()}
    model = next(iter(values))
    others: tuple[object, ...] = ()
    if len(values) > 1:
        structures = {name: structure_of(arrays) for name, arrays in values.items()}
        fitting = [name for name in values if not complaint(structures[name], sent)]
        model = min(fitting or values, key=lambda name: (name != preferred, name))
        others = tuple(sorted((name, structures[name]) for name in values if name != model))
    found = values[model]
    # In the order of the model that was sent, not in the client's.
    order = [*sorted(found.keys() - (sent or {}).keys()), *(n for n in sent or () if n in found)]
    return Reply(message, model, {name: found[name] for name in order}), others


def _decoded(arrays: ArrayRecord, sent: Mapping[str, Array]) -> Values:
    decoded = {}
    for name, array in arrays.items():
        try:
            values = decode(array)
            declared = (tuple(array.shape), np.dtype(array.dtype))
        except Exception as error:  # hostile bytes: whatever parsing them raises
            raise InvalidReplyError(f"array {name!r:.60} cannot be read") from error
        if (values.shape, values.dtype) != declared:
            raise InvalidReplyError(
                f"array {name!r:.60} is not the {declared!s:.80} that it says it is"
            )
        if values.dtype.kind not in "biuf":
            raise InvalidReplyError(f"array {name!r:.60} holds {values.dtype!s:.40}")
        # A float64 that float32 cannot hold would make the average infinite in every round.
        dtype = np.dtype(sent[name].dtype) if name in sent else None
        if values.dtype.kind == "f" and not has_finite_norm(values, dtype):
            raise InvalidReplyError(f"array {name!r:.60} holds NaN, inf or immense values")
        decoded[name] = values
    return decoded


def _most_common(
    signatures: list[tuple[Structure, object]], sent: ArrayRecord | None
) -> tuple[Structure, object] | None:
    """Return the signature that most replies have.

    In a tie it is none, or an attacker could choose its words so as to win; unless one of them
    is the whole model that was sent, which nobody had to choose.
    """
    counts = Counter(signatures)
    most = max(counts.values(), default=0)
    tied = [signature for signature, count in counts.items() if count == most]
    if len(tied) > 1 and sent is not None:
        tied = [signature for signature in tied if len(signature[0]) == len(sent)]
    return tied[0] if len(tied) == 1 else None


def _content_key(reply: Reply) -> tuple[object, ...]:
    """Order replies by the bytes of their arrays, then by their metrics."""
    content = reply.message.content
    record = content.array_records[reply.record]
    arrays = [record[name].data for name in reply.values]
    return (*arrays, *(repr(sorted(r.items())) for r in content.metric_records.values()))


def _check_envelope(reply: Message, message_type: str) -> None:
    if reply.has_error():
        # The reason is the client's own text: keep it short and on one line.
        raise InvalidReplyError(f"error reply ({reply.error.code}): {reply.error.reason!r:.200}")
    if not reply.has_content():
        raise InvalidReplyError("no content")
    if reply.metadata.message_type.partition(".")[0] != message_type:
        raise InvalidReplyError(f"message type {reply.metadata.message_type!r:.40}")


def _check_metrics(reply: Message, weighted_by_key: str, *, more_records: bool) -> object:
    records = reply.content.metric_records
    if len(records) != 1 and not more_records:
        raise InvalidReplyError(f"{len(records)} MetricRecords instead of 1")
    signature = tuple((record_name, _names(record)) for record_name, record in records.items())
    _, metrics = metrics_of(reply, weighted_by_key)
    count = metrics[weighted_by_key]
    if isinstance(count, list) or not 0 < count <= MAX_EXAMPLES:
        said = "a list" if isinstance(count, list) else f"{count:.6g}"
        raise InvalidReplyError(f"{weighted_by_key} = {said} is not in (0, {MAX_EXAMPLES:.0e}]")
    return signature


def _names(metrics: MetricRecord) -> tuple[tuple[str, int | None], ...]:
    """Return the names of metrics and the lengths of lists; all must hold finite numbers."""
    lengths = []
    for name in sorted(metrics):
        value = metrics[name]
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(e, int | float) and not isinstance(e, bool) for e in entries):
            raise InvalidReplyError(f"metric {name!r:.60} is not a number")
        try:
            finite = np.all(np.isfinite(np.asarray(value, dtype=np.float64)))
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidReplyError(f"metric {name!r:.60} is not a number") from error
        if not finite:
            raise InvalidReplyError(f"metric {name!r:.60} is not finite")
        lengths.append((name, len(value) if isinstance(value, list) else None))
    return tuple(lengths)
