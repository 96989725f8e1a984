"""Rounds in files."""

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..record import RoundRecord
from .tracker import Tracker


class JsonLines:
    """Add each round to a file, one JSON object a line, with all that its record holds.

    Parameters
    ----------
    path : str or Path
        The file; what it holds stays.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, record: RoundRecord) -> None:
        """Add a round."""
        values = {field.name: plain(getattr(record, field.name)) for field in fields(record)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")


class Csv(Tracker):
    """Write the numbers of each round into a table, one row a round.

    Parameters
    ----------
    path : str or Path
        The file. What it holds stays, but for the rounds from the first that is written on.

    Notes
    -----
    A column that comes later, as metrics may, is empty in the rounds before.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[Mapping[str, object]] = []

    def open(self, number: int) -> None:
        """Read the rounds before."""
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                self._rows = [row for row in rows if int(row["round"]) < number]

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Add a row."""
        self._rows.append({"round": number, **values})
        columns = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        replace(self.path, text.getvalue())


def replace(path: Path, text: str) -> None:
    """Replace a file, so that readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; what is not finite as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
