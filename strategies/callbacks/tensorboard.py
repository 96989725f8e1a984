"""Rounds in TensorBoard: https://www.tensorflow.org/tensorboard."""

from collections.abc import Mapping
from pathlib import Path

from .tracker import Tracker, needed


class TensorBoard(Tracker):
    """Write the numbers of each round as scalars: ``tensorboard --logdir FOLDER`` shows them.

    Parameters
    ----------
    folder : str or Path
        Of the event files. What is there of the first round that is written, or of later ones, is
        replaced: so a resumed run goes on.

    Raises
    ------
    ImportError
        If tensorboard, or torch, whose writer this is, is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with needed("TensorBoard", "torch tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._new = SummaryWriter
        self._writer: SummaryWriter | None = None

    def open(self, number: int) -> None:
        """Begin an event file."""
        self._writer = self._new(str(self.folder), purge_step=number)

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Add scalars, and see that they are on the disk."""
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
