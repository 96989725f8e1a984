"""MNIST cut into horizontal bands, one for each party."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from torch import Tensor

from ...errors import UserError
from ...schema import bounded
from ..base import Data
from ..mnist import load_mnist, resolve_source
from .base import Block, Labels, Rows, VerticalData
from .blocks import checked_blocks

SIDE: Final = 28


@dataclass(kw_only=True)
class MnistRows(VerticalData):
    """Each party holds some adjacent pixel rows of every digit, grey values 0 to 1.

    Attributes
    ----------
    source, root : str, str or None
        Where the images come from, see `fl_backdoor.data.mnist.load_mnist`.
    blocks : list of [int, int]
        First and last pixel row of each party, inclusive; together rows 0 to 27 in order.
    trigger : list of [int, int]
        ``[row, column]`` of pixels of the whole image, all in the trigger party's block.
    """

    source: str = "auto"
    root: str | None = None
    blocks: list[list[int]] = field(default_factory=lambda: [[0, 13], [14, 27]])
    trigger: list[Any] = field(default_factory=lambda: [[25, 27], [27, 25], [26, 26], [27, 27]])
    poisoned_train: int | None = bounded(600, least=0)
    poisoned_test: int | None = bounded(100, least=0)

    def __post_init__(self) -> None:
        """Check that the blocks share out the image."""
        checked_blocks(self.blocks, SIDE, "rows")
        super().__post_init__()

    def settle(self) -> dict[str, Any]:
        """Decide where the images come from."""
        source, root = resolve_source(self.root, self.source)
        return {"source": source, "root": root}

    @property
    def num_parties(self) -> int:
        """Passive parties, one for each block."""
        return len(self.blocks)

    def block(self, party: int) -> Block:
        """Return the pixels of the party's rows, row by row."""
        first, last = self.blocks[party]
        return _block(self.source, self.root, first, last)

    def labels(self) -> Labels:
        """Return the digits."""
        images = _images(self.source, self.root)
        return Labels(images.train.labels, images.test.labels, images.classes, *_rows(images))

    @property
    def description(self) -> str:
        """Name the images and the rows of each party."""
        rows = ", ".join(f"{first}-{last}" for first, last in self.blocks)
        return f"{_images(self.source, self.root).description}; pixel rows {rows}"

    def trigger_columns(self) -> list[int]:
        """Return the columns of the trigger's pixels in the trigger party's block."""
        first, last = self.blocks[self.trigger_party]
        columns = []
        for pixel in self.trigger:
            match pixel:
                case [int(row), int(column)] if first <= row <= last and 0 <= column < SIDE:
                    columns.append((row - first) * SIDE + column)
                case _:
                    raise UserError(
                        f"dataset.trigger={self.trigger}: {pixel} is no pixel of party "
                        f"{self.trigger_party}; allowed are [row, column] with rows {first} to "
                        f"{last} and columns 0 to {SIDE - 1}"
                    )
        return columns


@lru_cache(maxsize=2)
def _images(source: str, root: str | None) -> Data:
    """Load the images; cached so that an unsettled source asks for the hub only once."""
    return load_mnist(root, source)


@lru_cache(maxsize=2 * SIDE)
def _block(source: str, root: str | None, first: int, last: int) -> Block:
    images = _images(source, root)

    def flat(whole: Tensor) -> Tensor:
        return whole[:, 0, first : last + 1].flatten(1).float().div_(255)

    return Block(flat(images.train.inputs), flat(images.test.inputs), *_rows(images))


def _rows(images: Data) -> tuple[Rows, Rows]:
    """Identify the images by their data set and their number in its own order."""
    train, test = (
        Rows.of(f"{images.name} {number}" for number in range(len(split)))
        for split in (images.train, images.test)
    )
    return train, test
