"""Compare finished runs: ``python -m fl_backdoor.compare multirun/...``.

Runs that differ in nothing but the seed make one line: mean and standard deviation over
seeds; every other key in which runs differ is a column. Where the number of poisoned samples
varies, the attack success rate is drawn over it (Figs. 4 and 8 of Cao et al. 2019). Vertical runs
are drawn over their epochs (Figs. 4 to 7 of Liu, Yi, Chen 2020). A sweep ends with this comparison.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from strategies.checks import line as short_line

from .arguments import Parser
from .config import ending
from .errors import UserError
from .measure.caveats import caveats
from .measure.figures import new_axes, save_figure
from .measure.measures import Measure, compared, drawn
from .measure.rows import read_epochs
from .measure.runs import EARLY, EPOCHS, RUN, Run, collect, ended, find, frame
from .measure.settings import NOTHING, differing, distinct, numerically
from .screen import WIDE, Screen, counted

POISONED = "attack.poisoned_samples"


def grouped(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation over seeds, and number of seeds of each setting.

    ``seeds`` of a measure is set where only some of the setting's seeds have it: where others are
    at chance, say.
    """
    keys = list(differing(runs)) or ["name"]
    measures = runs[[measure.name for measure in compared()]].astype(float)
    groups = pd.concat([runs[keys].fillna(NOTHING), measures], axis=1).groupby(keys, sort=False)
    result = groups.agg(["mean", "std", "count"]).rename(columns={"count": "seeds"})
    early = runs[EARLY].groupby([runs[key].fillna(NOTHING) for key in keys], sort=False).sum()
    result[("seeds", "")] = groups.size() - early
    result[(EARLY, "")] = early
    for name in measures:
        some = result[(name, "seeds")]
        result[(name, "seeds")] = some.where((some > 0) & (some < result[("seeds", "")]))
    return result.iloc[sorted(range(len(result)), key=lambda i: _numerically(result.index[i]))]


def as_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each setting: the keys in full, seeds, each measure's mean and deviation."""
    groups = grouped(runs)
    names = [f"{name}_{how}" if how else name.replace(" ", "_") for name, how in groups.columns]
    out = groups.set_axis(names, axis=1).dropna(axis=1, how="all").reset_index()
    for key, same in differing(runs).items():
        for number, other in enumerate(same, start=out.columns.get_loc(key) + 1):
            out.insert(number, other, out[key])
    return out


def tables(groups: pd.DataFrame, console: Console) -> list[Table]:
    """Write the comparison as one table, or in parts that a narrow console has place for."""
    measures = [x for x in compared() if groups[(x.name, "mean")].notna().any()]
    whole = table(groups, measures)
    if fits(whole, console):
        return [whole]
    first: list[Table] = []
    if not all(fits(table(groups, [measure], narrow=True), console) for measure in measures):
        # Settings get numbers, lest the console cut those of the measures.
        first.append(_settings(groups))
        numbers = pd.Index(map(str, range(1, len(groups) + 1)), name="setting")
        groups = groups.set_axis(numbers, axis=0)
    parts: list[list[Measure]] = [[]]
    for measure in measures:
        longer = [*parts[-1], measure]
        if parts[-1] and not fits(table(groups, longer, narrow=True), console):
            parts.append([measure])
        else:
            parts[-1] = longer
    return first + [table(groups, part, narrow=True) for part in parts]


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
        done, early = (int(row[(count, "")]) for count in ("seeds", EARLY))
        cells = [f"{done} of {done + early}" if early else str(done)]
        for measure in measures:
            mean, std = (measure.scale * row[(measure.name, how)] for how in ("mean", "std"))
            some = row[(measure.name, "seeds")]
            of = "" if pd.isna(some) else f"{gap}({some:.0f} of {done})"
            cells.append(spread(mean, std, gap) + of)
        out.add_row(*(stacked(str(value)) for value in _parts(index)), *cells)
    return out


def _settings(groups: pd.DataFrame) -> Table:
    """List the settings, a number each, with their keys in full."""
    out = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    out.add_column(justify="right", no_wrap=True)
    out.add_column(overflow="fold")
    for number, index in enumerate(groups.index, start=1):
        pairs = zip(groups.index.names, _parts(index), strict=True)
        out.add_row(str(number), " ".join(f"{key}={value}" for key, value in pairs))
    return out


