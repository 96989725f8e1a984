"""Short real runs, stored: each attack beats the plain average, and the rules hold it."""

from statistics import mean

import pytest

from benchmarks import bites

from .test_bites import near

ROWS = bites.stored(bites.TABLE.with_name("bites_b.csv"))
RULES = sorted({(row["defense"], row["attack"]) for row in ROWS if row["defense"] != "fedavg"})
FINDINGS = {("foolsgold", "backdoor")}
"""What a rule does not hold: its docstring says so."""


def gained(defense: str, attack: str) -> float:
    """Return what an attack gains, in points: over its floor, or of the twin's accuracy."""
    rows = [row for row in ROWS if (row["defense"], row["attack"]) == (defense, attack)]
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    lost = mean(float(row["twin_accuracy"]) - float(row["main_accuracy"]) for row in rows)
    if not rows[0]["floor"]:
        return lost
    return max(lost, mean(float(row["attack_success"]) - float(row["floor"]) for row in rows))


@pytest.mark.parametrize("attack", sorted({attack for _, attack in RULES}))
def test_each_attack_beats_the_plain_average(attack: str) -> None:
    assert gained("fedavg", attack) >= (10 if attack == "ipm" else 20)


@pytest.mark.parametrize(("defense", "attack"), RULES)
def test_the_rules_hold_them_or_it_is_a_finding(defense: str, attack: str) -> None:
    assert (gained(defense, attack) < 10) == ((defense, attack) not in FINDINGS)


def test_every_rule_is_in_the_table() -> None:
    rules = {
        "alignins", "auror", "deepsight", "flame", "fldetector", "fltrust", "foolsgold", "lasa",
        "multi_metrics",
    }  # fmt: skip
    assert {defense for defense, _ in RULES} == rules
    assert all(attack in bites.DEFENSES[defense][0] for defense, attack in RULES)


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "attack"), [("fedavg", "backdoor"), *RULES])
def test_one_seed_played_again_gives_its_row(defense: str, attack: str) -> None:
    row = next(row for row in ROWS if (row["defense"], row["attack"]) == (defense, attack))
    assert near(bites.played(defense, attack, int(row["seed"])), row)
