"""The page of a report: one file that needs nothing else."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..measure.measures import MEASURES, text
from ..measure.runs import PROTOCOL, RUN, said
from ..measure.settings import NOTHING, result_keys
from .estimate import Estimate
from .matrix import (
    ATTACK,
    AXES,
    DEFENSE,
    MOST_NAMED,
    NO_ATTACK,
    Cell,
    Kind,
    Matrix,
    Section,
    class_of,
)
from .tidy import BESIDE, MEMORY, Skipped

MARK: Final = '<meta name="generator" content="fl_backdoor.report">'
"""By which a report knows its own page again."""

LARGEST: Final = 2_900_000
"""Bytes of a page; figures that it has no room for are named, and lie beside it."""
DATA: Final = ("data", "data_digest")
"""Columns that tell what the data were; keys of the configuration say it shorter."""
MOST_LISTED: Final = 1000
"""Runs whose command is listed; the table beside the page has them all."""

Figures = Sequence[tuple[Path, str]]


def written(
    table: pd.DataFrame,
    parts: Sequence[Section],
    figures: Sequence[Figures],
    caveats: Sequence[list[str]],
    skipped: Skipped,
    again: int,
) -> str:
    """Return the page.

    Parameters
    ----------
    table : DataFrame
        A row a run.
    parts : sequence of Section
        Of those runs.
    figures, caveats : sequence of list
        Of each section: files with what they show, and what it does not show.
    skipped : list of (Path, str)
        What could not be reported, and why.
    again : int
        Runs that were left out, of the same setting and seed as another.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    content = {
        "mark": MARK,
        "version": version("fl-backdoor"),
        "question": question(table, parts),
        "sections": [
            _section(part, lines, more=len(parts) > 1)
            for part, lines in zip(parts, caveats, strict=True)
        ],
        "runs": [_run(row) for _, row in table.head(MOST_LISTED).iterrows()],
        "count": len(table),
        "data": _counted(table, DATA),
        "versions": _counted(table, sorted(k for k in table if k.startswith("versions."))),
        "skipped": skipped,
        "again": again,
    }
    bare = template.render(**content, figures=_embedded(figures, 0))
    return template.render(**content, figures=_embedded(figures, LARGEST - len(bare.encode())))


def question(table: pd.DataFrame, parts: Sequence[Section]) -> str:
    """Ask in one sentence what runs are there to answer."""
    attacks = _names(parts, ATTACK, "attack")
    defenses = _names(parts, DEFENSE, "defense")
    seeds = table["seed"].nunique()
    over = f"{seeds} seed{'s' * (seeds > 1)}"
    if not attacks:
        return f"What do {defenses} reach where nobody attacks, over {over}?"
    return f"How well do {defenses} hold against {attacks}, over {over}?"


def _names(parts: Sequence[Section], axis: str, what: str) -> str:
    labels = {str(label) for part in parts for label in part.table[axis]} - {NO_ATTACK}
    names = sorted({class_of(label) for label in labels})
    if len(names) > MOST_NAMED:
        # Sections name the same by different keys.
        return f"{len(labels if len(parts) == 1 else names)} {what}s"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _section(part: Section, lines: list[str], *, more: bool) -> dict[str, Any]:
    reason = {
        key: _shortened(value)
        for key, value in part.reason.items()
        if not (value == NOTHING and PROTOCOL in part.reason)  # of the other protocol
    }
    chosen = [f"{key}={value}" for key, value in reason.items() if key not in DATA]
    return {
        "reason": reason,
        "apart": more,
        "brief": ", ".join(chosen[:MOST_NAMED]) + ", ..." * (len(chosen) > MOST_NAMED),
        "answers": [matrix.answer() for matrix in part.matrices],
        "matrices": [_matrix(matrix) for matrix in part.matrices],
        "clean": [] if part.matrices else _clean(part),
        "caveats": lines,
        "settings": _settings(part),
    }


def _shortened(value: str) -> str:
    return value if len(value) <= 48 else f"{value[:47]}…"


