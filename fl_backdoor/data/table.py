"""Columns of text made into numbers: numeric ones standardised, categories one-hot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .base import Indices
from .labels import in_order, missing
from .standardize import LARGEST, standardize

MAX_CATEGORIES: Final = 1_000
"""In a column: one with more is a name or a text, not a category."""


@dataclass(frozen=True)
class Cells:
    """The rows of a split as they stand in a file: texts, and the rows' numbers there."""

    table: pd.DataFrame
    rows: Indices
    place: str

    def named(self, column: str, bad: NDArray[np.bool_], allowed: str) -> UserError:
        """Say where the first bad cell is."""
        row = int(self.rows[bad.argmax()])
        return UserError(f"{self.place}: column {column}, row {row}: allowed is {allowed}")


def encoded(
    train: Cells, test: Cells, columns: Sequence[str], categorical: Sequence[str], scaled: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make numbers of columns.

    A column is numeric if half of its training cells or more are numbers: then all must be. Any
    other is categorical: one column of 0 and 1 for each category of the training rows, in order;
    a test row of another category has 0 in all.

    Parameters
    ----------
    train, test : Cells
        Both have the columns.
    columns : sequence of str
        The features, in order.
    categorical : sequence of str
        Those that are categories though they look like numbers.
    scaled : bool
        Give numeric columns mean 0 and standard deviation 1, by the training rows.

    Returns
    -------
    train, test : arrays of shape (n, d) and (m, d)

    Raises
    ------
    UserError
        Naming the first cell that is no finite number in a numeric column or empty in another,
        or a column of too many categories.
    """
    blocks: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for name in columns:
        numbers = pd.to_numeric(train.table[name], errors="coerce")
        # What is no number becomes NaN, and so does "nan" itself, which is meant for a number.
        numeric = numbers.notna() | train.table[name].str.strip().str.lower().isin(["nan", ""])
        if name in categorical or 2 * int(numeric.sum()) < len(numeric):
            parts = _one_hot(name, train, test)
        else:
            parts = _numbers(name, train), _numbers(name, test)
            if scaled:
                standardize(*parts)
        for block, part in zip(blocks, parts, strict=True):
            block.append(part)
    return np.column_stack(blocks[0]), np.column_stack(blocks[1])


def _numbers(name: str, cells: Cells) -> NDArray[np.float64]:
    column = pd.to_numeric(cells.table[name], errors="coerce").to_numpy(np.float64)
    bad = ~(np.abs(column) <= LARGEST)
    if bad.any():
        raise cells.named(name, bad, "a finite number, as in most rows")
    return np.array(column, dtype=np.float64)[:, None]


def _one_hot(name: str, train: Cells, test: Cells) -> tuple[NDArray[np.float64], ...]:
    for cells in (train, test):
        empty = missing(cells.table[name].to_numpy(np.str_))
        if empty.any():
            raise cells.named(name, empty, "not empty, and not nan")
    categories = in_order(train.table[name])
    if len(categories) > MAX_CATEGORIES:
        raise UserError(
            f"{train.place}: column {name} has {len(categories)} different texts; allowed are "
            f"numbers, {MAX_CATEGORIES} categories or fewer, or dataset.drop=[{name}]"
        )
    known = np.array(categories)
    return tuple(
        (cells.table[name].to_numpy(np.str_)[:, None] == known).astype(np.float64)
        for cells in (train, test)
    )
