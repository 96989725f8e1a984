"""Any features in CSV files, one file for each party, aligned by an id column."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import UserError
from ..csv_files import damaged, header, parse, read
from ..labels import in_order
from ..standardize import standardize
from .base import Block, Labels, Rows, VerticalData


@dataclass(kw_only=True)
class CsvParties(VerticalData):
    """Each party's file has an id column and numeric features; rows are sorted by id, as text.

    Each party reads its own files only. That all have the same rows is therefore not checked
    here, but by comparing the `Rows` of blocks and labels. Errors name places in files, rows
    counted from 0 below the header, and never what stands there: they travel to the server.

    Attributes
    ----------
    files : list of str
        The file of each passive party.
    test_files : list of str or None
        Their files of test rows; None: `test_fraction` of the rows of `files`.
    labels_file : str or None
        File of the active party, with ids and labels; None: whichever of `files` has
        `label_column`. That column is a feature nowhere.
    test_labels_file : str or None
        The labels of `test_files`, needed if there is a `labels_file`.
    id_column, label_column : str
        Names in the header.
    test_fraction : float
        Without `test_files`, a row is a test row if a hash of its id, as a number from 0 to 1,
        is below this: all parties split alike without talking.
    standardize : bool
        Give each feature mean 0 and standard deviation 1, fitted on the training rows.
    trigger : list of str or int
        Features of the trigger party, by name or by place among its features.
    """

    files: list[str] = field(default_factory=list)
    test_files: list[str] | None = None
    labels_file: str | None = None
    test_labels_file: str | None = None
    id_column: str = "id"
    label_column: str = "y"
    test_fraction: float = 0.2
    standardize: bool = True

    def __post_init__(self) -> None:
        """Check the keys that need no file."""
        if not self.files:
            raise UserError("dataset.files=[]: allowed are one or more CSV files, one a party")
        super().__post_init__()
        if self.test_files is not None and len(self.test_files) != len(self.files):
            raise UserError(
                f"dataset.test_files={self.test_files}: {len(self.test_files)} files; allowed "
                f"are {len(self.files)}, as dataset.files, or null"
            )
        both = self.labels_file is not None and self.test_files is not None
        if both != (self.test_labels_file is not None):
            raise UserError(
                f"dataset.test_labels_file={self.test_labels_file}: allowed is a file with "
                "dataset.labels_file and dataset.test_files, else null"
            )
        if self.id_column == self.label_column:
            raise UserError(
                f"dataset.label_column={self.label_column}: allowed is another column than "
                "dataset.id_column"
            )
        if not 0 < self.test_fraction < 1:
            raise UserError(
                f"dataset.test_fraction={self.test_fraction}: allowed is between 0 and 1"
            )

    def settle(self) -> dict[str, Any]:
        """Name the files wherever the run is resumed from."""
        named = {
            key: getattr(self, key)
            for key in ("files", "test_files", "labels_file", "test_labels_file")
        }
        return {key: _absolute(value) for key, value in named.items()}

    @property
    def num_parties(self) -> int:
        """Passive parties, one for each file."""
        return len(self.files)

    def block(self, party: int) -> Block:
        """Load the features of the party's file."""
        test = self.test_files[party] if self.test_files else None
        return _block(self._split(self.files[party], test), self.label_column, self.standardize)

    def labels(self) -> Labels:
        """Load the labels; classes are in the order of numbers if all are numbers, else of text."""
        if self.labels_file is not None:
            return _labels(self._split(self.labels_file, self.test_labels_file), self.label_column)
        holders = [
            party
            for party, file in enumerate(self.files)
            if self.label_column in header(file, [self.id_column])
        ]
        if len(holders) != 1:
            raise UserError(
                f"dataset.files={self.files}: column {self.label_column} is in {len(holders)} "
                "files; allowed is 1, or another dataset.label_column or dataset.labels_file"
            )
        test = self.test_files[holders[0]] if self.test_files else None
        return _labels(self._split(self.files[holders[0]], test), self.label_column)

    def _split(self, file: str, test_file: str | None) -> "_Files":
        return _Files(file, test_file, self.id_column, self.test_fraction)

    @property
    def description(self) -> str:
        """Name the files."""
        names = ", ".join(Path(file).name for file in self.files)
        origin = f" of {Path(self.labels_file).name}" if self.labels_file else ""
        test = f"{self.test_fraction:.0%} of the rows, by a hash of the id"
        if self.test_files:
            test = ", ".join(Path(file).name for file in self.test_files)
        return f"CSV files {names}; labels {self.label_column}{origin}; test rows {test}"

    def trigger_columns(self) -> list[int]:
        """Return the columns of the trigger's features among those of the trigger party."""
        names = _features(self.files[self.trigger_party], self.id_column, self.label_column)
        columns = []
        for feature in self.trigger:
            if isinstance(feature, str) and feature in names:
                columns.append(names.index(feature))
            elif type(feature) is int and -len(names) <= feature < len(names):
                columns.append(feature % len(names))
            else:
                raise UserError(
                    f"dataset.trigger={self.trigger}: {feature} is no feature of party "
                    f"{self.trigger_party}; allowed are its columns' names and "
                    f"{-len(names)} to {len(names) - 1}"
                )
        return columns


