"""In what runs differ: which keys tell their settings apart, so that unlike runs never meet."""

from collections.abc import Sequence

import pandas as pd

from ..files import UNCOMPARED
from .measures import MEASURES
from .runs import EARLY, EPOCHS, PROTOCOL, RUN, said

NOTHING = "-"
"""Stands where a setting has no such key."""

SWEPT = (
    PROTOCOL,
    "strategy._target_",
    "attack.num_attackers",
    "attack.poisoned_samples",
    "attack.source",
    "top._target_",
    "attack._target_",
    "attack.gamma",
    "defenses.noise.distribution",
    "defenses.noise.variance",
    "defenses.clipping.max_norm",
    "defenses.sparsification.drop_rate",
)
"""Keys that sweeps are mostly made of, which stand first."""

UNSAID = ("name", "floor", "measure.", *UNCOMPARED)
"""Keys, or how they begin, that a result does not follow from."""


def result_keys(runs: pd.DataFrame) -> list[str]:
    """Return the columns that the result of a run follows from."""
    others = {RUN, EARLY, EPOCHS, *(measure.name for measure in MEASURES)}
    return [key for key in runs.columns if key not in others and not key.startswith(UNSAID)]


def distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the first run of each setting and seed: one that is finished, if there is any."""
    runs, keys = runs.sort_values(EARLY, kind="stable"), result_keys(runs)
    # An error ended some before they could say which data they had.
    unsaid = runs.duplicated([key for key in keys if not said(key)]) & runs[EARLY].astype(bool)
    return runs[~(runs.duplicated(keys) | unsaid)].sort_index()


def differing(runs: pd.DataFrame) -> dict[str, list[str]]:
    """Return the keys in which settings differ, the seed left out.

    A key that one of the runs lacks is a difference as well, unless the classes of the nodes that
    it stands in say so: where a defense has no ``threshold`` its class tells that.

    Parameters
    ----------
    runs : DataFrame
        One row a run, as `collect` returns it.

    Returns
    -------
    dict of str to list of str
        Each with the other differing keys that have its value in every run, such as
        ``optimizer.learning_rate`` of ``training.learning_rate``.
    """
    keys = [key for key in result_keys(runs) if not _is_seed(runs, key) and _differs(runs, key)]
    keys.sort(key=lambda key: SWEPT.index(key) if key in SWEPT else len(SWEPT))
    found: dict[str, list[str]] = {}
    first: dict[tuple[str, ...], str] = {}
    for key in keys:
        same = first.setdefault(tuple(runs[key].fillna(NOTHING)), key)
        if same == key:
            found[key] = []
        else:
            found[same].append(key)
    return found


def split(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Cut runs into those that are alike in some keys, in order; each with what they have there."""
    if not keys:
        return [({}, runs)]
    values = runs[list(keys)].fillna(NOTHING)
    groups = runs.groupby([values[key] for key in keys], sort=False)
    parts = [(dict(zip(keys, map(str, index), strict=True)), part) for index, part in groups]
    return sorted(parts, key=lambda part: [numerically(value) for value in part[0].values()])


def numerically(value: object) -> tuple[float, str]:
    """Sort 500 before 1000, and words behind numbers."""
    number = pd.to_numeric(str(value), errors="coerce")
    return (float("inf") if pd.isna(number) else float(number), str(value))


def _is_seed(runs: pd.DataFrame, key: str) -> bool:
    """Tell whether a key is the run's seed: a trigger's own, say, is not."""
    if key == "seed":
        return True
    return key.endswith(".seed") and bool((runs[key].isna() | (runs[key] == runs["seed"])).all())


def _differs(runs: pd.DataFrame, key: str) -> bool:
    values = runs[key]
    if values.nunique() != 1:
        return bool(values.nunique() > 1)
    if said(key) or values.notna().all():
        return False
    parts = key.removesuffix("._target_").split(".")
    above = [".".join([*parts[:end], "_target_"]) for end in range(1, len(parts))]
    classes = [PROTOCOL, *(name for name in above if name in runs.columns)]
    told = values.notna().groupby([runs[name].fillna(NOTHING) for name in classes])
    most: int = told.nunique().max()
    return most > 1
