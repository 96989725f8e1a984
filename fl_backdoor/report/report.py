"""Write a report: tables, figures, and the page that holds them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import PathLike, as_paths, named, write
from ..measure.caveats import caveats
from ..measure.runs import RUN, Run
from ..screen import counted
from .figures import draw_graphs, draw_section
from .matrix import Section, sections
from .page import MARK, written
from .tidy import readable, rounds, settings, write_tables

PAGE, FIGURES = "index.html", "figures"


def write_report(
    runs: PathLike | Sequence[PathLike],
    out: PathLike,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Report runs: tidy tables, figures, and one page that opens offline.

    Parameters
    ----------
    runs : path, or sequence of paths
        Directories of runs and of sweeps. What cannot be read is named and skipped.
    out : path
        The folder to write: new, empty, or that of an earlier report, which is replaced.
    say : callable of (str)
        What to tell the user, line by line; by default nobody.

    Returns
    -------
    Path
        The page. Beside it lie ``runs.csv`` and ``rounds.csv``, both as Parquet too, and
        ``figures`` as PNG and SVG.

    Raises
    ------
    UserError
        If nothing is left to report, or the folder is not ours.
    """
    folders, out = as_paths(runs), Path(out)
    _check_ours(out)
    found, skipped = readable(folders)
    for path, reason in skipped:
        say(f"skipped {path}: {reason}")
    if not found:
        raise UserError(f"{' '.join(map(str, folders))}: nothing to report")
    kept, table = settings(found)
    rows = rounds(kept)
    parts = sections(kept, table)
    with named(out):
        figures = out / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        if not (out / PAGE).exists():  # so that the folder is known as ours if this is cut off
            write(out / PAGE, f"<!-- {MARK} -->".encode())
        for old in [*figures.glob("*.png"), *figures.glob("*.svg")]:
            old.unlink()
        write_tables(table, rows, out)
        drawn = [
            draw_section(part, rows, figures / str(number))
            for number, part in enumerate(parts, start=1)
        ]
        graphs = draw_graphs([part.table for part in parts], figures)
    shown = [[*a, *b] for a, b in zip(drawn, graphs, strict=True)]
    lines = [caveats(_runs(part, kept)) for part in parts]
    again = len(found) - len(kept)
    page = written(table, parts, shown, lines, skipped, again)
    write(out / PAGE, page.encode(errors="backslashreplace"))
    told = f"{counted(len(kept), 'run')} reported"
    told += f", {again} left out as of the same setting and seed as another" * bool(again)
    say(f"{told}, {len(skipped)} skipped: {out / PAGE}")
    return out / PAGE


def _runs(section: Section, runs: Sequence[Run]) -> list[Run]:
    names = set(section.table[RUN])
    return [run for run in runs if run.name in names]


def _check_ours(out: Path) -> None:
    """Refuse a folder that holds what no report has written."""
    page: Any = out / PAGE
    try:
        there = out.is_symlink() or out.exists()
        empty = out.is_dir() and not any(out.iterdir())
        ours = page.is_file() and MARK in page.read_text(errors="replace")
    except OSError as error:
        raise UserError(f"--out={out}: cannot be read ({error.strerror})") from error
    if there and not empty and not ours:
        raise UserError(f"--out={out}: allowed is a folder that is new, empty, or an older report")
