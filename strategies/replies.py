"""Reading train replies as hostile input.

Whatever a client sends is checked against the model that was sent to it. A reply that fails
a check is dropped with a reason; the replies that pass come back in a canonical order, so
that nothing computed from them depends on which client happened to answer first.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import WARNING
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore import log
from numpy.typing import NDArray

MAX_EXAMPLES = 10**9
"""No client trains on more than a billion examples in a round: such a count is a lie."""

Signature = tuple[object, ...]


class InvalidReplyError(Exception):
    """A reply that must not reach the average; the message is the reason."""


@dataclass(frozen=True)
class Screening:
    """What is left of a round's replies, and what was thrown away.

    Attributes
    ----------
    valid : tuple of Message
        Replies that passed every check, in an order that depends on their content only.
    invalid : dict from node id to reason
        Replies that were dropped.
    missing : tuple of str
        What the federation itself says of nodes that did not reply.
    """

    valid: tuple[Message, ...]
    invalid: dict[int, str]
    missing: tuple[str, ...] = ()

    def report(self) -> None:
        """Name the dropped and the missing replies in the log."""
        for node, reason in self.invalid.items():
            log(WARNING, "Dropped the reply of node %d: %s", node, reason)
        for reason in self.missing:
            log(WARNING, "A node did not reply: %s", reason)


def screen(
    replies: Iterable[Message],
    sent: ArrayRecord | None,
    weighted_by_key: str,
    *,
    message_type: str = "train",
) -> Screening:
    """Separate the replies that can be aggregated from those that cannot.

    Parameters
    ----------
    replies : iterable of Message
        The replies of one round, as they arrived.
    sent : ArrayRecord or None
        The model sent to the clients: names, shapes and dtypes must be the same in the
        reply. Without it the structure that most replies share is taken as right. So are,
        in any case, the metrics that most replies have; in a tie no reply is valid.
    weighted_by_key : str
        Metric that must hold a believable number of examples.
    message_type : str
        ``"train"``, or ``"evaluate"``, whose replies hold metrics only.
    """
    invalid: dict[int, str] = {}
    missing: list[str] = []
    passed: list[tuple[Message, Signature]] = []
    answered: set[str] = set()
    for reply in replies:
        node = reply.metadata.src_node_id
        request = reply.metadata.reply_to_message_id
        try:
            if request and request in answered:
                raise InvalidReplyError("a second reply to the same message")
            answered.add(request)
            _check_envelope(reply, message_type)
            signature = _check_metrics(reply, weighted_by_key)
            if message_type == "train":
                signature += _check_arrays(reply, sent)
                reply = _in_order(reply, sent)
        except InvalidReplyError as reason:
            if is_from_grid(reply):
                missing.append(str(reason))
            else:
                invalid[node] = str(reason)
        else:
            passed.append((reply, signature))

    # Averaging needs equal structure. The one most clients use is right; in a tie none is, or
    # an attacker could choose its words so as to win.
    ranking = Counter(signature for _, signature in passed).most_common(2)
    counts = [count for _, count in ranking]
    tied = len(counts) == 2 and counts[0] == counts[1]
    valid = []
    for reply, signature in passed:
        if not tied and signature == ranking[0][0]:
            valid.append(reply)
        else:
            invalid[reply.metadata.src_node_id] = "records or metrics unlike most other replies"
    valid.sort(key=_content_key)
    return Screening(tuple(valid), invalid, tuple(missing))


def is_from_grid(reply: Message) -> bool:
    """Tell an error of the federation itself: its SuperLink answers for nodes that are gone."""
    return reply.has_error() and reply.metadata.src_node_id == reply.metadata.dst_node_id


def line(what: object) -> str:
    """Return what somebody else wrote as one short line."""
    short = " ".join(str(what).split())[-200:]
    return "".join(c if c.isprintable() else "?" for c in short)  # no terminal's commands


def arrays_of(reply: Message) -> ArrayRecord:
    """Return the only ArrayRecord of a valid train reply."""
    return next(iter(reply.content.array_records.values()))


def metrics_of(reply: Message) -> MetricRecord:
    """Return the only MetricRecord of a valid reply."""
    return next(iter(reply.content.metric_records.values()))


def decode(array: Array) -> NDArray[Any]:
    """View the bytes of a Flower array as a read-only numpy array, without a copy.

    Raises
    ------
    ValueError
        If the bytes are not exactly one plain (not pickled) numpy array.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"unknown serialization {array.stype!r:.40}")
    header = io.BytesIO(array.data)
    version = np.lib.format.read_magic(header)
    read: Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    elif version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    else:
        raise ValueError(f"unknown array format {version}")
    shape, fortran_order, dtype = read(header)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    flat = np.frombuffer(array.data, dtype, offset=header.tell())
    values = flat.reshape(shape, order="F" if fortran_order else "C")
    if values.shape != shape:  # -1 stands for "whatever fits" here, and is an error in np.load
        raise ValueError(f"shape {shape}")
    return values


