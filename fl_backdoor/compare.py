"""Compare finished runs: ``python -m fl_backdoor.compare multirun/...``.

Runs that differ in nothing but the seed make one line: mean and standard deviation over
seeds. Where the number of poisoned samples varies, the attack success rate is drawn over it
(Figs. 4 and 8 of Cao et al. 2019). Vertical runs are drawn over their epochs (Figs. 4 to 7 of
Liu, Yi, Chen 2020). A sweep ends with this comparison.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from strategies.checks import line as short_line

from .config import fail
from .errors import UserError
from .measure.figures import new_axes, save_figure
from .measure.measures import Measure, compared, drawn
from .measure.runs import (
    EARLY,
    EPOCHS,
    PROTOCOL,
    collect,
    distinct,
    find,
    read_epochs,
    result_keys,
)
from .screen import WIDE, Screen, counted

NOTHING = "-"

POISONED = "attack.poisoned_samples"

SWEPT = (
    PROTOCOL,
    "strategy._target_",
    "attack.num_attackers",
    POISONED,
    "attack.source",
    "top._target_",
    "attack._target_",
    "attack.gamma",
    "defenses.noise.distribution",
    "defenses.noise.variance",
    "defenses.clipping.max_norm",
    "defenses.sparsification.drop_rate",
)
"""Keys that sweeps are mostly made of."""


def varying(runs: pd.DataFrame) -> list[str]:
    """Return the fewest configuration keys that tell the settings apart, the seed left out."""
    keys = [key for key in result_keys(runs) if key != "seed" and not key.endswith(".seed")]
    keys = [key for key in keys if runs[key].fillna("").nunique() > 1]
    # What follows from another key, such as a threshold from the defense, says nothing new.
    # The keys that sweeps are made of are kept rather than others.
    keys.sort(key=lambda key: (key not in SWEPT, SWEPT.index(key) if key in SWEPT else 0))
    settings = len(runs[keys].fillna("").drop_duplicates()) if keys else 1
    for key in reversed(keys.copy()):
        rest = [other for other in keys if other != key]
        told = rest and len(runs[rest].fillna("").drop_duplicates()) == settings
        if told and key != PROTOCOL:
            keys = rest
    return keys or ["name"]


def grouped(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation over seeds, and number of seeds of each setting."""
    keys = varying(runs)
    measures = runs[[measure.name for measure in compared()]].astype(float)
    groups = pd.concat([runs[keys].fillna(NOTHING), measures], axis=1).groupby(keys, sort=False)
    result = groups.agg(["mean", "std"])
    early = runs[EARLY].groupby([runs[key].fillna(NOTHING) for key in keys], sort=False).sum()
    result[("seeds", "")] = groups.size() - early
    result[(EARLY, "")] = early
    return result.iloc[sorted(range(len(result)), key=lambda i: _numerically(result.index[i]))]


def tables(groups: pd.DataFrame, console: Console) -> list[Table]:
    """Write the comparison as one table, or in parts that a narrow console has place for."""
    measures = [x for x in compared() if groups[(x.name, "mean")].notna().any()]
    whole = table(groups, measures)
    if _fits(whole, console):
        return [whole]
    parts: list[list[Measure]] = [[]]
    for measure in measures:
        longer = [*parts[-1], measure]
        if parts[-1] and not _fits(table(groups, longer, narrow=True), console):
            parts.append([measure])
        else:
            parts[-1] = longer
    return [table(groups, part, narrow=True) for part in parts]


def table(groups: pd.DataFrame, measures: list[Measure], *, narrow: bool = False) -> Table:
    """Write some measures of the comparison as a table.

    With ``narrow`` words stand below each other, and the spread below its mean.
    """
    some_early = bool(groups[(EARLY, "")].any())
    out = Table(
        caption=f"of: the others {EARLY}" if some_early else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD if narrow else box.HEAVY_HEAD,
        show_edge=not narrow,
        padding=0 if narrow else (0, 1),
    )
    stacked = _stacked if narrow else str
    for key in groups.index.names:
        out.add_column(stacked(_name(str(key))), overflow="fold")
    out.add_column("seeds", justify="right", overflow="fold")
    gap = "\n" if narrow else " "
    for measure in measures:
        title = f"{measure.short} {measure.unit}".strip().replace(" ", gap)
        out.add_column(title, justify="right", overflow="fold")
    for index, row in groups.iterrows():
        keys = index if isinstance(index, tuple) else (index,)
        done, early = (int(row[(count, "")]) for count in ("seeds", EARLY))
        cells = [f"{done} of {done + early}" if early else str(done)]
        for measure in measures:
            mean, std = (measure.scale * row[(measure.name, how)] for how in ("mean", "std"))
            cells.append(_spread(mean, std, gap))
        out.add_row(*(stacked(str(value)) for value in keys), *cells)
    return out


def draw_poisoned(groups: pd.DataFrame, path: Path) -> None:
    """Draw the attack success rate over the number of poisoned samples, one line a setting."""
    figure, axes = new_axes(8.4, 4.0)
    frame = groups["attack_success_rate"].reset_index()
    frame = frame[frame[POISONED] != NOTHING]  # attacks without poisoned samples
    try:
        frame = frame.assign(**{POISONED: frame[POISONED].astype(int)})
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {POISONED} is no whole number ({short_line(error)})") from error
    others = [str(key) for key in groups.index.names if key != POISONED]
    lines = []
    for name, points in frame.groupby(others) if others else [(("all",), frame)]:
        points = points.sort_values(POISONED)
        spread = 100 * points["std"].fillna(0)
        line = axes.errorbar(points[POISONED], 100 * points["mean"], spread, marker="o", capsize=3)
        lines.append((_label(name), line))
    axes.set(xlabel="poisoned samples S", ylabel="attack success rate (%)")
    axes.grid(alpha=0.3)
    _add_legend(figure, lines, _label(others))
    _save(figure, path)