@dataclass(frozen=True)
class _Files:
    """What a party reads, and how its rows are split."""

    train: str
    test: str | None
    id_column: str
    test_fraction: float

    def load(
        self, columns: Sequence[str], numeric: bool
    ) -> tuple[tuple[list[str], NDArray[Any]], tuple[list[str], NDArray[Any]]]:
        """Read the columns: ids and values of the training rows, and of the test rows."""
        ids, values = read(self.train, self.id_column, columns, numeric)
        if self.test is not None:
            return (ids, values), read(self.test, self.id_column, columns, numeric)
        tested = np.array([_place(identifier) < self.test_fraction for identifier in ids])
        if tested.all() or not tested.any():
            raise UserError(
                f"dataset.test_fraction={self.test_fraction}: all {len(ids)} rows of {self.train} "
                f"are {'test' if tested.all() else 'training'} rows; allowed is what gives both"
            )
        train, test = (np.flatnonzero(rows) for rows in (~tested, tested))
        return ([ids[row] for row in train], values[train]), (
            [ids[row] for row in test],
            values[test],
        )


def _absolute(files: str | list[str] | None) -> str | list[str] | None:
    if isinstance(files, list):
        return [str(Path(file).absolute()) for file in files]
    return files and str(Path(files).absolute())


@lru_cache(maxsize=16)
def _block(files: _Files, label_column: str, scaled: bool) -> Block:
    names = _features(files.train, files.id_column, label_column)
    if not names:
        raise damaged(files.train, "no feature, allowed is one column or more beside the id")
    if files.test is not None:
        others = _features(files.test, files.id_column, label_column)
        for extra in others:
            if extra not in names:
                raise damaged(
                    files.test,
                    f"column {extra} is not in {files.train}, allowed are the same columns",
                )
    (train_ids, train), (test_ids, test) = files.load(names, numeric=True)
    if scaled:
        standardize(train, test)
    return Block(
        torch.from_numpy(train.astype(np.float32)),
        torch.from_numpy(test.astype(np.float32)),
        Rows.of(train_ids),
        Rows.of(test_ids),
    )


@lru_cache(maxsize=4)
def _labels(files: _Files, label_column: str) -> Labels:
    (train_ids, train), (test_ids, test) = files.load([label_column], numeric=False)
    classes = in_order(train[:, 0])
    if len(classes) < 2:
        raise damaged(
            files.train,
            f"column {label_column} is the same in all training rows, allowed are two or more "
            "labels",
        )
    codes = {name: code for code, name in enumerate(classes)}
    if not codes.keys() >= set(test[:, 0]):
        file = files.test or files.train
        column = parse(file, {label_column: str}, whole=False)[label_column]
        row = int((~column.isin(classes)).to_numpy().argmax())
        raise damaged(
            file,
            f"column {label_column}, row {row}: a label of no training row, allowed are the "
            f"{len(codes)} of training rows",
        )
    return Labels(
        torch.tensor([codes[name] for name in train[:, 0]]),
        torch.tensor([codes[name] for name in test[:, 0]]),
        tuple(classes),
        Rows.of(train_ids),
        Rows.of(test_ids),
    )


def _place(identifier: str) -> float:
    """Hash an id to a number from 0 to 1."""
    digest = hashlib.sha256(identifier.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _features(file: str, id_column: str, label_column: str) -> list[str]:
    """Return the feature columns of a file, in its order."""
    return [name for name in header(file, [id_column]) if name not in (id_column, label_column)]
