"""Rebuild the table of three data sets in ``docs/results.md``.

python -m benchmarks.data_sets [RUNS...]

From the stored rows, or first from runs, whose rows are stored instead.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fl_backdoor.papers.page import filled
from fl_backdoor.report.tidy import readable, rounds, settings

DOCS = Path(__file__).parents[1] / "docs"
PAGE, TABLE = DOCS / "results.md", DOCS / "data" / "data_sets.csv"
KEYS = ["data", "attack", "defense"]


def tidy(folders: Sequence[Path]) -> pd.DataFrame:
    """Return a row a run: what it was, its last round in %, and whom it kept in the mean round."""
    runs, table = settings(readable(folders)[0])
    every = rounds(runs)
    of_round = every["kept"].str.split().str.len().groupby(every["run"]).mean()
    rows = pd.DataFrame(
        {
            **{
                name: table[f"{key}._target_"].str.rpartition(".")[2]
                for name, key in zip(KEYS, ("dataset", "attack", "strategy"), strict=True)
            },
            "seed": table["seed"],
            "main_accuracy": 100 * table["main_accuracy"],
            "attack_success": 100 * table["attack_success_rate"],
            "floor": 100 * table["attack_success_floor"],
            "kept": table["run"].map(of_round),
        }
    )
    return rows.sort_values([*KEYS, "seed"], ignore_index=True)


def part(rows: pd.DataFrame) -> str:
    """Return the table: mean and standard deviation over seeds."""
    lines = [
        "| data | attack | defense | main accuracy | attack success | its floor | kept of 10 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for names, some in rows.groupby(KEYS):
        cells = [*names]
        for column in ("main_accuracy", "attack_success", "floor", "kept"):
            values = some[column].dropna()
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}" if len(values) else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rebuilt(page: str, rows: pd.DataFrame) -> str:
    """Return the page with the table of these rows."""
    return filled(page, {"data sets": part(rows)})


def main(arguments: Sequence[str]) -> None:
    """Store the rows of runs, and rebuild the page."""
    if arguments:
        tidy([Path(path) for path in arguments]).to_csv(TABLE, index=False, float_format="%.4f")
    PAGE.write_text(rebuilt(PAGE.read_text(), pd.read_csv(TABLE)))


if __name__ == "__main__":
    main(sys.argv[1:])
