"""Runs as a table, a row each: what the claims of a paper are held against, and what docs store."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import CONFIG, ERROR, METRICS, SUMMARY, TWIN, flatten_config, read_json

EARLY = "ended_early"
"""Column: 1 for a run that an error ended before its last round or epoch, such as divergence."""

KEYS = (
    "dataset._target_", "dataset.source", "dataset.digits", "dataset.samples_per_class",
    "num_clients", "num_rounds", "num_epochs", "training.epochs", "training.learning_rate",
    "training.decay", "model._target_", "model.shrink", "strategy._target_", "bottom.projection",
    "bottom.relu", "top._target_", "attack._target_", "attack.poisoning", "attack.num_attackers",
    "attack.poisoned_samples", "attack.gamma", "attack.num_targets", "attack.blur_variance",
    "defenses.clipping.max_norm", "defenses.noise.distribution", "defenses.noise.variance",
    "defenses.sparsification.drop_rate", "seed",
)  # fmt: skip
"""Columns of the configuration; of a class its name."""

MEASURES = (
    "loss", "main_accuracy", "at_chance", "backdoor_accuracy", "attack_success_rate",
    "distance_honest_honest_mean", "distance_honest_honest_max", "distance_honest_attacker_min",
    "distance_honest_attacker_mean", "distance_global_honest_mean", "distance_global_attacker_mean",
)  # fmt: skip
"""Columns of the last round or epoch."""

WHOLE = ("defense_precision", "defense_recall", "seconds")
"""Columns of the whole run."""

DEVICE = "training.device"
"""Column: where it trained, which decides the last bits but tells no two runs apart."""

COLUMNS = [*KEYS, EARLY, "loss_first", *MEASURES, *WHOLE, DEVICE]


def tidy(folders: Iterable[Path]) -> pd.DataFrame:
    """Return a row for each run in and below some folders that has ended.

    A run that an error ended has a row without measures; one that was refused has none. Of runs of
    the same keys one stays.

    Raises
    ------
    UserError
        If a run cannot be read.
    """
    found = (path.parent for folder in folders for path in sorted(folder.rglob(CONFIG)))
    rows = [_row(run) for run in found if run.name != TWIN and _has_ended(run)]
    return united(pd.DataFrame(rows, columns=COLUMNS))


def united(*tables: pd.DataFrame) -> pd.DataFrame:
    """Put tables together, sorted; of the same keys the first finished run stays."""
    some = [table for table in tables if len(table)]
    every = pd.concat(some) if some else pd.DataFrame(columns=COLUMNS)
    every = every.sort_values(EARLY, kind="stable").astype(dict.fromkeys(KEYS, object))
    every[list(KEYS)] = every[list(KEYS)].where(every[list(KEYS)].notna(), None)
    return every.drop_duplicates([*KEYS]).sort_values([*KEYS], kind="stable", ignore_index=True)


def store(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, without the columns that are empty."""
    table.dropna(axis=1, how="all").to_csv(path, index=False, float_format="%.6g")


def stored(path: Path) -> pd.DataFrame:
    """Read a table that `store` wrote; columns that it lacks are empty."""
    table = pd.read_csv(path, dtype={"dataset.digits": str})
    return table.reindex(columns=COLUMNS)


def _has_ended(run: Path) -> bool:
    return (run / SUMMARY).exists() or (run / ERROR).exists()


def _row(run: Path) -> dict[str, Any]:
    config = flatten_config(read_json(run / CONFIG))
    row = {key: _short(config.get(key)) for key in (*KEYS, DEVICE)}
    if not (run / SUMMARY).exists():
        return row | {EARLY: 1}
    summary, rounds = read_json(run / SUMMARY), _rounds(run / METRICS)
    first, last = rounds[0], rounds[-1]
    values = {key: _number(last.get(key)) for key in MEASURES}
    whole = {key: _number(summary.get(key)) for key in WHOLE}
    return row | {EARLY: 0, "loss_first": first["loss"]} | values | whole


def _rounds(path: Path) -> list[Mapping[str, Any]]:
    """Read the rows of a complete run."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _short(value: Any) -> Any:
    """Return a value that a cell can hold: of a class its name, of a list its parts."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value.rpartition(".")[2] if isinstance(value, str) else value
