"""Invented data of any shape: stand-ins for what is not there, and loads for benchmarks."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UserError
from ..schema import bounded
from .base import Data, Source, Split
from .images import as_is, grey

NOISE = 64.0
"""Deviation of grey values around their class's mean."""

CHUNK = 4_096
"""Rows drawn at a time, to hold the memory of the draws down."""


@dataclass(kw_only=True)
class Synthetic(Source):
    """Rows around the mean of their class, in equal numbers of each class, as far as they go.

    Images are bytes around a mean image; tables are numbers of deviation 1 around a mean row; in
    texts every other token on average is one of their class's own. With the default signal a
    linear model learns them in a few rounds.

    Attributes
    ----------
    shape : list of int
        Of a row: [channels, height, width], [features], or [tokens] with a ``vocabulary``.
    num_classes : int
        C.
    names : list or None
        Of the classes; None: 0, 1, ...
    train_rows, test_rows : int
        How many.
    vocabulary : int or None
        Of texts, the number of tokens, 0 for padding and 1 for unknown among them.
    owners : int or None
        Natural users, each with a row or more, drawn at random.
    signal : float
        How far the classes' means are apart, in deviations of the noise.
    data_seed : int
        Decides the rows; not the run's seed, so that all runs have the same.
    stands_for : str
        What the rows are a stand-in of, for the description.
    """

    shape: list[int] = field(default_factory=lambda: [1, 28, 28])
    num_classes: int = bounded(10, least=2, most=100_000)
    names: list[Any] | None = None
    train_rows: int = bounded(2_000, least=1)
    test_rows: int = bounded(500, least=1)
    vocabulary: int | None = bounded(None, least=4)
    owners: int | None = bounded(None, least=1)
    signal: float = bounded(0.5, least=0)
    data_seed: int = bounded(0, least=0)
    stands_for: str = ""

    def __post_init__(self) -> None:
        """Check that the keys go together."""
        super().__post_init__()
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise UserError(
                f"dataset.shape={self.shape}: allowed are [channels, height, width], [features], "
                "or [tokens] with dataset.vocabulary"
            )
        if self.vocabulary is not None and len(self.shape) != 1:
            raise UserError(
                f"dataset.vocabulary={self.vocabulary}: allowed with one axis, [tokens]"
            )
        for key in ("train_rows", "test_rows"):
            if getattr(self, key) < self.num_classes:
                raise UserError(
                    f"dataset.{key}={getattr(self, key)}: allowed is {self.num_classes} or more, "
                    "the number of classes"
                )
        if self.names is not None and len(set(map(str, self.names))) != self.num_classes:
            raise UserError(
                f"dataset.names={self.names}: allowed are {self.num_classes} different ones, "
                "dataset.num_classes, or null"
            )
        if self.owners is not None and self.owners > self.train_rows:
            raise UserError(
                f"dataset.owners={self.owners}: allowed is 1 to {self.train_rows}, the training "
                "rows, or null"
            )

    def read(self) -> Data:
        """Draw the rows."""
        image = len(self.shape) == 3
        train, test = self._split(1, self.train_rows), self._split(2, self.test_rows)
        owners = None
        if self.owners is not None:
            rng, rest = self._rng(5), self.train_rows - self.owners
            drawn = rng.integers(self.owners, size=rest)
            owners = rng.permutation(np.concatenate([np.arange(self.owners), drawn]))
        shape = "x".join(map(str, self.shape))
        what = "texts" if self.vocabulary else "images" if image else "rows"
        of = f" (stand-in for {self.stands_for})" if self.stands_for else ""
        description = (
            f"synthetic{of}, {self.train_rows:,} train + {self.test_rows:,} test {what} of "
            f"{shape}, {self.num_classes} classes, invented by data_seed "
            f"{self.data_seed}"
        )
        classes = tuple(map(str, self.names or range(self.num_classes)))
        name = f"synthetic {shape}"
        return Data(name, train, test, classes, description, owners, self.vocabulary)

    def _split(self, part: int, rows: int) -> Split:
        labels = self._rng(part).permutation(np.arange(rows) % self.num_classes)
        inputs = torch.from_numpy(self._inputs(labels, self._rng(part + 2)))
        return Split(inputs, torch.from_numpy(labels), grey if len(self.shape) == 3 else as_is)

    def _rng(self, part: int) -> np.random.Generator:
        return np.random.default_rng([self.data_seed, 6, part])

    def _inputs(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]:
        size, rows = (self.num_classes, *self.shape), (len(labels), *self.shape)
        if self.vocabulary is not None:
            own = self._rng(0).integers(2, self.vocabulary, (self.num_classes, *self.shape))
            common = rng.integers(2, self.vocabulary, rows)
            return np.where(rng.random(rows) < self.signal, own[labels], common)
        means = self._rng(0).standard_normal(size, np.float32) * np.float32(self.signal)
        image = len(self.shape) == 3
        inputs = np.empty(rows, np.uint8 if image else np.float32)
        for start in range(0, len(labels), CHUNK):
            part = means[labels[start : start + CHUNK]]
            part += rng.standard_normal(part.shape, np.float32)
            inputs[start : start + CHUNK] = (part * NOISE + 128).clip(0, 255) if image else part
        return inputs
