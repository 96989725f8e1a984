"""Runs on disk, read with the suspicion that other people's files deserve."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from strategies.checks import line as short_line

from ..errors import UserError
from ..files import (
    CONFIG,
    ERROR,
    FORMAT,
    METRICS,
    SUMMARY,
    TWIN,
    Row,
    Summary,
    flatten_config,
)
from .measures import Measure, compared
from .own import add_own
from .rows import read_rows

RUN = "run"
"""Column: its directory."""

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
            found = list(begun(folder))
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        own = [path for path, has_ended in found if has_ended]
        others = {path.resolve(): path for path, has_ended in found if not has_ended}
        if not own:
            rest = f", {len(others)} unfinished" if others else ""
            raise UserError(f"{folder}: no ended run ({SUMMARY} or {ERROR}) below{rest}")
        ended += own
        unfinished |= others
    return ended, list(unfinished.values())


def failed(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the runs in and below some folders that an error ended, or kept from beginning."""
    found: dict[Path, tuple[Path, str]] = {}
    for file in sorted(path for folder in folders for path in folder.rglob(ERROR)):
        if not file.with_name(SUMMARY).exists():
            found[file.resolve()] = file.parent, _reason(file)
    return list(found.values())


def ended(folders: list[Path]) -> tuple[list[Path], list[str]]:
    """Return the runs in and below some folders that have ended, and a line on each other one.

    Raises
    ------
    UserError
        If a folder has no ended run.
    """
    paths, unfinished = find(folders)
    notes = [f"{path} {EARLY}: {reason}" for path, reason in failed(folders)]
    if unfinished:
        are = "run is" if len(unfinished) == 1 else "runs are"
        notes.append(f"{len(unfinished)} {are} unfinished: {' '.join(map(str, unfinished))}")
    return paths, notes


@dataclass(frozen=True)
class Run:
    """A run that has ended, as its files say.

    Attributes
    ----------
    path : Path
        Its directory.
    config : dict
        Its configuration, by dotted keys.
    summary : dict
        Empty if an error ended it.
    error : str
        That error; "" if the run is complete.
    """

    path: Path
    config: dict[str, Any]
    summary: Summary
    error: str = ""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run.

        Raises
        ------
        UserError
            If it cannot be read, or its files are of a newer format.
        """
        config = flatten_config(_mapping(path / CONFIG))
        for key in ("name", "seed"):
            if key not in config:
                raise _broken(path / CONFIG, f"no {key}")
        if (path / SUMMARY).exists():
            return cls(path, config, _checked(path / SUMMARY))
        return cls(path, config, {}, _reason(path / ERROR))

    @property
    def name(self) -> str:
        """Its directory, in characters that tables can hold."""
        return _short(RUN, self.path)

    @property
    def unit(self) -> str:
        """What a row is of: an epoch of a vertical run, or a round."""
        return "epoch" if "num_epochs" in self.config else "round"

    @cached_property
    def rows(self) -> list[Row]:
        """Its rounds or epochs, from the first.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        path = self.path / METRICS
        if self.error and not path.exists():  # there may be none before the first
            return []
        rows = read_rows(path, self.unit)
        if self.summary and not rows:
            raise UserError(f"{path}: no {self.unit}")
        return rows

    def columns(self) -> Row:
        """Return its row in a table of runs: configuration, data, versions and measures."""
        row: Row = {key: _short(key, value) for key, value in self.config.items()}
        row[RUN] = self.name
        row[PROTOCOL] = "vertical" if self.unit == "epoch" else "horizontal"
        row[TWIN] = str(self.path.resolve().name == TWIN)
        row[EARLY] = int(bool(self.error))
        row[EPOCHS] = self.path / METRICS if self.unit == "epoch" else None
        versions = self.summary.get("versions", {})
        row |= {f"versions.{name}": str(value) for name, value in versions.items()}
        row |= {key: self.summary[key] for key in ("data", "data_digest") if key in self.summary}
        return row | {x.name: self._value(x) for x in compared()}

    def _value(self, measure: Measure) -> Any:
        value = measure.judged({measure.name: None} | self.summary)
        if not measure.allows(value):
            reason = f"{measure.name} is {value!r:.40}, not {measure.allowed}"
            raise _broken(self.path / SUMMARY, reason)
        return value


def said(key: str) -> bool:
    """Tell what a run says at its end from what it was told."""
    return key in ("data", "data_digest") or key.startswith("versions.")


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
    return frame([Run.read(path) for path in paths])


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Make a table of runs, a row each."""
    extras = (run.config.get("measure.extra", []) for run in runs)
    own = {str(name) for extra in extras if isinstance(extra, list) for name in extra}
    add_own("measure.extra", sorted(own))
    return pd.DataFrame([run.columns() for run in runs])


def begun(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the runs in and below a folder, and whether they ended; links are followed once."""
    seen: set[Path] = set()
    for name, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        path = Path(name)
        place = path.resolve()
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        if {CONFIG, METRICS} & {*files}:  # of a run without its configuration too: to be named
            yield path, SUMMARY in files or ERROR in files
            folders[:] = [below for below in folders if below != TWIN]
        folders.sort()


def _raise(error: OSError) -> NoReturn:
    raise error


def _reason(path: Path) -> str:
    """Read why a run ended early."""
    try:
        return short_line(path.read_text(errors="replace").strip()) or "error"
    except OSError as error:
        return str(error.strerror)


def _mapping(path: Path) -> dict[str, Any]:
    """Read the JSON object that a file of a run holds."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, getattr(error, "strerror", None) or error) from error
    if not isinstance(content, dict):
        raise _broken(path, "no mapping")
    return content


def _checked(path: Path) -> Summary:
    """Read a summary; all but the accuracy may be missing."""
    summary = _mapping(path)
    number = summary.get("format", FORMAT)
    if not (isinstance(number, int) and number <= FORMAT):
        raise _broken(path, f"of format {number!r:.40}, of which this version reads {FORMAT}")
    if summary.get("main_accuracy") is None:
        raise _broken(path, "no main_accuracy")
    return _older(summary) | summary


def _older(summary: Summary) -> Summary:
    """Return the measures that follow from others, which older runs have not kept."""
    keys = ("attack_success_rate", "attack_success_floor", "main_accuracy_twin", "main_accuracy")
    rate, floor, twin, accuracy = (summary.get(key) for key in keys)
    if rate is not None and floor is not None:
        return {"attack_success_above_floor": rate - floor}
    if rate is None and floor is None and twin is not None and accuracy is not None:
        return {"damage": twin - accuracy}  # of an untargeted attack
    return {}


def _broken(path: Path, reason: object) -> UserError:
    return UserError(f"{path.parent}: not a whole run ({path.name}: {short_line(reason)})")


def _short(key: str, value: Any) -> str:
    """Write a value, of a class its name, in characters that a data frame can hold."""
    text = str(value).encode(errors="backslashreplace").decode()
    return text.rpartition(".")[2] if key.endswith("_target_") else text