def draw_epochs(runs: pd.DataFrame, path: Path) -> None:
    """Draw the measures of vertical runs over their epochs: mean and range over seeds."""
    keys = varying(runs)
    settings = runs[keys].fillna(NOTHING).drop_duplicates()
    order = sorted(range(len(settings)), key=lambda i: _numerically(tuple(settings.iloc[i])))
    measures = drawn("epoch")
    figure, panels = new_axes(4.2 * len(measures), 3.8, columns=len(measures))
    lines = []
    for number in order:
        setting = settings.iloc[number]
        own = runs[(runs[keys].fillna(NOTHING) == setting).all(axis=1)]
        rows = [
            row
            for file, early in zip(own[EPOCHS], own[EARLY], strict=True)
            if not early or file.exists()  # there may be none before the first epoch
            for row in read_epochs(file)
        ]
        if not rows:
            continue
        epochs = pd.DataFrame(rows).groupby("epoch")
        mean, low, high = 100 * epochs.mean(), 100 * epochs.min(), 100 * epochs.max()
        for axes, key in zip(panels, [x.name for x in measures], strict=True):
            (line,) = axes.plot(mean.index, mean[key], ".-", markersize=4)
            color = line.get_color()
            axes.fill_between(mean.index, low[key], high[key], color=color, alpha=0.12, lw=0)
        lines.append((_label(tuple(setting)), line))
    for axes, measure in zip(panels, measures, strict=True):
        axes.set(xlabel="epoch", ylabel="%", ylim=(-3, 103), title=measure.short)
        axes.grid(alpha=0.3)
    _add_legend(figure, lines, f"{_label(map(_name, keys))}\n(band: range of seeds)")
    _save(figure, path)


def show(folders: list[Path], console: Console) -> None:
    """Print the comparison of the runs below some folders, and draw it into the first.

    Raises
    ------
    UserError
        If a folder has no ended run, a run cannot be read, or a figure cannot be made of it; a
        figure is made after everything else has been printed.
    """
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    ended, unfinished = find(folders)
    every = collect(ended)
    runs = distinct(every)
    groups = grouped(runs)
    for part in tables(groups, console):
        console.print(part)
    again = len(every) - len(runs)
    if again:
        say(f"{counted(again, 'run')} left out: of the same setting and seed as another")
    if unfinished:
        are = "run is" if len(unfinished) == 1 else "runs are"
        say(f"{len(unfinished)} {are} unfinished: {' '.join(map(str, unfinished))}")
    if POISONED in groups.index.names:
        figure = folders[0] / "attack_success.png"
        draw_poisoned(groups, figure)
        say(f"Figure: {figure}")
    if runs[EPOCHS].notna().all():
        figure = folders[0] / "epochs.png"
        draw_epochs(runs, figure)
        say(f"Figure: {figure}")


def main() -> None:
    """Compare from the command line; bad input is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m fl_backdoor.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", help="run or sweep directories")
    folders = parser.parse_args().folders
    console = Screen()
    try:
        if "" in folders:  # as a path it would be the working directory
            raise UserError("'': not the name of a run or sweep directory")
        show([Path(folder) for folder in folders], console)
    except UserError as error:
        fail(error)
    except OSError as error:  # of standard output, which would be flushed again at exit
        console.on_broken_pipe()
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _fits(out: Table, console: Console) -> bool:
    options = console.options.update(width=WIDE)
    return console.measure(out, options=options).maximum <= console.width


def _label(values: Iterable[Any]) -> str:
    """Name a setting in characters and lines that a figure can hold."""
    return fill(short_line(", ".join(map(str, values))), 40)


def _add_legend(figure: Any, lines: list[tuple[str, Any]], title: str) -> None:
    """Name all lines beside the axes, in a figure that is high enough for it."""
    labels, handles = [label for label, _ in lines], [handle for _, handle in lines]
    # Given at once, matplotlib would leave out the labels that begin with an underscore.
    legend = figure.legend(
        handles, ["-"] * len(lines), loc="outside right center", fontsize=8, title=title or None
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    rows = "\n".join([title, *labels]).count("\n") + 1
    figure.set_figheight(max(figure.get_figheight(), 0.2 * rows + 0.5))


def _save(figure: Any, path: Path) -> None:
    try:
        save_figure(figure, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def _numerically(index: Any) -> list[tuple[float, str]]:
    """Sort 500 before 1000, and words behind numbers."""
    parts = index if isinstance(index, tuple) else (index,)
    number = [pd.to_numeric(part, errors="coerce") for part in parts]
    return [
        (math.inf if pd.isna(n) else float(n), str(p)) for n, p in zip(number, parts, strict=True)
    ]


def _name(key: str) -> str:
    """Shorten a key to what tells it from others in a sweep."""
    return key.removesuffix("._target_").rpartition(".")[2]


def _stacked(words: str) -> str:
    """Break a name after its underscores and before its capitals."""
    return re.sub(r"(?<=_)(?=.)|(?<=[a-z])(?=[A-Z])", "\n", words)


def _spread(mean: float, std: float, gap: str) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.2f}" + ("" if pd.isna(std) else f"{gap}± {std:.2f}")


if __name__ == "__main__":
    main()