def _matrix(matrix: Matrix) -> dict[str, Any]:
    rows = []
    for defense in matrix.defenses:
        cells = []
        for attack in matrix.attacks:
            cell = matrix.cells.get((defense, attack))
            beaten = matrix.beaten(defense, attack)
            cells.append(None if cell is None else _cell(cell, matrix.kind, beaten=beaten))
        worst, clean = matrix.worst(defense), matrix.clean.get(defense)
        untold = matrix.untold(defense)
        rows.append(
            {
                "name": defense,
                "clean": None if clean is None else clean[1].accuracy.text(),
                "alone": clean[0] if clean and clean[0] != defense else "",
                "cells": cells,
                "worst": None if worst is None else f"{matrix.kind.text(worst[1])} by {worst[0]}",
                "of": f"of {len(matrix.attacks) - len(untold)} of {len(matrix.attacks)} attacks"
                if untold
                else "",
            }
        )
    return {
        "kind": matrix.kind.name,
        "title": matrix.kind.title,
        "unit": matrix.kind.unit,
        "beaten": f"{100 * matrix.kind.beaten:.0f} {matrix.kind.unit}",
        "attacks": matrix.attacks,
        "rows": rows,
        "clean": bool(matrix.clean),
    }


def _cell(cell: Cell, kind: Kind, *, beaten: bool) -> dict[str, Any]:
    return {
        "accuracy": cell.accuracy.text(),
        "success": kind.text(cell.success),
        "notes": cell.notes,
        "beaten": beaten,
    }


def _clean(part: Section) -> list[tuple[str, str, int]]:
    """Return defense, main accuracy and number of runs, where nobody attacks."""
    return [
        (str(name), Estimate.of(runs["main_accuracy"]).text(), len(runs))
        for name, runs in part.table.groupby(DEFENSE)
    ]


def _settings(part: Section) -> list[tuple[str, str]]:
    """Return what each attack and defense of a section is, key by key, and what all have alike."""
    own = part.table.drop(columns=[*AXES, *BESIDE])
    keys = [key for key in result_keys(own) if not said(key) and key != "seed"]
    found = []
    for axis, starts in AXES.items():
        node = [key for key in keys if key.startswith(starts)]
        for name, runs in part.table.groupby(axis, sort=False):
            first = runs.iloc[0][node].dropna()
            found.append((str(name), " ".join(f"{k}={v}" for k, v in first.items())))
    starts = tuple(start for some in AXES.values() for start in some)
    rest = own.iloc[0][[key for key in keys if not key.startswith(starts)]].dropna()
    return [*found, ("all runs", " ".join(f"{k}={v}" for k, v in rest.items()))]


def _run(row: "pd.Series[Any]") -> dict[str, Any]:
    shown = {x.name: x for x in MEASURES}
    keys = ("main_accuracy", "attack_success_rate", "attack_success_floor", "damage", "seconds")
    values = {key: None if pd.isna(row[key]) else float(row[key]) for key in keys}
    memory = None if pd.isna(row[MEMORY]) else int(row[MEMORY])
    return {
        "name": row[RUN],
        "seed": row["seed"],
        **{key: text(value, shown[key].unit) for key, value in values.items()},
        "memory": text(memory, "bytes"),
        "error": row["error"],
        "command": row["command"] or "not begun by this command",
    }


def _counted(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, int]]:
    """Return the different values of some columns as one text each, and how many runs have it."""
    own = table.reindex(columns=list(keys)).astype(object).fillna("-").astype(str)
    words = [
        " ".join(f"{k.removeprefix('versions.')} {row[k]}" for k in keys)
        for _, row in own.iterrows()
    ]
    counts = pd.Series(words, dtype=str).value_counts()
    return [(str(name), int(number)) for name, number in counts.items()]


def _embedded(figures: Sequence[Figures], room: int) -> Iterable[list[tuple[str, str, str]]]:
    """Return of each figure its content, as long as there is room, its name, and what it shows."""
    found: list[list[tuple[str, str, str]]] = []
    for some in figures:
        found.append([])
        for path, what in some:
            image = _image(path)
            if len(image) <= room:
                room -= len(image)
            else:
                image = ""
            found[-1].append((image, path.name, what))
    return found


def _image(path: Path) -> str:
    """Return a figure as a data URL, of 256 colors: less than half of the bytes of its file."""
    from PIL import Image

    content = BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize().save(content, "PNG")
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"