def is_floating(array: Array) -> bool:
    """Tell trained parameters from counters (such as BatchNorm's number of batches)."""
    return np.issubdtype(np.dtype(array.dtype), np.floating)


def floating_size(arrays: ArrayRecord) -> int:
    """Return d, the number of floating-point entries of a model."""
    return sum(math.prod(a.shape) for a in arrays.values() if is_floating(a))


def flatten(arrays: ArrayRecord, out: NDArray[np.floating] | None = None) -> NDArray[np.floating]:
    """Lay the floating-point entries of a model in one vector of shape ``(d,)``.

    The vector is float32 unless the model holds float64, in the record's own key order.
    """
    if out is None:
        out = np.empty(floating_size(arrays), vector_dtype(arrays))
    start = 0
    for array in arrays.values():
        if is_floating(array):
            values = decode(array)
            out[start : start + values.size] = values.ravel()
            start += values.size
    return out


def vector_dtype(arrays: ArrayRecord) -> np.dtype[np.floating]:
    """Return float64 for models that hold any float64, else float32."""
    wide = any(np.dtype(a.dtype).itemsize > 4 for a in arrays.values() if is_floating(a))
    return np.dtype(np.float64 if wide else np.float32)


def unflatten(vector: NDArray[np.floating], like: ArrayRecord) -> ArrayRecord:
    """Inverse of `flatten`: arrays of ``like`` with the floating entries of ``vector``."""
    arrays = ArrayRecord()
    start = 0
    for name, array in like.items():
        if is_floating(array):
            size = math.prod(array.shape)
            arrays[name] = to_array(
                vector[start : start + size].reshape(array.shape), np.dtype(array.dtype)
            )
            start += size
        else:
            arrays[name] = array
    return arrays


def to_array(values: NDArray[Any] | np.float64, dtype: np.dtype[Any]) -> Array:
    """Convert to a dtype: counters are rounded, and stop short of wrapping around."""
    if dtype.kind in "biu" and dtype != values.dtype:
        values = np.rint(values)
    if dtype.kind in "iu" and dtype != values.dtype:
        info = np.iinfo(dtype)
        largest = float(info.max)
        if largest > info.max:  # float64 rounds the largest 64-bit integers up
            largest = float(np.nextafter(largest, 0))
        values = np.clip(values, info.min, largest)
    return Array(np.asarray(values).astype(dtype, copy=False))


def with_dtypes_of(model: ArrayRecord, arrays: ArrayRecord) -> ArrayRecord:
    """Undo the promotions of an aggregation rule.

    Flower's own rules turn counters to float64, its FedAdam turns all arrays. The clients'
    next replies, whose dtypes are those of their models, would then be unlike the model.
    """
    return ArrayRecord(
        {
            name: array
            if name not in model or np.dtype(array.dtype) == np.dtype(model[name].dtype)
            else to_array(decode(array), np.dtype(model[name].dtype))
            for name, array in arrays.items()
        }
    )


def with_arrays(reply: Message, arrays: ArrayRecord) -> Message:
    """Return a copy of a train reply that holds other arrays; the original is left alone."""
    (name,) = reply.content.array_records
    return _with_record(reply, name, arrays)


def with_one_vote(reply: Message, weighted_by_key: str) -> Message:
    """Return a copy of a reply whose number of examples is 1, for the uniform average."""
    ((name, metrics),) = reply.content.metric_records.items()
    return _with_record(reply, name, MetricRecord({**metrics, weighted_by_key: 1.0}))


def weigh(replies: Iterable[Message], weighted_by_key: str, *, weighted: bool) -> list[Message]:
    """Return the replies as they are to be averaged: one vote each, unless ``weighted``."""
    if weighted:
        return list(replies)
    return [with_one_vote(reply, weighted_by_key) for reply in replies]


def _with_record(reply: Message, name: str, record: ArrayRecord | MetricRecord) -> Message:
    content = RecordDict({**reply.content, name: record})
    copy: Message = Message(content=content, metadata=reply.metadata)  # type: ignore[call-overload]
    return copy


