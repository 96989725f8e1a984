"""The stored table of attacks that bite and defenses that hold them, and a run of it played again."""

from pathlib import Path

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
    if attack.startswith("backdoor"):
        above = mean("attack_success", defense, attack) - mean("floor", defense, attack)
        return above > 20
    return mean("twin_accuracy", defense, attack) - mean("main_accuracy", defense, attack) > 10


def test_the_table_has_every_run_in_order() -> None:
    keys = [(row["defense"], row["attack"], row["seed"]) for row in ROWS]
    played = {(name, attack) for name, (attacks, _) in bites.DEFENSES.items() for attack in attacks}
    assert keys == sorted((*run, seed) for run in played for seed in "012")
    for row in ROWS:
        own = (*bites.ATTACKS[row["attack"]], *bites.DEFENSES[row["defense"]][1])
        assert row["setting"] == " ".join(own)


@pytest.mark.parametrize("attack", bites.ATTACKS)
def test_the_attack_beats_the_plain_average(attack: str) -> None:
    assert bitten("fedavg", attack)


@pytest.mark.parametrize("defense", sorted(bites.DEFENSES.keys() - {"fedavg"}))
def test_the_defense_holds_it_or_says_that_it_does_not(defense: str) -> None:
    for attack in bites.DEFENSES[defense][0]:
        assert bitten(defense, attack) == (defense in HELD_NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("defense", sorted(bites.DEFENSES))
def test_a_run_played_again_is_the_row_that_is_stored(defense: str, tmp_path: Path) -> None:
    attack = bites.DEFENSES[defense][0][0]
    (stored,) = (
        row for row in ROWS if (row["defense"], row["attack"], row["seed"]) == (defense, attack, "0")
    )
    again = bites.played(defense, attack, 0)
    for column in ("main_accuracy", "attack_success", "floor", "twin_accuracy"):
        assert float(again[column]) == pytest.approx(float(stored[column]), abs=3), column
