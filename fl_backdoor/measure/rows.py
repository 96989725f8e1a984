"""Rows of rounds and epochs on disk, read with the suspicion that other people's files deserve."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..errors import UserError
from ..files import Row
from .measures import drawn, measures


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _clients(value: Any) -> bool:
    return isinstance(value, list) and all(type(client) is int for client in value)


PARTS: Final[dict[str, dict[str, Callable[[Any], bool]]]] = {
    "round": {
        "main_accuracy": _number,
        "attackers": _clients,
        "cohort": _clients,
        "failed": _clients,
        "invalid": _clients,
        "kept": lambda value: value is None or _clients(value),
        "strategy": lambda value: isinstance(value, dict),
    },
    "epoch": {"main_accuracy": _number},
}
"""What a row must have, and how to tell it."""


def read_rows(path: Path, unit: str) -> list[Row]:
    """Read the rows of rounds or epochs; a last line that is half-written is left out.

    Raises
    ------
    UserError
        If they cannot be read, or lack what every row has.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    rows: list[Row] = []
    for number, text in enumerate(lines, start=1):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            row = None
        if not (isinstance(row, dict) and row.get(unit) == number):
            raise UserError(f"{path}: line {number} is not the row of {unit} {number}")
        _check(path, row, unit)
        rows.append(row)
    return rows


def read_epochs(path: Path) -> list[Row]:
    """Read the drawn measures of each epoch; a last line that is half-written is left out.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    rows: list[Row] = []
    keys = {measure.name for measure in drawn("epoch")}
    for number, row in enumerate(read_rows(path, "epoch"), start=1):
        if not row.keys() >= keys:
            raise UserError(f"{path}: line {number} is not the row of epoch {number}")
        values = {key: math.nan if row[key] is None else float(row[key]) for key in keys}
        rows.append({"epoch": number} | values)
    return rows


def _check(path: Path, row: Row, unit: str) -> None:
    for key, holds in PARTS[unit].items():
        if key not in row:
            raise UserError(f"{path}: {unit} {row[unit]} has no {key}")
        if not holds(row[key]):
            raise UserError(f"{path}: {key} of {unit} {row[unit]} is {row[key]!r:.40}")
    for measure in measures(unit):
        value = row.get(measure.name)
        if measure.unit not in ("", "clients") and not measure.allows(value):
            raise UserError(
                f"{path}: {measure.name} of {unit} {row[unit]} is {value!r:.40}, "
                f"not {measure.allowed}"
            )
