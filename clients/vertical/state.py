"""What of a passive party outlives a message, and how it is kept in ``context.state``.

Flower may run a node's next message in another process, so all of it is written after every
message: in one value, since each that a record takes is checked.
"""

from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor, nn

from .wire import as_tensor, config_in

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
        if not self.trained or {p.dtype for p in every} != {torch.float32}:
            raise ValueError("a bottom model needs parameters to train, and all of them float32")
        self.vector = torch.cat([p.detach().reshape(-1) for p in every])
        self._bytes = self.vector.numpy()
        parts = torch.split(self.vector, [p.numel() for p in every])
        for parameter, part in zip(every, parts, strict=True):
            parameter.data = part.view(parameter.shape)
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


@dataclass
class Snapshot:
    """A party's state as it is written.

    Attributes
    ----------
    version : str
        Names it: no other state has the same.
    rows : bytes
        The rows whose gradient is awaited; none if empty.
    model : list of bytes
        As `FlatModel.pack` returns them.
    memory : dict from name to Tensor
        What an attack remembers, float32 of any shape.
    """

    version: str
    rows: bytes
    model: list[bytes]
    memory: dict[str, Tensor]

    def write(self, state: RecordDict) -> None:
        """Write to ``context.state``."""
        if STATE not in state:
            state[STATE] = ConfigRecord({"memory": []})
        record = config_in(state, STATE)
        names = [_described(name, tensor) for name, tensor in self.memory.items()]
        if names != record["memory"]:
            record["memory"] = names
        values = [tensor.detach().numpy().tobytes() for tensor in self.memory.values()]
        record["parts"] = [self.version.encode(), self.rows, *self.model, *values]

    @staticmethod
    def read(state: RecordDict, known: str) -> "Snapshot | None":
        """Read from ``context.state``; None if its version is the one that is known.

        Raises
        ------
        ValueError
            If nothing was written.
        """
        if STATE not in state:
            raise ValueError("training has not begun: no train.begin message came before")
        record = config_in(state, STATE)
        parts: list[bytes] = record["parts"]  # type: ignore[assignment]
        version = parts[0].decode()
        if version == known:
            return None
        names: list[str] = record["memory"]  # type: ignore[assignment]
        end = len(parts) - len(names)
        memory = dict(map(_remembered, names, parts[end:]))
        return Snapshot(version, parts[1], parts[2:end], memory)


def _described(name: str, tensor: Tensor) -> str:
    if tensor.dtype != torch.float32:
        raise ValueError(f"memory {name} is {tensor.dtype}; allowed is float32")
    return f"{'x'.join(map(str, tensor.shape))} {name}"


def _remembered(described: str, value: bytes) -> tuple[str, Tensor]:
    shape, _, name = described.partition(" ")
    sizes = [int(size) for size in shape.split("x") if size]
    return name, as_tensor(value, torch.float32).reshape(sizes)


class Seeded:
    """Draw from a generator of one's own, and leave everybody else's as it was."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)
