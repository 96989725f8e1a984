"""Stored runs: attacks that beat the plain average, and defenses that hold them or do not."""

import pytest

from benchmarks import bites

ROWS = bites.stored(bites.TABLE)
HELD_NOTHING = {"crfl"}
"""As their docstrings say."""


def mean(column: str, defense: str, attack: str) -> float:
    found = [row[column] for row in ROWS if (row["defense"], row["attack"]) == (defense, attack)]
    assert len(found) == 3
    return sum(map(float, found)) / len(found)


def bitten(defense: str, attack: str) -> bool:
    """Tell 20 points above the floor, or 10 points of accuracy below the twin."""
    if attack != "ipm":
        above = mean("attack_success", defense, attack) - mean("floor", defense, attack)
        return above > 20
    return mean("twin_accuracy", defense, attack) - mean("main_accuracy", defense, attack) > 10


def near(row: bites.Row, other: bites.Row) -> bool:
    """Tell whether two rows are of the same run, perhaps on two kinds of processor.

    Those differ in the last bits of a sum, which 12 rounds carry to some points.
    """
    same = ("defense", "attack", "setting", "seed")
    return [row[key] for key in same] == [other[key] for key in same] and all(
        bool(value) == bool(other[key])
        and (not value or abs(float(value) - float(other[key])) < 10)
        for key, value in row.items()
        if key not in same
    )


RULES = sorted({(row["defense"], row["attack"]) for row in ROWS if row["defense"] != "fedavg"})


def test_the_table_has_every_run_in_order() -> None:
    keys = [(row["defense"], row["attack"], row["seed"]) for row in ROWS]
    attacks = {("fedavg", attack) for _, attack in RULES}
    assert keys == sorted((*run, seed) for run in {*RULES, *attacks} for seed in "012")
    for row in ROWS:
        own = (*bites.ATTACKS[row["attack"]], *bites.DEFENSES[row["defense"]][1])
        assert row["setting"] == " ".join(own)
    assert {defense for defense, _ in RULES} == {
        "adaptive_clipping", "bucketing", "centered_clipping", "crfl", "dnc", "geometric_median",
        "nearest_neighbor_mixing", "robust_learning_rate", "signguard",
    }  # fmt: skip


@pytest.mark.parametrize("attack", sorted({attack for _, attack in RULES}))
def test_the_attack_beats_the_plain_average(attack: str) -> None:
    assert bitten("fedavg", attack)


@pytest.mark.parametrize(("defense", "attack"), RULES)
def test_the_defense_holds_it_or_says_that_it_does_not(defense: str, attack: str) -> None:
    assert bitten(defense, attack) == (defense in HELD_NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "attack"), RULES)
def test_one_seed_played_again_gives_its_row(defense: str, attack: str) -> None:
    row = next(row for row in ROWS if (row["defense"], row["attack"]) == (defense, attack))
    assert near(bites.played(defense, attack, int(row["seed"])), row)


def test_rows_of_other_runs_are_not_near() -> None:
    row = ROWS[0]
    assert near(row, row)
    assert near(row, row | {"twin_accuracy": f"{float(row['twin_accuracy']) - 9:.1f}"})
    assert not near(row, row | {"twin_accuracy": f"{float(row['twin_accuracy']) - 11:.1f}"})
    assert not near(row, row | {"seed": "9"})
    assert not near(row, row | {"main_accuracy": ""})
