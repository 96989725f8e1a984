"""Short runs in which an attack beats the plain average, and what a defense makes of it.

Digits, a network of 64-64-10, 20 clients of which the first 4 attack. Each line of the table is a
run with its clean twin, the same without attackers. Named defenses are played again, and so is
the plain average under their attacks:

    python -m benchmarks.bites [NAME ...] [--seeds 0,1,2] [--table docs/data/bites_a.csv]
"""

import argparse
import csv
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from fl_backdoor.loop.loop import run

from .memory import Clock, composed

TABLE = Path(__file__).parents[1] / "docs" / "data" / "bites_a.csv"

SETTING = (
    "dataset=digits", "model=mlp", "num_clients=20", "attack.num_attackers=4", "engine=local",
    "num_rounds=12", "training.learning_rate=0.2", "training.decay=0",
    "measure.distances=never", "floor=true",
)  # fmt: skip

ATTACKS = {
    "all_to_one": ("attack=label_flipping", "attack.kind=all_to_one", "+attack.replacement=2"),
    "backdoor": ("attack=backdoor", "attack.replacement=5"),
    "dba": ("attack=dba", "attack.replacement=2"),
    "doubled": ("attack=backdoor", "attack.replacement=2"),
    "edge_case": ("attack=edge_case", "+attack.replacement=2"),
    "fang_krum": ("attack=fang", "attack.knowledge=all"),
    "fang_trimmed": ("attack=fang", "attack.rule=trimmed_mean", "partition=dirichlet"),
    "inverse": ("attack=label_flipping", "attack.kind=inverse", "+attack.replacement=3"),
    "ipm": ("attack=ipm", "attack.epsilon=5"),
    "replaced": ("attack=model_replacement",),
    "unscaled": ("attack=backdoor", "attack.fraction=1"),
}
"""Overrides, by the name in the table."""

DEFENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "adaptive_clipping": (("backdoor",), ()),
    "alignins": (("backdoor",), ()),
    "auror": (("backdoor",), ("strategy.threshold=0.3",)),
    "bucketing": (("backdoor",), ("strategy@strategy.strategy=fedmedian",)),
    "centered_clipping": (("backdoor",), ("strategy.tau=0.5",)),
    "crfl": (("backdoor",), ("strategy.rho=8",)),
    "deepsight": (("backdoor",), ("strategy.num_inputs=2000",)),
    "dnc": (("backdoor",), ()),
    "fedavg": (("backdoor", "doubled", "ipm"), ()),
    "fedmedian": (("fang_krum", "fang_trimmed"), ()),
    "flame": (("backdoor",), ()),
    "fldetector": (("backdoor",), ("strategy.window=3",)),
    "fltrust": (("backdoor", "ipm"), ("root=held_out",)),
    "foolsgold": (("backdoor", "unscaled"), ()),
    "geometric_median": (("backdoor", "ipm"), ()),
    "krum": (("fang_krum",), ()),
    "lasa": (("backdoor", "ipm"), ()),
    "multi_metrics": (("backdoor",), ()),
    "multikrum": (
        ("all_to_one", "dba", "edge_case", "fang_krum", "fang_trimmed", "inverse", "replaced"),
        (),
    ),
    "nearest_neighbor_mixing": (("backdoor",), ()),
    "robust_learning_rate": (("doubled",), ("strategy.threshold=10",)),
    "signguard": (("backdoor",), ()),
}
"""The attacks that each is played against, and its overrides."""

COLUMNS = (
    "defense", "attack", "setting", "seed",
    "main_accuracy", "attack_success", "floor", "twin_accuracy",
)  # fmt: skip

Row = dict[str, str]


def played(defense: str, attack: str, seed: int) -> Row:
    """Play a run and its twin; return its row, with percentages to one place, or nothing."""
    own = (*ATTACKS[attack], *DEFENSES[defense][1])
    config = composed(*SETTING, f"strategy={defense}", *own, f"seed={seed}")
    with TemporaryDirectory() as folder:
        summary = run(config, Path(folder), Clock())
    measured = {
        "main_accuracy": "main_accuracy",
        "attack_success": "attack_success_rate",
        "floor": "attack_success_floor",
        "twin_accuracy": "main_accuracy_twin",
    }
    shown = {
        column: "" if summary[key] is None else f"{100 * summary[key]:.1f}"
        for column, key in measured.items()
    }
    setting = " ".join(own)
    return {
        "defense": defense, "attack": attack, "setting": setting, "seed": str(seed), **shown
    }  # fmt: skip


def stored(table: Path) -> list[Row]:
    """Read the rows of a table; none where there is no file."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def main(arguments: Sequence[str]) -> list[Row]:
    """Play the runs, print them, replace their rows, and return all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(DEFENSES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    wanted = {(name, attack) for name in options.names for attack in DEFENSES[name][0]}
    wanted |= {("fedavg", attack) for _, attack in wanted}
    rows = {(row["defense"], row["attack"], row["seed"]): row for row in stored(options.table)}
    for defense, attack in sorted(wanted):
        for seed in options.seeds.split(","):
            row = rows[defense, attack, seed] = played(defense, attack, int(seed))
            print(*row.values(), sep=", ", flush=True)
    everything = [rows[key] for key in sorted(rows)]
    options.table.parent.mkdir(parents=True, exist_ok=True)
    with options.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(everything)
    return everything


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(sys.argv[1:])
