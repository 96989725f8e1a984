"""What a run gives back to a program: numbers, tables as text and HTML, data frames, figures."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, overload

import pandas as pd
from rich.console import Console

from .compare import tell
from .errors import UserError
from .files import TWIN
from .loop.display import tables
from .measure.caveats import caveats
from .measure.runs import EARLY, EPOCHS, Run, frame
from .report.tidy import rounds

WIDTH = 100
"""Columns of a text, whatever shows it."""


class RunResult(Mapping[str, Any], os.PathLike[str]):
    """A run that has ended: reads like the dict of its summary, prints like its table.

    It stands for its directory wherever a path may.

    Parameters
    ----------
    path : Path
        The run directory.

    Attributes
    ----------
    path : Path
        The run directory.
    config : dict
        The configuration, by dotted keys: ``result.config["attack.num_attackers"]``.
    error : str
        What ended it early; "" if it is complete.

    Raises
    ------
    UserError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run.read(path)
        self.path, self.config, self.error = path, self.run.config, self.run.error

    def __getitem__(self, key: str) -> Any:
        return self.run.summary[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.run.summary)

    def __len__(self) -> int:
        return len(self.run.summary)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return _text(self._write)

    def _repr_html_(self) -> str:
        return _html(self._write)

    @property
    def rounds(self) -> pd.DataFrame:
        """What was measured of each round or epoch, a row each, by its number."""
        return pd.DataFrame(self.run.rows).set_index(self.run.unit)

    @property
    def clean_twin(self) -> "RunResult | None":
        """The same run without attackers, if it was asked for (``floor=True``)."""
        twin = self.path / TWIN
        return RunResult(twin) if twin.is_dir() else None

    @property
    def figures(self) -> dict[str, Path]:
        """The figures as PNG files, by their names: ``rounds``, ``distances``, ..."""
        return {path.stem: path for path in sorted(self.path.glob("*.png"))}

    def _write(self, console: Console) -> None:
        if self.error:
            console.print(f"{self.path} {EARLY}: {self.error}")
            return
        for table in tables(dict(self), self.run.unit):
            console.print(table)
        console.print("What this does not show:")
        for line in caveats([self.run]):
            console.print(f"- {line}")
        console.print(f"Results: {self.path}", soft_wrap=True)


class Results(Sequence[RunResult]):
    """Runs that have ended: a sequence of results, which prints like their comparison.

    Parameters
    ----------
    paths : sequence of Path
        Their directories.
    notes : sequence of str
        A line on each run that has not ended, or that an error ended.

    Attributes
    ----------
    notes : tuple of str
        Those lines; they stand below the comparison.

    Raises
    ------
    UserError
        If one of them cannot be read, or there is none.
    """

    def __init__(self, paths: Sequence[Path], notes: Sequence[str] = ()) -> None:
        if not paths:
            raise UserError("no runs: nothing to compare")
        self._results = [RunResult(path) for path in paths]
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, place: int) -> RunResult: ...
    @overload
    def __getitem__(self, place: slice) -> "Results": ...
    def __getitem__(self, place: int | slice) -> "RunResult | Results":
        if isinstance(place, slice):
            return Results([result.path for result in self._results[place]])
        return self._results[place]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return _text(self._write)

    def _repr_html_(self) -> str:
        return _html(self._write)

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each run: its configuration by dotted keys, data, versions and measures."""
        return frame(self._runs).drop(columns=EPOCHS)

    @property
    def rounds(self) -> pd.DataFrame:
        """A row for each round or epoch of each run, beside the run that it is of."""
        return rounds(self._runs)

    @property
    def _runs(self) -> list[Run]:
        return [result.run for result in self._results]

    def _write(self, console: Console) -> None:
        tell(self._runs, self.notes, console)


def _console() -> Console:
    return Console(
        file=StringIO(),
        width=WIDTH,
        record=True,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=False,
        force_jupyter=False,
    )


def _text(write: Callable[[Console], None]) -> str:
    console = _console()
    write(console)
    return console.export_text().rstrip()


def _html(write: Callable[[Console], None]) -> str:
    console = _console()
    write(console)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
