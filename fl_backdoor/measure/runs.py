"""Runs on disk, read with the suspicion that other people's files deserve."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from strategies.checks import line as short_line

from ..errors import UserError
from ..files import CONFIG, ERROR, METRICS, SUMMARY, TWIN, Row, flatten_config
from .measures import compared, drawn
from .own import add_own

PROTOCOL = "protocol"
"""Column: horizontal or vertical."""

EPOCHS = "metrics.jsonl of a vertical run"
"""Column of the path to the epochs of a run."""

EARLY = "ended early"
"""Column: 1 for a run that an error ended before its last round or epoch."""


def find(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the runs in and below some folders: those that have ended, and the others.

    Clean twins are part of their run, not runs of their own, unless their own folder is given.

    Raises
    ------
    UserError
        If a folder cannot be read, or there is no ended run in or below it.
    """
    ended: list[Path] = []
    unfinished: dict[Path, Path] = {}
    for folder in folders:
        try:
            found = list(_runs(folder))
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        own = [path for path, has_ended in found if has_ended]
        others = {path.resolve(): path for path, has_ended in found if not has_ended}
        if not own:
            begun = f", {len(others)} unfinished" if others else ""
            raise UserError(f"{folder}: no ended run ({SUMMARY} or {ERROR}) below{begun}")
        ended += own
        unfinished |= others
    return ended, list(unfinished.values())


def collect(paths: list[Path]) -> pd.DataFrame:
    """Read the configuration and summary of ended runs.

    Returns
    -------
    DataFrame
        One row a run, without measures if an error ended it.

    Raises
    ------
    UserError
        If a run cannot be read.
    """
    rows: list[Row] = []
    configs = [_mapping(path / CONFIG) for path in paths]
    add_own("measure.extra", _own_measures(configs))
    for path, config in zip(paths, configs, strict=True):
        for key in ("name", "seed"):
            if key not in config:
                raise _broken(path / CONFIG, f"no {key}")
        finished, vertical = (path / SUMMARY).exists(), "num_epochs" in config
        row: Row = {key: _short(key, value) for key, value in flatten_config(config).items()}
        row[PROTOCOL] = "vertical" if vertical else "horizontal"
        row[TWIN] = str(path.resolve().name == TWIN)
        row[EARLY] = int(not finished)
        row[EPOCHS] = path / METRICS if vertical else None
        nothing = dict.fromkeys(measure.name for measure in compared())
        rows.append(row | (_measures(path / SUMMARY) if finished else nothing))
    return pd.DataFrame(rows)


def distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the first run of each setting and seed: one that is finished, if there is any."""
    finished_first = runs.sort_values(EARLY, kind="stable")
    return finished_first.drop_duplicates(result_keys(runs)).sort_index()


def result_keys(runs: pd.DataFrame) -> list[str]:
    """Return the columns that the result of a run follows from."""
    unsaid = {"name", "floor", "resume", EPOCHS, EARLY, *(x.name for x in compared())}
    return [key for key in runs.columns if key not in unsaid and not key.startswith("engine.")]


def read_epochs(path: Path) -> list[Row]:
    """Read the drawn measures of each epoch; a last line that is half-written is left out.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    rows: list[Row] = []
    keys = {measure.name for measure in drawn("epoch")}
    for number, text in enumerate(lines, start=1):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            row = None
        if not (isinstance(row, dict) and row.get("epoch") == number and row.keys() >= keys):
            raise UserError(f"{path}: line {number} is not the row of epoch {number}")
        for measure in drawn("epoch"):
            if not measure.allows(row[measure.name]):
                raise UserError(
                    f"{path}: {measure.name} of epoch {number} is not {measure.allowed}"
                )
        values = {key: math.nan if row[key] is None else float(row[key]) for key in keys}
        rows.append({"epoch": number} | values)
    return rows


def _runs(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the runs in and below a folder, and whether they ended; links are followed once."""
    seen: set[Path] = set()
    for name, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        path = Path(name)
        place = path.resolve()
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        if CONFIG in files:
            yield path, SUMMARY in files or ERROR in files
            folders[:] = [below for below in folders if below != TWIN]
        folders.sort()


def _raise(error: OSError) -> NoReturn:
    raise error


def _own_measures(configs: list[dict[str, Any]]) -> list[str]:
    """Name the measures that somebody has added to some of the runs."""
    extras = (flatten_config(config).get("measure.extra", []) for config in configs)
    return sorted({str(name) for extra in extras if isinstance(extra, list) for name in extra})


def _mapping(path: Path) -> dict[str, Any]:
    """Read the JSON object that a file of a run holds."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, getattr(error, "strerror", None) or error) from error
    if not isinstance(content, dict):
        raise _broken(path, "no mapping")
    return content


def _measures(path: Path) -> dict[str, float | None]:
    """Read the measures of a summary; all but the accuracy may be missing."""
    summary = _mapping(path)
    if summary.get("main_accuracy") is None:
        raise _broken(path, "no main_accuracy")
    values = {}
    for measure in compared():
        value = values[measure.name] = summary.get(measure.name)
        if not measure.allows(value):
            raise _broken(path, f"{measure.name} is {value!r:.40}, not {measure.allowed}")
    return values


def _broken(path: Path, reason: object) -> UserError:
    return UserError(f"{path.parent}: not a whole run ({path.name}: {short_line(reason)})")


def _short(key: str, value: Any) -> str:
    """Write a value, of a class its name, in characters that a data frame can hold."""
    text = str(value).encode(errors="backslashreplace").decode()
    return text.rpartition(".")[2] if key.endswith("_target_") else text
