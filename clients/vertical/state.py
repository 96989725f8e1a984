"""What of a passive party outlives a message, and how it is kept in ``context.state``.

Flower may run a node's next message in another process, so all of it is written after every
message: in one value, since each that a record takes is checked.
"""

import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor, nn

from .wire import as_tensor

STATE = "passive-party"
"""Key of the record in ``context.state``."""


class FlatModel:
    """A module whose parameters lie in one piece of memory, which is quick to write and to read.

    Parameters
    ----------
    module : torch.nn.Module
        Its parameters become views of `vector`.

    Raises
    ------
    ValueError
        If there is nothing to train, or a parameter is not float32.
    """

    def __init__(self, module: nn.Module) -> None:
        every = list(module.parameters())
        self.trained: list[Tensor] = [p for p in every if p.requires_grad]
        """What is trained, for autograd."""
        if not self.trained or {p.dtype for p in every} != {torch.float32}:
            raise ValueError("a bottom model needs parameters to train, and all of them float32")
        self.vector = torch.cat([p.detach().reshape(-1) for p in every])
        self._bytes = self.vector.numpy()
        parts = torch.split(self.vector, [p.numel() for p in every])
        for parameter, part in zip(every, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        self.values = [p.detach() for p in self.trained]
        """The same memory without autograd, to be changed in place."""
        self._buffers = list(module.buffers())
        self._initial = self.pack()

    def pack(self) -> list[bytes]:
        """Return the parameters, then each buffer."""
        return [self._bytes.tobytes(), *(buffer.numpy().tobytes() for buffer in self._buffers)]

    def unpack(self, parts: list[bytes]) -> None:
        """Take what `pack` returned."""
        for tensor, part in zip([self.vector, *self._buffers], parts, strict=True):
            tensor.copy_(as_tensor(part, tensor.dtype).reshape(tensor.shape))

    def reset(self) -> None:
        """Return to the initial model."""
        self.unpack(self._initial)


def write(
    record: ConfigRecord, version: str, rows: bytes, model: list[bytes], memory: dict[str, Tensor]
) -> None:
    """Write a party's state to its record in ``context.state``.

    Parameters
    ----------
    record : ConfigRecord
        As `found` returned it, or an empty one for a training that begins.
    version : str
        Names the state: no other has the same.
    rows : bytes
        The rows whose gradient is awaited; none if empty.
    model : list of bytes
        As `FlatModel.pack` returns them.
    memory : dict from name to Tensor
        What an attack remembers, float32 of any shape.

    Raises
    ------
    ValueError
        If the memory holds anything else.
    """
    names = [_described(name, tensor) for name, tensor in memory.items()]
    values = [tensor.detach().numpy().tobytes() for tensor in memory.values()]
    if names or "memory" in record:
        record["memory"] = names
    record["parts"] = [version.encode(), rows, *model, *values]


def read(record: ConfigRecord) -> tuple[str, bytes, list[bytes], dict[str, Tensor]]:
    """Return version, rows, model and memory of the state that was written."""
    version, rows, *rest = _parts(record)
    names: list[str] = record.get("memory", [])  # type: ignore[assignment]
    end = len(rest) - len(names)
    return version.decode(), rows, rest[:end], dict(map(_remembered, names, rest[end:]))


def version_of(record: ConfigRecord) -> str:
    """Return the version of the state that was written."""
    return _parts(record)[0].decode()


def found(state: RecordDict) -> ConfigRecord:
    """Return the record of a training that has begun.

    Raises
    ------
    ValueError
        If none has.
    """
    record = state.get(STATE)
    if not isinstance(record, ConfigRecord):
        raise ValueError("training has not begun: no train.begin message came before")
    return record


def _parts(record: ConfigRecord) -> list[bytes]:
    return record["parts"]  # type: ignore[return-value]


def _described(name: str, tensor: Tensor) -> str:
    if tensor.dtype != torch.float32:
        raise ValueError(f"memory {name} is {tensor.dtype}; allowed is float32")
    return f"{'x'.join(map(str, tensor.shape))} {name}"


def _remembered(described: str, value: bytes) -> tuple[str, Tensor]:
    shape, _, name = described.partition(" ")
    sizes = [int(size) for size in shape.split("x") if size]
    return name, as_tensor(value, torch.float32).reshape(sizes)
