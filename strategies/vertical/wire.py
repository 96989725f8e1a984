"""Messages of split learning as the active party writes them and reads them, as hostile input."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from flwr.app import Array, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from ..checks import line
from ..vectors import decode
from .enrolment import Party, ProtocolError, ask


def converse(
    grid: Grid,
    parties: Sequence[Party],
    message_type: str,
    contents: Sequence[RecordDict],
    where: Callable[[], str],
    timeout: float,
) -> list[RecordDict]:
    """Send each party its content; return the contents of the answers, by party.

    Raises
    ------
    ProtocolError
        If one fails or does not answer, naming it and ``where()`` in the training that was.
    """
    messages = [
        Message(content, party.node, message_type)
        for party, content in zip(parties, contents, strict=True)
    ]
    answers = ask(grid, messages, timeout)
    replies = []
    for number, party in enumerate(parties):
        reply = answers.get(party.node)
        if reply is None:
            raise ProtocolError(
                f"party {number}: no answer to {where()} (it is gone, or took longer than "
                f"{timeout:g} s)"
            )
        if reply.has_error() or not reply.has_content():
            reason = reply.error.reason if reply.has_error() else "an answer without content"
            raise ProtocolError(f"party {number}: failed at {where()}: {line(reason)}")
        replies.append(reply.content)
    return replies


def write_batch(
    num_parties: int, rows: Tensor | None, gradients: Sequence[Tensor] | None
) -> tuple[list[RecordDict], int]:
    """Write the gradients of a batch and the rows of the next, for each party.

    Parameters
    ----------
    num_parties : int
        K.
    rows : Tensor of shape (b,), optional
        The next rows; None after the last.
    gradients : sequence of Tensor of shape (b, m_k), optional
        One a party; None before the first.

    Returns
    -------
    list of RecordDict
        One a party. Those who get the same gradient get the same object.
    int
        Bytes of them all.
    """
    following = b"" if rows is None else rows.numpy().tobytes()
    written: dict[int, RecordDict] = {}
    contents, size = [], len(following) * num_parties
    for party in range(num_parties):
        gradient = None if gradients is None else gradients[party]
        if id(gradient) not in written:
            batch = ConfigRecord()
            if following:
                batch["rows"] = following
            if gradient is not None:
                batch["gradient"] = gradient.numpy().tobytes()
            written[id(gradient)] = RecordDict({"batch": batch})
        contents.append(written[id(gradient)])
        size += 0 if gradient is None else gradient.nbytes
    return contents, size


def read_activations(
    number: int, party: Party, content: RecordDict, rows: int, where: Callable[[], str]
) -> Tensor:
    """Read a party's activations, of shape ``(rows, outputs)``.

    Raises
    ------
    ProtocolError
        Naming the party, if there are none, of another shape, or not finite.
    """
    shape = (rows, party.outputs)
    record = content.get("batch")
    received = record.get("activations") if isinstance(record, ConfigRecord) else None
    if not isinstance(received, bytes):
        raise ProtocolError(f"party {number}: no activations for {where()}")
    if len(received) != 4 * shape[0] * shape[1]:
        raise ProtocolError(
            f"party {number}: {len(received)} bytes of activations for {where()}, allowed are "
            f"{4 * shape[0] * shape[1]}, float32 of shape {shape}"
        )
    values = torch.frombuffer(bytearray(received), dtype=torch.float32).view(shape)
    # A finite sum has finite terms; the other way round it may be too large.
    if not math.isfinite(values.sum()) and not values.isfinite().all():
        raise ProtocolError(
            f"party {number}: activations are not finite for {where()} (hostile, or the "
            "training has diverged)"
        )
    return values


def read_metrics(content: RecordDict) -> dict[str, float]:
    """Read the metrics that a party reports, as far as they are finite numbers."""
    metrics: dict[str, float] = {}
    for record in content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, float) and math.isfinite(value):
                metrics[name] = value
    return metrics


def read_checkpoint(number: int, content: RecordDict) -> Iterator[tuple[str, Array]]:
    """Read a party's part of a checkpoint, names as ``party0.model.weight``.

    Raises
    ------
    ProtocolError
        Naming the party, if an array cannot be read or holds no plain numbers.
    """
    for part in ("model", "memory"):
        for name, array in content.array_records.get(part, {}).items():
            text = f"party {number}: array {line(name)} of its checkpoint"
            try:
                kind = decode(array).dtype
            except Exception as error:  # whatever parsing hostile bytes raises
                raise ProtocolError(f"{text} cannot be read") from error
            if kind.kind not in "biuf" or kind.itemsize > 8 or not kind.isnative:
                raise ProtocolError(f"{text} holds {kind!s:.40}")
            yield f"party{number}.{part}.{name}", array
