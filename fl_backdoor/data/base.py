"""A data set, and the choice of one: which rows, shared out to how many clients."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .partition import Indices, partition, unused


class Split(Dataset[tuple[Tensor, Tensor]]):
    """Rows held as they are stored, and prepared for a model as they are taken.

    The tensors are shared by every caller in the process: read them, do not write to them.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        What is known of each row.
    labels : Tensor of shape (n,), int64
        Its class, 0 to C-1.
    prepare : callable, optional
        Makes what a model takes of some rows of ``inputs``.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        prepare: Callable[[Tensor], Tensor] = lambda inputs: inputs,
    ) -> None:
        self.inputs = inputs
        self.labels = labels
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Return the inputs and labels of a row, of a slice, or of an array of rows."""
        return self.prepare(self.inputs[rows]), self.labels[rows]


@dataclass(frozen=True)
class Data:
    """A data set, loaded.

    Attributes
    ----------
    name : str
        The same wherever the rows are the same; a stand-in has another.
    train, test : Split
        Torch data sets, which take arrays of rows too.
    classes : tuple of str
        What the labels 0 to C-1 stand for.
    description : str
        One line: which data these are, and that they are synthetic if they are.
    owners : array of shape (n,), int64, or None
        The natural user whom each training row comes from, if there are such.
    vocabulary : int or None
        Of texts, how many different tokens there can be; None: inputs are no tokens.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    description: str
    owners: NDArray[np.int64] | None = None
    vocabulary: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What a model gets of one row.

        An image is (channels, height, width), a table's row (features,), a text (tokens,).
        """
        return tuple(self.train[:1][0].shape[1:])

    @property
    def kind(self) -> Literal["image", "table", "text"]:
        """What the inputs are: float32 from 0 to 1, float32, or int64 below ``vocabulary``."""
        if self.vocabulary is not None:
            return "text"
        return "image" if len(self.input_shape) == 3 else "table"

    @property
    def labels(self) -> NDArray[Any]:
        """The class of each training row by its name, shape (n,)."""
        names = np.array(self.classes)
        labels: NDArray[Any] = names[self.train.labels.numpy()]
        return labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all rows and of the classes' names."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            for tensor in (split.inputs, split.labels):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()


@dataclass(kw_only=True)
class Source(ABC):
    """A choice of data; subclasses are built from ``conf/dataset``.

    Attributes
    ----------
    partition : {"per_class", "iid", "dirichlet", "owners"}
        How training rows are shared out, see `fl_backdoor.data.partition.partition`.
    samples_per_class, samples_per_partition, alpha
        Its settings.
    test_samples_per_class : int
        Test rows of each class, a seeded draw.
    """

    partition: str = "per_class"
    samples_per_class: int = 250
    samples_per_partition: int | None = None
    alpha: float = 0.5
    test_samples_per_class: int = 500

    def settle(self) -> dict[str, Any]:
        """Decide where the data comes from; returns the keys of the config that this settles.

        The driver of a run calls this once and gives the answer to its workers.

        Raises
        ------
        UserError
            If what was asked for by name is not there.
        """
        return {}

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels stand for; a source that knows it without loading says so here."""
        return self.load().classes

    @abstractmethod
    def load(self) -> Data:
        """Load the data set, once a process.

        Raises
        ------
        UserError
            Naming the key or file at fault.
        """

    def shares(self, num_clients: int, seed: int) -> list[Indices]:
        """Return the training rows of each client.

        Raises
        ------
        UserError
            If a setting is out of range, or there are too few rows.
        """
        data = self.load()
        return partition(
            data.labels,
            self.partition,
            num_clients,
            samples_per_class=self.samples_per_class,
            samples_per_partition=self.samples_per_partition,
            alpha=self.alpha,
            owners=data.owners,
            seed=seed,
        )

    def pool(self, shares: list[Indices], name: str | None, seed: int) -> Indices:
        """Return the training rows of a class that nobody holds, in seeded order."""
        labels = self.load().labels
        rows = unused(len(labels), shares)
        return np.random.default_rng([seed, 2]).permutation(rows[labels[rows] == name])

    def test_rows(self, seed: int) -> Indices:
        """Draw the test rows, the same number of each class, ascending.

        Raises
        ------
        UserError
            If a class has fewer than asked.
        """
        data, wanted = self.load(), self.test_samples_per_class
        rng = np.random.default_rng([seed, 3])
        labels = data.test.labels.numpy()
        chosen = []
        for name in sorted(data.classes):
            own = np.flatnonzero(labels == data.classes.index(name))
            if not 1 <= wanted <= len(own):
                raise UserError(
                    f"dataset.test_samples_per_class={wanted}: allowed are 1 to {len(own)}, the "
                    f"test samples of class {name}"
                )
            chosen.append(rng.choice(own, wanted, replace=False))
        return np.sort(np.concatenate(chosen))