def draw_poisoned(groups: pd.DataFrame, path: Path) -> None:
    """Draw the attack success rate over the number of poisoned samples, one line a setting."""
    figure, axes = new_axes(8.4, 4.0)
    rates = groups["attack_success_rate"].reset_index()
    rates = rates[~rates[POISONED].isin([NOTHING, "None"])]  # attacks without poisoned samples
    try:
        rates = rates.assign(**{POISONED: rates[POISONED].astype(int)})
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {POISONED} is no whole number ({short_line(error)})") from error
    others = [str(key) for key in groups.index.names if key != POISONED]
    lines = []
    for name, points in rates.groupby(others) if others else [(("all",), rates)]:
        points = points.sort_values(POISONED)
        deviation = 100 * points["std"].fillna(0)
        line = axes.errorbar(
            points[POISONED], 100 * points["mean"], deviation, marker="o", capsize=3
        )
        lines.append((_label(name), line))
    axes.set(xlabel="poisoned samples S", ylabel="attack success rate (%)")
    axes.grid(alpha=0.3)
    _add_legend(figure, lines, _label(others))
    _save(figure, path)


def draw_epochs(runs: pd.DataFrame, path: Path) -> None:
    """Draw the measures of vertical runs over their epochs: mean and range over seeds."""
    keys = list(differing(runs)) or ["name"]
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
    paths, notes = ended(folders)
    runs, groups = tell([Run.read(path) for path in paths], notes, console)
    say = _sayer(console)
    if POISONED in groups.index.names:
        figure = folders[0] / "attack_success.png"
        draw_poisoned(groups, figure)
        say(f"Figure: {figure}")
    if runs[EPOCHS].notna().all():
        figure = folders[0] / "epochs.png"
        draw_epochs(runs, figure)
        say(f"Figure: {figure}")


def tell(
    every: Sequence[Run], notes: Sequence[str], console: Console
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Print the comparison of some runs, notes on them, and what it does not show.

    Returns
    -------
    runs, groups : DataFrame
        A row for each run that counts, and for each setting.
    """
    say = _sayer(console)
    runs = distinct(frame(every))
    groups = grouped(runs)
    for part in tables(groups, console):
        console.print(part)
    for key, same in differing(runs).items():
        if same:
            say(f"As {key}: {', '.join(same)}")
    again = len(every) - len(runs)
    if again:
        say(f"{counted(again, 'run')} left out: of the same setting and seed as another")
    for note in notes:
        say(note)
    counting = set(runs[RUN])
    lines = caveats([run for run in every if run.name in counting])
    for text in ["What this does not show:"] * bool(lines) + lines:
        console.print(text)
    return runs, groups


def _sayer(console: Console) -> Callable[[str], None]:
    return partial(console.print, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Compare from the command line; bad input is one line on stderr and exit status 2."""
    parser = Parser("compare", __doc__, "multirun/2026-11-26_16-13-26")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="of a run or a sweep")
    parser.add_argument("--csv", action="store_true", help="print the table as CSV, draw nothing")
    arguments = parser.parse_args()
    folders = arguments.folders
    console = Screen()
    with ending(console.on_broken_pipe):
        if "" in folders:  # as a path it would be the working directory
            raise UserError("'': not the name of a run or sweep directory")
        paths = [Path(folder) for folder in folders]
        if arguments.csv:
            print(as_frame(distinct(collect(find(paths)[0]))).to_csv(index=False), end="")
        else:
            show(paths, console)


def fits(out: Table, console: Console) -> bool:
    """Tell whether a console is wide enough for a table as it is."""
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


def _parts(index: Any) -> tuple[Any, ...]:
    """Return the values of a setting, of one key or of several."""
    return index if isinstance(index, tuple) else (index,)


def _numerically(index: Any) -> list[tuple[float, str]]:
    return [numerically(part) for part in _parts(index)]


def _name(key: str) -> str:
    """Shorten a key to what tells it from others in a sweep."""
    return key.removesuffix("._target_").rpartition(".")[2]


def _stacked(words: str) -> str:
    """Break a name after its underscores and before its capitals."""
    return re.sub(r"(?<=_)(?=.)|(?<=[a-z])(?=[A-Z])", "\n", words)


def spread(mean: float, std: float, gap: str = " ") -> str:
    """Write a mean and its standard deviation; a dash where there is none."""
    if pd.isna(mean):
        return NOTHING
    return f"{mean:.2f}" + ("" if pd.isna(std) else f"{gap}± {std:.2f}")


if __name__ == "__main__":
    main()
