"""What a person sees of a run, of either protocol: progress, tables, figures."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..files import Row, Summary
from ..measure.measures import measures
from ..measure.measures import text as shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from .directory import RunDirectory


class Display:
    """The terminal side of a run.

    Parameters
    ----------
    console : rich.console.Console
        Where to write. On a terminal a progress bar stands below the rounds.
    prefix : str (default: "")
        Starts every line, to tell the runs of a parallel sweep apart.
    figures : bool (default: True)
        Whether figures are drawn: a run of a grid is seen in the grid's report.
    """

    def __init__(self, console: Console, prefix: str = "", *, figures: bool = True) -> None:
        self.console = console
        self.prefix = prefix
        self.figures = figures
        self.unit, self.total = "round", 0
        self._progress: Progress | None = None

    def line(self, text: str) -> None:
        """Print one line as it is."""
        self.console.print(self.prefix + text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, name: str, unit: str, total: int, rows: list[Row]) -> None:
        """Start the progress of one training, from the rounds or epochs that are there already."""
        self.unit, self.total = unit, total
        self.line(name + (f" (resumed after {len(rows)} of {total})" if rows else ""))
        if self.console.is_terminal:
            self._progress = new_progress(self.console)
            self._progress.start()
            self._progress.add_task("training", total=total, completed=len(rows))

    def round(self, row: Row) -> None:
        """Print a finished round or epoch."""
        self.line(self.text(row))
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

    def text(self, row: Row) -> str:
        """Write a finished round or epoch; what does not apply is left out."""
        unit = self.unit
        text = f"  {unit} {row[unit]:>{len(str(self.total))}}/{self.total}"
        for measure in measures(unit):
            if not measure.line or (value := measure.judged(row)) is None:
                continue
            if measure.is_floor and row.get("at_chance"):
                continue  # of what is not shown
            if measure.is_floor:
                text += f" ({measure.line} {shown(value, measure.unit)})"
            else:
                text += f"  {measure.line} {shown(value, measure.unit):>6}"
        if row.get("at_chance"):
            text += "  at chance"
        if row.get("dropped") is not None:
            text += f"  dropped {shown(row['dropped'], 'clients')}"
        for what in ("invalid", "failed"):
            if row.get(what):
                text += f"  {what} {shown(row[what], 'clients')}"
        return f"{text}  {row[f'seconds_{unit}']:.1f} s"

    def end(self) -> None:
        """Take the progress bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def result(self, summary: Summary, directory: "RunDirectory") -> None:
        """Draw the figures and print the tables of a complete run; a sweep has one of its own."""
        if self.figures:
            self.draw(summary, directory)
        if not self.prefix:
            for table in tables(summary, directory.unit):
                self.console.print(table)
            self.caveats(directory.path)
        self.line(f"Results: {directory.path}")

    def caveats(self, path: Path) -> None:
        """Say what a complete run does not show."""
        from ..measure.caveats import caveats
        from ..measure.runs import Run

        self.line("What this does not show:")
        for text in caveats([Run.read(path)]):
            self.line(f"- {text}")

    def draw(self, summary: Summary, directory: "RunDirectory") -> None:
        """Draw the figures of a complete run: whatever there is to be drawn."""
        from ..measure.figures import draw_curves, draw_distances, draw_scores

        path, unit, rows = directory.path, directory.unit, directory.rows
        title = f"{summary['name']}, seed {summary['seed']}"
        draw_curves(rows, path / f"{unit}s.png", title, unit, measures(unit))
        if summary.get("scores") is not None:
            draw_scores(summary, path / "scores.png")
        distances = directory.distances()
        if distances is not None:
            last = rows[-1]
            clients, kept, attackers = last["cohort"], last["kept"], last["attackers"]
            draw_distances(distances, clients, kept, attackers, path / "distances.png")


class LastDisplay(Display):
    """Ends the process, with status 0, once the result of its only run is shown.

    A process on Ray may crash as it leaves (Ray 2.55, seen once), when all is written; so Ray is
    not left but sees the process end, and ends what belongs to it.
    """

    def result(self, summary: Summary, directory: "RunDirectory") -> None:
        """Show the result, and end."""
        super().result(summary, directory)
        self.console.file.flush()
        sys.stderr.flush()
        os._exit(0)


def tables(summary: Summary, unit: str) -> list[Table]:
    """Write the tables of a complete run."""
    table = Table(title=f"{summary['name']}, seed {summary['seed']}", title_justify="left")
    table.add_column(f"after {unit} {summary[f'{unit}s']}")
    table.add_column("", justify="right")
    for measure in measures(unit):
        missing = measure.optional and summary.get(measure.name) is None
        if measure.title and not missing:
            table.add_row(measure.title, measure.text(summary))
    return [table, poisoned_table(summary)] if "poisoned_rows" in summary else [table]


def poisoned_table(summary: Summary) -> Table:
    """Write Table 1 and Fig. 3 of Liu, Yi, Chen 2020: the triggered rows by class, their scores."""
    table = Table(title="rows with the trigger, by class", title_justify="left")
    for title in ("class", "train", "test", "score", "score, clean twin"):
        table.add_column(title, justify="left" if title == "class" else "right")
    clean = summary["clean_scores"] or [None] * len(summary["classes"])
    for number, name in enumerate(summary["classes"]):
        counts = [summary["poisoned_rows"][split][number] for split in ("train", "test")]
        target = " (target)" if name == summary["target"] else ""
        table.add_row(
            name + target,
            *(f"{poisoned:,} / {whole:,}" for poisoned, whole in counts),
            shown(summary["scores"][number], "%"),
            shown(clean[number], "%"),
        )
    return table


def new_progress(console: Console) -> "Progress":
    """Return the bar that stands below the rounds."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
