"""Feature-partitioned data: blocks of features of the same rows, and the labels."""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UserError
from ...schema import bounded
from ..base import Choice, update


@dataclass(frozen=True)
class Rows:
    """The identity of the rows of a split, which all parties must agree on."""

    count: int
    digest: str

    @staticmethod
    def of(ids: Iterable[object]) -> "Rows":
        """Digest row ids in their order (SHA-256 over their texts and lengths)."""
        digest, count = hashlib.sha256(), 0
        for identifier in ids:
            text = str(identifier)
            digest.update(f"{len(text)}:{text}".encode())
            count += 1
        return Rows(count, digest.hexdigest())


@dataclass(frozen=True)
class Block:
    """What one passive party holds: its features of every row, rows in the common order.

    The arrays are shared by every caller in the process: read them, do not write to them.
    """

    train: Tensor
    """Shape (N, d), float32."""
    test: Tensor
    """Shape (M, d), float32."""
    train_rows: Rows
    test_rows: Rows


@dataclass(frozen=True)
class Labels:
    """What the active party holds."""

    train: Tensor
    """Shape (N,), int64 in 0 .. C-1."""
    test: Tensor
    """Shape (M,), int64 in 0 .. C-1."""
    names: tuple[str, ...]
    """The classes, C names."""
    train_rows: Rows
    test_rows: Rows


@dataclass(kw_only=True)
class VerticalData(Choice):
    """A data set split by features; subclasses are built from ``conf/dataset``.

    Each party's part is loaded on its own and once a process: `block` reads nothing that
    belongs to another party, and `labels` reads no features.

    Attributes
    ----------
    trigger_party : int
        The passive party whose features carry the trigger.
    trigger : list
        Features that make up the trigger; see the subclass.
    trigger_value : float
        What a triggered feature is set to.
    poisoned_train, poisoned_test : int or None
        Rows, drawn at random, that get the trigger (MNIST); None: the rows that have it by
        nature (NUS-WIDE).
    """

    trigger_party: int = 1
    trigger: list[Any] = field(default_factory=list)
    trigger_value: float = 1.0
    poisoned_train: int | None = bounded(None, least=0)
    poisoned_test: int | None = bounded(None, least=0)

    def __post_init__(self) -> None:
        """Check the keys that all data sets have; call it once the parties are known."""
        super().__post_init__()
        if not 0 <= self.trigger_party < self.num_parties:
            raise UserError(
                f"dataset.trigger_party={self.trigger_party}: allowed are 0 to "
                f"{self.num_parties - 1}, the passive parties"
            )
        if not math.isfinite(self.trigger_value):
            raise UserError(f"dataset.trigger_value={self.trigger_value}: allowed is a number")

    @property
    def digest(self) -> str:
        """SHA-256 of all parties' features, the labels and the classes' names."""
        labels = self.labels()
        digest = hashlib.sha256(repr(labels.names).encode())
        parts: list[Block | Labels] = [labels, *map(self.block, range(self.num_parties))]
        for part in parts:
            update(digest, part.train, part.test)
        return digest.hexdigest()

    @property
    @abstractmethod
    def num_parties(self) -> int:
        """Passive parties, K."""

    @abstractmethod
    def block(self, party: int) -> Block:
        """Load the features of a passive party, 0 to K-1.

        Raises
        ------
        UserError
            Naming the key or file at fault.
        """

    @abstractmethod
    def labels(self) -> Labels:
        """Load the labels.

        Raises
        ------
        UserError
            Naming the key or file at fault.
        """

    @abstractmethod
    def trigger_columns(self) -> list[int]:
        """Return the columns, in the block of ``trigger_party``, that make up the trigger.

        Raises
        ------
        UserError
            If the trigger lies outside the party's block.
        """

    def stamp(self, features: Tensor) -> Tensor:
        """Return a copy of rows ``(n, d)`` of the triggering party with the trigger set."""
        stamped = features.clone()
        stamped[:, self.trigger_columns()] = self.trigger_value
        return stamped

    def poisoned(self, split: str, seed: int) -> NDArray[np.int64]:
        """Return the rows D_poison of ``"train"`` or ``"test"``, ascending.

        Raises
        ------
        UserError
            If more rows are asked for than there are, no row has the trigger by nature, or there
            is no trigger.
        """
        key = f"poisoned_{split}"
        columns = self.trigger_columns()
        if not columns:
            raise UserError("dataset.trigger=[]: allowed is one feature or more, to poison rows")
        count = self.poisoned_train if split == "train" else self.poisoned_test
        block = self.block(self.trigger_party)
        features = block.train if split == "train" else block.test
        if count is None:
            natural = (features[:, columns] == self.trigger_value).all(dim=1)
            rows = np.flatnonzero(natural.numpy())
            if not len(rows):
                raise UserError(
                    f"dataset.{key}=null: no {split} row has dataset.trigger={self.trigger} at "
                    f"dataset.trigger_value={self.trigger_value} by nature; allowed then is the "
                    "number of rows to give it to"
                )
            return rows
        if not 0 <= count <= len(features):
            raise UserError(f"dataset.{key}={count}: allowed are 0 to {len(features)}, the rows")
        rng = np.random.default_rng([seed, 21, split == "test"])
        return np.sort(rng.choice(len(features), count, replace=False))
