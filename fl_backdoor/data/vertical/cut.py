"""Any data set of rows, cut into parties: by columns, by pixel rows, or by channels."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...schema import bounded
from ..base import Data, Split
from ..python import build_source
from .base import Block, Labels, Rows, VerticalData
from .blocks import checked_blocks

AXES: Final = {"channels": 0, "rows": 1, "columns": 2}
"""Of one image; a table has columns only."""

CHUNK: Final = 4_096
"""Rows that are prepared at a time."""


@dataclass(kw_only=True)
class Cut(VerticalData):
    """Each party holds some adjacent columns of a table, or pixel rows, columns or channels.

    Attributes
    ----------
    source : dict
        The node of a horizontal data set, see `fl_backdoor.data.base.Source`.
    by : {"columns", "rows", "channels"}
        What is cut.
    parties : int
        How many, with parts of equal size, if no ``blocks`` are given.
    blocks : list of [int, int] or None
        First and last column (row, channel) of each party, inclusive; together all, in order.
    trigger : list
        Features of the trigger party's block, by number, from its end if negative; of images also
        pixels of the whole image, [row, column] or [channel, row, column].
    """

    source: dict[str, Any] = field(default_factory=dict)
    by: str = bounded("columns", choices=tuple(AXES))
    parties: int = bounded(2, least=1)
    blocks: list[list[int]] | None = None
    trigger: list[Any] = field(default_factory=lambda: [-1])
    poisoned_train: int | None = bounded(20, least=0)
    poisoned_test: int | None = bounded(20, least=0)

    def __post_init__(self) -> None:
        """Build the source; whether the blocks fit shows when it is loaded."""
        with _named():
            self._source = build_source("dataset.source", self.source)
        super().__post_init__()

    def settle(self) -> dict[str, Any]:
        """Decide where the source's data come from."""
        with _named():
            return {"source": self.source | self._source.settle()}

    @property
    def num_parties(self) -> int:
        """Passive parties, one for each block."""
        return self.parties if self.blocks is None else len(self.blocks)

    @property
    def description(self) -> str:
        """Name the data and what each party has of it."""
        spans = ", ".join(f"{first}-{last}" for first, last in self._spans())
        return f"{self._source.description}; {self.by} {spans}"

    def labels(self) -> Labels:
        """Return the labels."""
        data = self._data()
        return Labels(data.train.labels, data.test.labels, data.classes, *_rows(data))

    def block(self, party: int) -> Block:
        """Return the party's features, flattened."""
        first, last = self._spans()[party]
        return _block(json.dumps(self.source), self._axis(), first, last)

    def trigger_columns(self) -> list[int]:
        """Return the columns of the trigger's features in the trigger party's block."""
        shape, axis = self._data().input_shape, self._axis()
        first, last = self._spans()[self.trigger_party]
        own = [*shape]
        own[axis] = last - first + 1
        size, columns = int(np.prod(own)), []
        for feature in self.trigger:
            places = _places(feature, own, axis, first, size)
            if not places:
                pixels = ""
                if len(shape) == 3:
                    pixels = f" or pixels [row, column] whose {self.by} are {first} to {last}"
                raise UserError(
                    f"dataset.trigger={self.trigger}: {feature} is no feature of party "
                    f"{self.trigger_party}; allowed are {-size} to {size - 1}{pixels}"
                )
            columns += places
        return columns

    def _data(self) -> Data:
        with _named():
            data = self._source.load()
        if data.kind == "text":
            raise UserError("dataset.source: texts; allowed are tables and images")
        return data

    def _axis(self) -> int:
        """Return which axis of a row is cut."""
        if self._data().kind == "image":
            return AXES[self.by]
        if self.by != "columns":
            raise UserError(f"dataset.by={self.by}: allowed for a table is columns")
        return 0

    def _spans(self) -> list[tuple[int, int]]:
        """Return the first and the last column (row, channel) of each party."""
        size = self._data().input_shape[self._axis()]
        if self.blocks is None:
            if self.parties > size:
                raise UserError(f"dataset.parties={self.parties}: allowed is 1 to {size} {self.by}")
            parts = np.array_split(np.arange(size), self.parties)
            return [(int(part[0]), int(part[-1])) for part in parts]
        return checked_blocks(self.blocks, size, self.by)


@contextmanager
def _named() -> Iterator[None]:
    """Name the source's keys in its errors as the configuration does."""
    try:
        yield
    except UserError as error:
        keys = r"(?<![\w./=-])dataset\.(?!source\b)"  # and no part of a file's name
        raise UserError(re.sub(keys, "dataset.source.", str(error))) from error


def _places(feature: Any, own: list[int], axis: int, first: int, size: int) -> list[int]:
    """Return the columns of a feature in a block of shape `own`; none if it is not there."""
    if type(feature) is int:
        return [feature % size] if -size <= feature < size else []
    if not isinstance(feature, list) or not all(type(place) is int for place in feature):
        return []
    if len(own) != 3 or len(feature) not in (2, 3):
        return []
    channels = range(own[0])
    pixels = [feature] if len(feature) == 3 else []
    if len(feature) == 2:
        start = first if axis == 0 else 0
        pixels = [[start + channel, *feature] for channel in channels]
    columns = []
    for pixel in pixels:
        place = [value - (first if k == axis else 0) for k, value in enumerate(pixel)]
        if all(0 <= value < limit for value, limit in zip(place, own, strict=True)):
            columns.append(int(np.ravel_multi_index(place, own)))
    return columns


@lru_cache(maxsize=16)
def _block(source: str, axis: int, first: int, last: int) -> Block:
    """Cut a block out; once a process, whatever how many of its objects ask for it."""
    data = build_source("dataset.source", json.loads(source)).load()

    def cut(split: Split) -> Tensor:
        parts = [
            split[start : start + CHUNK][0].narrow(axis + 1, first, last - first + 1).flatten(1)
            for start in range(0, len(split), CHUNK)
        ]
        return torch.cat(parts)

    return Block(cut(data.train), cut(data.test), *_rows(data))


def _rows(data: Data) -> tuple[Rows, Rows]:
    """Identify the rows by their data set and their number in its own order."""
    train, test = (
        Rows.of(f"{data.name} {number}" for number in range(len(split)))
        for split in (data.train, data.test)
    )
    return train, test
