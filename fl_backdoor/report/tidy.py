"""Tidy tables of runs: one row a run, one row a round or epoch."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import COMMAND, ERROR, SUMMARY, read_json
from ..measure.measures import MEASURES
from ..measure.runs import EPOCHS, RUN, Run, begun, failed, frame
from ..measure.settings import distinct

Skipped = list[tuple[Path, str]]
"""Directories that are not reported, and why."""

MEMORY = "peak_memory"
BESIDE = ("error", "command", MEMORY)
"""Columns of a run that are neither configuration nor measures."""


def readable(folders: Sequence[Path]) -> tuple[list[Run], Skipped]:
    """Return the runs in and below some folders, each once, and what of them cannot be read."""
    runs: dict[Path, Run] = {}
    skipped: dict[Path, str] = {}
    for folder in folders:
        try:
            found = list(begun(folder))
        except OSError as error:
            skipped[folder] = f"cannot be read ({error.strerror})"
            continue
        refused = [path for path in failed([folder]) if path[0] not in dict(found)]
        skipped |= dict(refused)
        if not found and not refused:
            skipped[folder] = "no run in or below it"
        for path, ended in found:
            if not ended:
                skipped[path] = f"incomplete: neither {SUMMARY} nor {ERROR}"
            elif path.resolve() not in runs:
                try:
                    run = Run.read(path)
                    frame([run])
                    rounds([run])
                    runs[path.resolve()] = run
                except UserError as error:
                    skipped[path] = str(error).removeprefix(f"{path}: ").removeprefix(f"{path}/")
    return list(runs.values()), list(skipped.items())


def settings(runs: Sequence[Run]) -> tuple[list[Run], pd.DataFrame]:
    """Return runs of which none repeats another, and their table with all measures.

    Returns
    -------
    runs : list of Run
        Without those of the same setting and seed as another.
    table : DataFrame
        A row each, in their order: configuration, data, versions, measures, command and cost.
    """
    table = distinct(frame(runs)).drop(columns=EPOCHS)
    kept = [runs[place] for place in table.index]
    rest = pd.DataFrame([_rest(run) for run in kept], index=table.index)
    both = pd.concat([table.drop(columns=rest.columns.intersection(table.columns)), rest], axis=1)
    return kept, both.reset_index(drop=True)


def rounds(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the rows of runs, each beside the run that it is of; lists are written as text."""
    flat = [
        {RUN: run.name, "unit": run.unit, "number": row[run.unit]} | _flat(row, run.unit)
        for run in runs
        for row in run.rows
    ]
    return pd.DataFrame(flat) if flat else pd.DataFrame(columns=[RUN, "unit", "number"])


def write_tables(table: pd.DataFrame, rows: pd.DataFrame, out: Path) -> None:
    """Write both tables as CSV and as Parquet: ``runs.*`` and ``rounds.*``."""
    for name, content in (("runs", table), ("rounds", rows)):
        content.to_csv(out / f"{name}.csv", index=False)
        content.apply(_alike).to_parquet(out / f"{name}.parquet", index=False)


def command(run: Run) -> str:
    """Return the command that began a run; "" if none did."""
    try:
        arguments = read_json(run.path / COMMAND).get("arguments")
    except UserError:
        return ""
    if not isinstance(arguments, list):
        return ""
    return f"python -m fl_backdoor.simulate {shlex.join(map(str, arguments))}"


def _rest(run: Run) -> dict[str, Any]:
    names = [measure.name for measure in MEASURES if measure.whole is not None]
    values = {name: run.summary.get(name) for name in [*names, MEMORY]}
    if run.summary.get("at_chance"):  # there is no success where there is no skill
        values |= {x.name: None for x in MEASURES if x.needs_skill}
    numbers = {
        name: float(value) if isinstance(value, int | float) else None
        for name, value in values.items()
        if not isinstance(value, list)
    }
    return {**numbers, "error": run.error, "command": command(run)}


def _flat(row: dict[str, Any], unit: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": part for name, part in _flat(value, unit).items()}
        elif isinstance(value, list):
            flat[key] = " ".join(map(str, value)) if _plain(value) else json.dumps(value)
        elif key != unit:
            flat[key] = value
    return flat


def _alike(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Write values as text where some are text: two rules may mean different things by a name."""
    texts = column.map(lambda value: isinstance(value, str))
    return column.astype(str).where(column.notna(), None) if texts.any() else column


def _plain(value: list[Any]) -> bool:
    return all(isinstance(part, int | float) for part in value)
