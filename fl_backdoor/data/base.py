"""A data set, and the choice of one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..config import one_line
from ..errors import UserError
from ..schema import bounded, check_bounds

Indices = NDArray[np.int64]
"""Rows of a split."""

Prepare = Callable[[Tensor], Tensor]
"""Makes what a model takes of stored rows."""

MAX_LOADED: Final = 2
"""Data sets that a process holds; the oldest makes room."""


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
        prepare: Prepare = lambda inputs: inputs,
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
            update(digest, split.inputs, split.labels)
        return digest.hexdigest()


def update(digest: "hashlib._Hash", *tensors: Tensor) -> None:
    """Take tensors into a digest: their types, shapes and values."""
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)


_LOADED: Final[dict[str, Data]] = {}


class Choice(ABC):
    """A choice of data, built from ``conf/dataset``: of rows for clients, or features for parties.

    Bounds that fields declare (`fl_backdoor.schema.bounded`) are held when one is built.
    """

    def __post_init__(self) -> None:
        """Check the numbers that have bounds; a subclass with a check of its own calls this."""
        check_bounds(self, "dataset.")

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
    @abstractmethod
    def description(self) -> str:
        """Say in one line which data these are, and that they are synthetic if they are."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of all rows and of the classes' names."""


@dataclass(kw_only=True)
class Source(Choice):
    """Rows to be shared out to clients.

    Attributes
    ----------
    classes : list or None
        The classes to keep, by name; the first becomes label 0. None: all.
    test_samples_per_class : int or None
        Test rows of each class, a seeded draw. None: all test rows.
    """

    classes: list[Any] | None = None
    test_samples_per_class: int | None = bounded(None, least=1)

    @property
    def description(self) -> str:
        """That of the data."""
        return self.load().description

    @property
    def digest(self) -> str:
        """That of the data."""
        return self.load().digest

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels stand for; a source that knows it without loading says so here."""
        return self.load().classes

    def load(self) -> Data:
        """Load the data set with the chosen classes, once a process.

        Raises
        ------
        UserError
            Naming the key or file at fault.
        """
        key = f"{type(self).__module__}.{self!r}"
        if key not in _LOADED:
            if len(_LOADED) >= MAX_LOADED:
                del _LOADED[next(iter(_LOADED))]
            try:
                _LOADED[key] = chosen(self.read(), self.classes)
            except MemoryError as error:
                raise UserError(
                    f"dataset: {one_line(error)}; allowed is what fits into memory"
                ) from error
        return _LOADED[key]

    @abstractmethod
    def read(self) -> Data:
        """Read the whole data set; `load` calls this once a process.

        Raises
        ------
        UserError
            Naming the key or file at fault.
        """

    def draw_test(self, seed: int) -> Indices:
        """Draw the test rows, the same number of each class, ascending; or take all.

        Raises
        ------
        UserError
            If a class has fewer than asked.
        """
        data, wanted = self.load(), self.test_samples_per_class
        labels = data.test.labels.numpy()
        if wanted is None:
            return np.arange(len(labels))
        rng = np.random.default_rng([seed, 3])
        drawn = []
        for name in sorted(data.classes):
            own = np.flatnonzero(labels == data.classes.index(name))
            if wanted > len(own):
                raise UserError(
                    f"dataset.test_samples_per_class={wanted}: allowed are 1 to {len(own)}, the "
                    f"test samples of class {name}"
                )
            drawn.append(rng.choice(own, wanted, replace=False))
        return np.sort(np.concatenate(drawn))


def chosen(data: Data, classes: Sequence[Any] | None) -> Data:
    """Keep the rows of some classes, in this order of labels; None keeps all as they are.

    Raises
    ------
    UserError
        If fewer than two are chosen, or one of them is not there.
    """
    if classes is None:
        return data
    names = tuple(map(str, classes))
    if len(names) < 2 or len(set(names)) < len(names) or not set(names) <= set(data.classes):
        raise UserError(
            f"dataset.classes={list(classes)}: allowed are two or more different ones of "
            f"{', '.join(data.classes)}"
        )
    number = torch.full((len(data.classes),), -1)
    number[[data.classes.index(name) for name in names]] = torch.arange(len(names))
    splits, kept = [], []
    for split in (data.train, data.test):
        labels = number[split.labels]
        rows = (labels >= 0).nonzero().flatten()
        splits.append(Split(split.inputs[rows], labels[rows], split.prepare))
        kept.append(rows.numpy())
    train, test = splits
    for part, split in (("training", train), ("test", test)):
        if not len(split):
            raise UserError(f"dataset.classes={list(classes)}: no {part} row is of one of them")
    counts = f"{len(train):,} train + {len(test):,} test rows"
    return replace(
        data,
        train=train,
        test=test,
        classes=names,
        description=f"{data.description}; of these classes {' '.join(names)}: {counts}",
        owners=None if data.owners is None else data.owners[kept[0]],
    )
