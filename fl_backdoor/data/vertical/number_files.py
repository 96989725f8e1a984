"""Files of numbers without a header, read some rows at a time."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import UserError
from ..standardize import LARGEST

# Rows that pandas parses at a time: a tag file of 161,789 rows is never in memory at once.
_CHUNK: Final = 4_096


def read_parts(
    folder: Path, path: Path, width: int, kind: type[np.generic]
) -> Iterator[NDArray[Any]]:
    """Read a file of numbers without a header, some rows at a time.

    Integers must be 0 or 1; they are read wide, since older pandas wraps what does not fit.
    """
    least, most, allowed = -LARGEST, LARGEST, "a finite number"
    if kind is np.int64:
        least, most, allowed = 0, 1, "0 or 1"
    start = 0
    try:
        # Any white space: tags are separated by tabs, and lines may end in a separator.
        with pd.read_csv(
            path, sep=r"\s+", header=None, dtype=kind, quoting=csv.QUOTE_NONE, chunksize=_CHUNK
        ) as chunks:
            for chunk in chunks:
                part = chunk.to_numpy()
                if part.shape[1] != width:
                    raise damaged(folder, path, f"{part.shape[1]} columns, allowed is {width}")
                bad = ~((part >= least) & (part <= most))
                if bad.any():
                    row, column = np.argwhere(bad)[0]
                    raise damaged(
                        folder,
                        path,
                        f"row {start + row}, column {column}: allowed is {allowed} in each of "
                        f"{width} columns",
                    )
                yield part
                start += len(part)
    except FileNotFoundError as error:
        raise damaged(folder, path, "is missing") from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise damaged(
            folder,
            path,
            f"cannot be read after row {start} ({reason}), allowed is {allowed} in each of "
            f"{width} columns",
        ) from error
    except (ValueError, OverflowError):
        # Without what pandas says: it quotes the value, and the error travels to the server.
        where = _first_fault(path, start, width, kind)
        raise damaged(
            folder, path, f"{where}: allowed is {allowed} in each of {width} columns"
        ) from None


def _first_fault(path: Path, start: int, width: int, kind: type[np.generic]) -> str:
    """Say in which row, from `start` on, and in which column pandas met what is not allowed."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        rows = filter(None, map(str.split, lines))
        for row, cells in enumerate(islice(rows, start, None), start):
            if len(cells) != width:
                return f"row {row} of {len(cells)} columns"
            for column, cell in enumerate(cells):
                if not _is_number(cell, kind):
                    return f"row {row}, column {column}"
    return f"cannot be read after row {start}"


def _is_number(cell: str, kind: type[np.generic]) -> bool:
    if kind is np.int64:
        return cell in ("0", "1")
    try:
        return abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def damaged(folder: Path, path: Path, what: str) -> UserError:
    """Say what is wrong with a file below a folder."""
    return UserError(f"dataset.root={folder}: {path.relative_to(folder)}: {what}")
