"""Compare finished runs: ``python -m fl_backdoor.compare multirun/...``.

Runs that differ in nothing but the seed make one line: mean and standard deviation over
seeds. Where the number of poisoned samples varies, the attack success rate is drawn over it
(Figs. 4 and 8 of Cao et al. 2019). Vertical runs are drawn over their epochs (Figs. 4 to 7 of
Liu, Yi, Chen 2020). A sweep ends with this comparison.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from .errors import UserError
from .report import Screen, new_axes, save_figure
from .results import CONFIG, ERROR, METRICS, SUMMARY, flatten_config

MEASURES = {
    "main_accuracy": "main accuracy",
    "backdoor_accuracy": "backdoor accuracy",
    "attack_success_rate": "attack success",
    "attack_success_floor": "floor",
    "defense_precision": "precision",
    "defense_recall": "recall",
}

NOTHING = "-"

POISONED = "attack.poisoned_samples"

SWEPT = (
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

EPOCHS = "metrics.jsonl of a vertical run"
"""Column of the path to the epochs of a run."""

EARLY = "ended early"
"""Column: 1 for a run that an error ended before its last round or epoch."""


def collect(folders: list[Path]) -> pd.DataFrame:
    """Read the configuration and summary of every ended run below some folders.

    Returns
    -------
    DataFrame
        One row a run, without measures if an error ended it; clean twins are part of their run,
        not runs of their own.

    Raises
    ------
    UserError
        If there is no ended run, or one cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        for path in sorted(folder.rglob(CONFIG)):
            finished, failed = (path.with_name(name).exists() for name in (SUMMARY, ERROR))
            if path.parent.name == "clean_twin" or not (finished or failed):
                continue
            try:
                config = json.loads(path.read_text())
                measures: dict[str, Any] = dict.fromkeys(MEASURES)
                if finished:
                    summary = json.loads(path.with_name(SUMMARY).read_text())
                    measures |= {key: summary.get(key) for key in MEASURES}
                    measures["main_accuracy"] = summary["main_accuracy"]  # every run has it
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path.parent}: not a whole run ({error!r})") from error
            flat: dict[str, Any] = {
                key: _short(key, value) for key, value in flatten_config(config).items()
            }
            flat[EARLY] = int(not finished)
            if "num_epochs" in config:
                flat[EPOCHS] = str(path.with_name(METRICS))
            rows.append(flat | measures)
    if not rows:
        raise UserError(f"{' '.join(map(str, folders))}: no finished run ({SUMMARY}) below")
    return pd.DataFrame(rows)


def varying(runs: pd.DataFrame) -> list[str]:
    """Return the fewest configuration keys that tell the settings apart, the seed left out."""
    unsaid = {"seed", "name", "floor", "resume", EPOCHS, EARLY, *MEASURES}
    keys = [
        key
        for key in runs.columns
        if key not in unsaid and not key.startswith("engine.") and not key.endswith(".seed")
    ]
    keys = [key for key in keys if runs[key].fillna("").nunique() > 1]
    # What follows from another key, such as a threshold from the defense, says nothing new.
    # The keys that sweeps are made of are kept rather than others.
    keys.sort(key=lambda key: (key not in SWEPT, SWEPT.index(key) if key in SWEPT else 0))
    settings = len(runs[keys].fillna("").drop_duplicates()) if keys else 1
    for key in reversed(keys.copy()):
        rest = [other for other in keys if other != key]
        if rest and len(runs[rest].fillna("").drop_duplicates()) == settings:
            keys = rest
    return keys or ["name"]


