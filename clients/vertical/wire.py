"""Messages of split learning as a passive party reads and writes them.

Rows travel as bytes of int64, gradients and activations as bytes of float32: a minibatch is so
little work that Flower's array records would take as long as the training.
"""

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor


def values_in(content: RecordDict, name: str) -> dict[str, object]:
    """Return the values of a record of a message.

    Raises
    ------
    ValueError
        If there is no such record, or it is of another type.
    """
    # A plain dict, and none of content.config_records, which copies all of them: both for speed.
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise ValueError(f"{name}: a {type(record).__name__} where a ConfigRecord is expected")
    return dict(record.items())


def field(values: dict[str, object], name: str) -> object:
    """Return a value by its name, or raise a ValueError that names it."""
    if name not in values:
        raise ValueError(f"{name} is missing")
    return values[name]


def as_bytes(value: object) -> bytes:
    """Return bytes, or raise a ValueError that says what is there instead."""
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} where bytes are expected")
    return value


def as_tensor(received: bytes, dtype: torch.dtype) -> Tensor:
    """Copy bytes into a vector."""
    return torch.frombuffer(bytearray(received), dtype=dtype) if received else torch.empty(0)


def as_rows(received: bytes, split: str, count: int) -> Tensor:
    """Read rows ``(b,)``, int64.

    Raises
    ------
    ValueError
        If they are no whole numbers, none, or not all among the ``count`` of the split.
    """
    if not received or len(received) % 8:
        raise ValueError(f"rows have {len(received)} bytes, not 8 for each row")
    if max(memoryview(received).cast("Q")) >= count:  # unsigned: negative ones are immense
        raise ValueError(f"rows outside the {count} of the {split} split")
    return as_tensor(received, torch.int64)


def as_gradient(received: bytes, activations: Tensor) -> Tensor:
    """Read the gradient of activations ``(b, m)``: as many float32.

    Raises
    ------
    ValueError
        If its size is another.
    """
    if len(received) != 4 * activations.numel():
        raise ValueError(
            f"the gradient has {len(received)} bytes, not 4 for each of the "
            f"{tuple(activations.shape)} activations"
        )
    return as_tensor(received, torch.float32).view_as(activations)


def reply_with(message: Message, activations: Tensor) -> Message:
    """Answer by activations ``(b, m)``."""
    record = ConfigRecord({"activations": activations.numpy().tobytes()})
    return Message(RecordDict({"batch": record}), reply_to=message)
