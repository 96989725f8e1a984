"""Sniper's threshold: 0.5 as in the paper beside ``"auto"``, on models and data of several kinds.

python -m benchmarks.thresholds [NAME ...] [--seeds 0,1,2]

Without names the table in ``docs/results.md`` is rebuilt from the stored rows; with names of
`SETTINGS` their runs that are missing are played first.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from fl_backdoor.loop.loop import run
from fl_backdoor.papers.page import filled

from .memory import Clock, composed

DOCS = Path(__file__).parents[1] / "docs"
PAGE, TABLE = DOCS / "results.md", DOCS / "data" / "thresholds.csv"
COMMON = ("num_clients=10", "engine=local", "floor=false", "measure.distances=never")
FLIPS = ("attack=label_flipping", "attack.kind=all_to_one")
SETTINGS = {
    "paper": ("+experiment=sniper_goal1", "num_rounds=10"),
    "digits": ("dataset=digits", "model=mlp", "num_rounds=12", "training.learning_rate=0.2",
               "training.decay=0", *FLIPS),
    "breast_cancer": ("dataset=breast_cancer", "model=logistic", "num_rounds=12",
                      "training.learning_rate=0.1", "training.decay=0", *FLIPS,
                      "attack.target=benign"),
    "resnet": ("dataset=cifar10/smoke", "model=resnet18", "model.width=4", "num_rounds=4",
               "dataset.train_rows=1000", "training.learning_rate=0.05", "training.decay=0", *FLIPS,
               "attack.target=horse"),
}  # fmt: skip
"""Overrides by name.

``paper`` has its 10 clients, network and attack, on full MNIST if it is there; ``resnet`` is a
ResNet-18 of a sixteenth of the width on synthetic images; in the others attackers flip all that
they hold to one class.
"""
PARTITIONS = {"iid": (), "dirichlet": ("partition=dirichlet", "partition.alpha=0.5")}
ATTACKERS = (0, 1, 3)
RULES = {"0.5": ("strategy=sniper",), "auto": ("strategy=sniper_auto",)}
KEYS = ["setting", "partition", "attackers", "seed", "threshold"]


def played(
    setting: str, partition: str, attackers: int, seed: int, threshold: str
) -> dict[str, object]:
    """Play a run; return its row, rates in %."""
    iid = () if setting == "paper" else ("partition=iid",)
    who = ("attack=none",) if attackers == 0 else (f"attack.num_attackers={attackers}",)
    given = SETTINGS[setting]
    if attackers == 0:
        given = tuple(o for o in given if not o.startswith("attack"))
    own = PARTITIONS[partition] or iid
    config = composed(*given, *COMMON, *own, *who, *RULES[threshold], f"seed={seed}")
    with TemporaryDirectory() as folder:
        summary = run(config, Path(folder), Clock())
    rates = {
        "accuracy": summary["main_accuracy"],
        "caught": summary["defense_recall"],
        "honest_left_out": summary["defense_false_positives"],
    }
    row = dict(zip(KEYS, (setting, partition, attackers, seed, threshold), strict=True))
    return row | {k: None if v is None else round(100 * v, 1) for k, v in rates.items()}


def part(rows: pd.DataFrame) -> str:
    """Return the table: means over seeds, of all rounds."""
    lines = [
        "| setting | data | attackers of 10 | seeds | 0.5: caught | honest left out | accuracy "
        "| auto: caught | honest left out | accuracy |",
        "| --- " * 10 + "|",
    ]
    for (setting, partition, attackers), some in rows.groupby(KEYS[:3], sort=False):
        cells = [f"`{setting}`", partition, str(attackers), str(some["seed"].nunique())]
        for threshold in RULES:
            own = some[some["threshold"].astype(str) == threshold]
            for column in ("caught", "honest_left_out", "accuracy"):
                values = own[column].dropna()
                cells.append(f"{values.mean():.0f}" if len(values) else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rebuilt(page: str, rows: pd.DataFrame) -> str:
    """Return the page with the table of these rows."""
    return filled(page, {"thresholds": part(rows)})


def stored() -> pd.DataFrame:
    """Read the stored rows; none where there is no file."""
    return pd.read_csv(TABLE, dtype={"threshold": str}) if TABLE.exists() else pd.DataFrame()


def main(arguments: Sequence[str]) -> None:
    """Play what is missing, store it row by row, and rebuild the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SETTINGS, []], default=[])
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for setting in options.names:
        partitions = ["iid"] if setting == "paper" else PARTITIONS
        for key in product([setting], partitions, ATTACKERS, seeds, RULES):
            rows = stored()
            there = {tuple(row) for row in rows[KEYS].itertuples(index=False)} if len(rows) else {}
            if key not in there:
                row = played(*key)
                print(*row.values(), sep=", ", flush=True)
                pd.concat([rows, pd.DataFrame([row])]).to_csv(TABLE, index=False)
    PAGE.write_text(rebuilt(PAGE.read_text(), stored()))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(sys.argv[1:])