def grouped(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation over seeds, and number of seeds of each setting."""
    keys = varying(runs)
    measures = runs[list(MEASURES)].astype(float)
    groups = pd.concat([runs[keys].fillna(NOTHING), measures], axis=1).groupby(keys, sort=False)
    result = groups.agg(["mean", "std"])
    early = runs[EARLY].groupby([runs[key].fillna(NOTHING) for key in keys], sort=False).sum()
    result[("seeds", "")] = groups.size() - early
    result[(EARLY, "")] = early
    return result.iloc[sorted(range(len(result)), key=lambda i: _numerically(result.index[i]))]


def table(groups: pd.DataFrame) -> Table:
    """Write the comparison as a table for the terminal."""
    partial = bool(groups[(EARLY, "")].any())
    out = Table(caption=f"of: the others {EARLY}" if partial else None, caption_justify="left")
    for key in groups.index.names:
        out.add_column(_name(str(key)), overflow="fold")
    out.add_column("seeds", justify="right")
    measures = [key for key in MEASURES if groups[(key, "mean")].notna().any()]
    for key in measures:
        out.add_column(f"{MEASURES[key]} %", justify="right", no_wrap=True)
    for index, row in groups.iterrows():
        keys = index if isinstance(index, tuple) else (index,)
        done, early = (int(row[(count, "")]) for count in ("seeds", EARLY))
        cells = [f"{done} of {done + early}" if early else str(done)]
        cells += [_spread(row[(key, "mean")], row[(key, "std")]) for key in measures]
        out.add_row(*map(str, keys), *cells)
    return out


def draw_poisoned(groups: pd.DataFrame, path: Path) -> None:
    """Draw the attack success rate over the number of poisoned samples, one line a setting."""
    figure, axes = new_axes(6.4, 4.0)
    frame = groups["attack_success_rate"].reset_index()
    frame = frame[frame[POISONED] != NOTHING]  # attacks without poisoned samples
    frame[POISONED] = frame[POISONED].astype(int)
    others = [str(key) for key in groups.index.names if key != POISONED]
    lines = frame.groupby(others) if others else [("all", frame)]
    for name, line in lines:
        line = line.sort_values(POISONED)
        label = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        spread = 100 * line["std"].fillna(0)
        axes.errorbar(
            line[POISONED], 100 * line["mean"], spread, marker="o", capsize=3, label=label
        )
    axes.set(xlabel="poisoned samples S", ylabel="attack success rate (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, title=", ".join(others) or None)
    save_figure(figure, path)


def draw_epochs(runs: pd.DataFrame, path: Path) -> None:
    """Draw the measures of vertical runs over their epochs: mean and range over seeds."""
    keys = varying(runs)
    settings = runs[keys].fillna(NOTHING).drop_duplicates()
    order = sorted(range(len(settings)), key=lambda i: _numerically(tuple(settings.iloc[i])))
    drawn = ("main_accuracy", "backdoor_accuracy", "attack_success_rate")
    titles = {key: MEASURES[key] for key in drawn}
    figure, panels = new_axes(4.2 * len(titles), 3.8, columns=len(titles))
    for number in order:
        setting = settings.iloc[number]
        own = runs[(runs[keys].fillna(NOTHING) == setting).all(axis=1)]
        rows = [
            json.loads(line)
            for file in own[EPOCHS]
            if Path(file).exists()
            for line in Path(file).read_text().splitlines()
        ]
        if not rows:  # ended before the first epoch
            continue
        epochs = pd.DataFrame(rows).groupby("epoch")[list(titles)]
        mean, low, high = 100 * epochs.mean(), 100 * epochs.min(), 100 * epochs.max()
        for axes, key in zip(panels, titles, strict=True):
            label = ", ".join(map(str, setting))
            (line,) = axes.plot(mean.index, mean[key], ".-", markersize=4, label=label)
            color = line.get_color()
            axes.fill_between(mean.index, low[key], high[key], color=color, alpha=0.12, lw=0)
    for axes, title in zip(panels, titles.values(), strict=True):
        axes.set(xlabel="epoch", ylabel="%", ylim=(-3, 103), title=title)
        axes.grid(alpha=0.3)
    names = ", ".join(map(_name, keys))
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right center",
        fontsize=8,
        title=f"{names}\n(band: range of seeds)",
    )
    save_figure(figure, path)


def show(folders: list[Path], console: Console) -> None:
    """Print the comparison of the runs below some folders, and draw it into the first.

    Raises
    ------
    UserError
        If there is no ended run, or one cannot be read.
    """
    runs = collect(folders)
    groups = grouped(runs)
    console.print(table(groups))
    figures = []
    if POISONED in groups.index.names:
        figures.append(folders[0] / "attack_success.png")
        draw_poisoned(groups, figures[-1])
    if EPOCHS in runs and runs[EPOCHS].notna().all():
        figures.append(folders[0] / "epochs.png")
        draw_epochs(runs, figures[-1])
    for figure in figures:
        console.print(f"Figure: {figure}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m fl_backdoor.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run or sweep directories")
    try:
        show(parser.parse_args().folders, Screen())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


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


def _short(key: str, value: Any) -> str:
    return str(value).rpartition(".")[2] if key.endswith("_target_") else str(value)


def _spread(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{100 * mean:.2f}" + ("" if pd.isna(std) else f" ± {100 * std:.2f}")


if __name__ == "__main__":
    main()