def _in_order(reply: Message, sent: ArrayRecord | None) -> Message:
    """Give a reply's arrays the order of the model's, or else of their names."""
    arrays = arrays_of(reply)
    order = sorted(arrays) if sent is None else list(sent)
    if list(arrays) == order:
        return reply
    return with_arrays(reply, ArrayRecord({name: arrays[name] for name in order}))


def is_finite_number(value: object) -> TypeGuard[float]:
    """Tell a setting that is a real, finite number from text, switches, NaN and infinity."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_positive(**values: object) -> None:
    """Refuse settings that are not positive, finite numbers.

    Raises
    ------
    ValueError
        Naming the first and its value.
    """
    for name, value in values.items():
        if not (is_finite_number(value) and value > 0):
            raise ValueError(f"{name} = {value!r} must be a positive finite number")


def check_bool(**values: object) -> None:
    """Refuse a switch that is not True or False: the text "false" would switch it on.

    Raises
    ------
    ValueError
        Naming the argument and its value.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} = {value!r} must be True or False")


def _content_key(reply: Message) -> tuple[object, ...]:
    """Order replies by the bytes of their arrays, then by their metrics."""
    arrays = [a.data for record in reply.content.array_records.values() for a in record.values()]
    metrics = [repr(sorted(record.items())) for record in reply.content.metric_records.values()]
    return (*arrays, *metrics)


def _check_envelope(reply: Message, message_type: str) -> None:
    if reply.has_error():
        # The reason is the client's own text: keep it short and on one line.
        raise InvalidReplyError(f"error reply ({reply.error.code}): {reply.error.reason!r:.200}")
    if not reply.has_content():
        raise InvalidReplyError("no content")
    if reply.metadata.message_type.partition(".")[0] != message_type:
        raise InvalidReplyError(f"message type {reply.metadata.message_type!r:.40}")


def _check_metrics(reply: Message, weighted_by_key: str) -> Signature:
    records = reply.content.metric_records
    if len(records) != 1:
        raise InvalidReplyError(f"{len(records)} MetricRecords instead of 1")
    ((record_name, metrics),) = records.items()
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
    count = metrics.get(weighted_by_key)
    if isinstance(count, bool) or not isinstance(count, int | float):
        raise InvalidReplyError(f"no number under the metric {weighted_by_key!r}")
    if not 0 < count <= MAX_EXAMPLES:
        raise InvalidReplyError(
            f"{weighted_by_key} = {count:.6g} is not in (0, {MAX_EXAMPLES:.0e}]"
        )
    return (record_name, *lengths)


def _check_arrays(reply: Message, sent: ArrayRecord | None) -> Signature:
    records = reply.content.array_records
    if len(records) != 1:
        raise InvalidReplyError(f"{len(records)} ArrayRecords instead of 1")
    ((record_name, arrays),) = records.items()
    if sent is not None and set(arrays) != set(sent):
        raise InvalidReplyError("array names differ from the model's")
    structure = []
    for name in sorted(arrays):
        array = arrays[name]
        try:
            values = decode(array)
            declared = (tuple(array.shape), np.dtype(array.dtype))
        except Exception as error:  # hostile bytes: whatever parsing them raises
            raise InvalidReplyError(f"array {name!r:.60} cannot be read") from error
        found = (values.shape, values.dtype)
        if found != declared:
            raise InvalidReplyError(
                f"array {name!r:.60} is not the {declared!s:.80} that it says it is"
            )
        if values.dtype.kind not in "biuf":
            raise InvalidReplyError(f"array {name!r:.60} holds {values.dtype!s:.40}")
        if sent is not None and found != (tuple(sent[name].shape), np.dtype(sent[name].dtype)):
            raise InvalidReplyError(
                f"array {name!r:.60} is {found[1]} {found[0]} instead of "
                f"{sent[name].dtype} {tuple(sent[name].shape)}"
            )
        if np.issubdtype(values.dtype, np.floating) and not has_finite_norm(values):
            raise InvalidReplyError(f"array {name!r:.60} holds NaN, inf or immense values")
        structure.append((name, values.shape, values.dtype.str))
    return (record_name, *structure)


def has_finite_norm(values: NDArray[np.floating]) -> bool:
    """Check that squared distances to these values stay finite in float64."""
    if not values.size:
        return True
    largest = max(abs(float(values.max())), abs(float(values.min())))  # NaN wins both
    return largest < 1e140
