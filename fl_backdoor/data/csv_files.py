"""CSV files with a header, read so that an error names a place and never what stands there."""

import csv
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .labels import missing
from .standardize import LARGEST


def header(file: str, needed: Sequence[str], key: str = "files") -> list[str]:
    """Return the names of the columns, which are different, and of which some are needed."""
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            names = next(csv.reader(lines), [])
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(file, error, key) from error
    for name in needed:  # first, because without them these may be no names
        if name not in names:
            raise damaged(file, f"column {name} is missing, allowed is a header with it", key)
    for position, name in enumerate(names):
        if name in names[:position]:
            raise damaged(file, f"two columns are named {name!r}, allowed are different names", key)
    if "" in names:
        raise damaged(
            file, f"column {names.index('')} has no name, allowed is a header of names", key
        )
    return names


def read(
    file: str, id_column: str, columns: Sequence[str], numeric: bool
) -> tuple[list[str], NDArray[Any]]:
    """Read ids, sorted as text, and columns: finite float64 numbers, or texts."""
    names = header(file, [id_column, *columns])
    kinds: dict[str, type] = dict.fromkeys([id_column, *columns], str)
    if numeric:
        # The whole file, because pandas forgives too long lines if told to leave columns out.
        kinds = {name: np.float64 if name in columns else str for name in names}
    table = None
    with suppress(ValueError):
        table = parse(file, kinds, numeric)
    if table is None:
        # Read again to say which row it was; outside, where no error has the value in its context.
        table = parse(file, dict.fromkeys(kinds, str), numeric)
    if not len(table):
        raise damaged(file, "no rows below the header, allowed is one or more")
    values = []
    for name in [id_column, *columns]:
        column = table[name]
        if kinds[name] is str:
            bad, allowed = missing(column.to_numpy(np.str_)), "not empty, and not nan"
        else:
            column = pd.to_numeric(column, errors="coerce")
            bad, allowed = ~(column.abs() <= LARGEST).to_numpy(), "a finite number"
        if bad.any():
            row = int(bad.argmax())
            raise damaged(file, f"column {name}, row {row}: allowed is {allowed}")
        values.append(column.to_numpy(object if kinds[name] is str else np.float64))
    ids = values[0].tolist()
    order = sorted(range(len(ids)), key=ids.__getitem__)
    for first, second in pairwise(order):
        if ids[first] == ids[second]:
            raise damaged(
                file,
                f"column {id_column}: the same id in rows {first} and {second}, allowed is once",
            )
    return [ids[row] for row in order], np.column_stack(values[1:])[order]


def parse(file: str, kinds: dict[str, type], whole: bool, key: str = "files") -> pd.DataFrame:
    """Parse the whole file, or only columns of the given kinds.

    Raises
    ------
    ValueError
        If a value is not of its column's kind.
    UserError
        If the file as a whole cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                file,
                usecols=None if whole else list(kinds),
                dtype=kinds,
                index_col=False,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _ragged(file, key) or _unreadable(file, error, key) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error, key) from error


def _ragged(file: str, key: str) -> UserError | None:
    """Name the first row that has more cells than the header."""
    with Path(file).open(encoding="utf-8-sig", newline="") as lines, suppress(csv.Error):
        rows = filter(None, csv.reader(lines))
        width = len(next(rows))
        for number, row in enumerate(rows):
            if len(row) > width:
                return damaged(
                    file, f"row {number}: {len(row)} cells, allowed are {width}, as names", key
                )
    return None


def _unreadable(file: str, error: BaseException, key: str) -> UserError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return damaged(file, f"cannot be read ({reason}), allowed is a CSV file with a header", key)


def damaged(file: str, what: str, key: str = "files") -> UserError:
    """Say what is wrong with a file, which a key of ``dataset`` names."""
    return UserError(f"dataset.{key}={file}: {what}")
