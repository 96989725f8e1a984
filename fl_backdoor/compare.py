"""Compare finished runs: ``python -m fl_backdoor.compare multirun/...``.

Runs that differ in nothing but the seed make one line: mean and standard deviation over
seeds. Where the number of poisoned samples varies, the attack success rate is drawn over it
(Figs. 4 and 8 of Cao et al. 2019).
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
from .report import new_axes, save_figure
from .results import flatten_config

MEASURES = {
    "main_accuracy": "main accuracy",
    "attack_success_rate": "attack success",
    "attack_success_floor": "floor",
    "defense_precision": "precision",
    "defense_recall": "recall",
}

NOTHING = "-"

POISONED = "attack.poisoned_samples"

SWEPT = ("strategy._target_", "attack.num_attackers", POISONED, "attack.source", "attack._target_")
"""Keys that sweeps are mostly made of."""


def collect(folders: list[Path]) -> pd.DataFrame:
    """Read the configuration and summary of every finished run below some folders.

    Returns
    -------
    DataFrame
        One row a run; clean twins are part of their run, not runs of their own.

    Raises
    ------
    UserError
        If there is no finished run, or one cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        for path in sorted(folder.rglob("summary.json")):
            if path.parent.name == "clean_twin":
                continue
            try:
                config = json.loads((path.parent / "config.json").read_text())
                summary = json.loads(path.read_text())
                measures = {key: summary[key] for key in MEASURES}
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path.parent}: not a whole run ({error!r})") from error
            flat = {key: _short(key, value) for key, value in flatten_config(config).items()}
            rows.append(flat | measures)
    if not rows:
        raise UserError(f"{' '.join(map(str, folders))}: no finished run (summary.json) below")
    return pd.DataFrame(rows)


def varying(runs: pd.DataFrame) -> list[str]:
    """Return the fewest configuration keys that tell the settings apart, the seed left out."""
    unsaid = {"seed", "strategy.seed", "name", "floor", "resume", *MEASURES}
    keys = [key for key in runs.columns if key not in unsaid and not key.startswith("engine.")]
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
    result[("seeds", "")] = groups.size()
    return result.iloc[sorted(range(len(result)), key=lambda i: _numerically(result.index[i]))]


def table(groups: pd.DataFrame) -> Table:
    """Write the comparison as a table for the terminal."""
    out = Table()
    for key in groups.index.names:
        out.add_column(str(key).removesuffix("._target_"))
    out.add_column("seeds", justify="right")
    for title in MEASURES.values():
        out.add_column(f"{title} %", justify="right")
    for index, row in groups.iterrows():
        keys = index if isinstance(index, tuple) else (index,)
        cells = [_spread(row[(m, "mean")], row[(m, "std")]) for m in MEASURES]
        out.add_row(*map(str, keys), str(int(row[("seeds", "")])), *cells)
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


def main() -> None:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m fl_backdoor.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run or sweep directories")
    folders = parser.parse_args().folders
    try:
        groups = grouped(collect(folders))
        console = Console()
        console.print(table(groups))
        if POISONED in groups.index.names:
            figure = folders[0] / "attack_success.png"
            draw_poisoned(groups, figure)
            console.print(f"Figure: {figure}", markup=False, highlight=False, soft_wrap=True)
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


def _short(key: str, value: Any) -> str:
    return str(value).rpartition(".")[2] if key.endswith("_target_") else str(value)


def _spread(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{100 * mean:.2f}" + ("" if pd.isna(std) else f" ± {100 * std:.2f}")


if __name__ == "__main__":
    main()
