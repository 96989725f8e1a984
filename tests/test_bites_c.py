"""Short real runs, stored: each attack beats what it is made for, and a rule holds it."""

from statistics import mean

import pytest

from benchmarks import bites

from .test_bites import near

ROWS = bites.stored(bites.TABLE.with_name("bites_c.csv"))
RUNS = sorted({(row["defense"], row["attack"]) for row in ROWS})
AGAINST = {"fang_krum": "krum"}
"""Rules that attacks are made for, where that is not the plain average."""
NOT_HELD = {("multikrum", "fang_krum"), ("fedmedian", "fang_trimmed")}


def gained(defense: str, attack: str) -> float:
    """Return what an attack gains, in points: over its floor, or of the twin's accuracy."""
    rows = [row for row in ROWS if (row["defense"], row["attack"]) == (defense, attack)]
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    if rows[0]["floor"]:
        return mean(float(row["attack_success"]) - float(row["floor"]) for row in rows)
    return mean(float(row["twin_accuracy"]) - float(row["main_accuracy"]) for row in rows)


@pytest.mark.parametrize("attack", sorted({attack for _, attack in RUNS}))
def test_each_attack_beats_what_it_is_made_for(attack: str) -> None:
    untargeted = attack in ("fang_krum", "fang_trimmed", "inverse")
    assert gained(AGAINST.get(attack, "fedavg"), attack) >= (10 if untargeted else 20)


def test_who_pushes_as_far_as_krum_allows_does_not_move_an_average() -> None:
    assert gained("fedavg", "fang_krum") < 2


@pytest.mark.parametrize(
    ("defense", "attack"), [run for run in RUNS if run[0] in ("fedmedian", "multikrum")]
)
def test_a_rule_holds_it_or_it_is_a_finding(defense: str, attack: str) -> None:
    assert (gained(defense, attack) < 10) == ((defense, attack) not in NOT_HELD)


def test_the_table_has_every_run() -> None:
    rules = {name: bites.DEFENSES[name][0] for name in ("fedmedian", "krum", "multikrum")}
    wanted = {(name, attack) for name, attacks in rules.items() for attack in attacks}
    assert set(RUNS) == wanted | {("fedavg", attack) for _, attack in wanted}
    assert all(row["setting"] == " ".join(bites.ATTACKS[row["attack"]]) for row in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "attack"), [run for run in RUNS if run[0] != "fedavg"])
def test_one_seed_played_again_gives_its_row(defense: str, attack: str) -> None:
    row = next(row for row in ROWS if (row["defense"], row["attack"]) == (defense, attack))
    assert near(bites.played(defense, attack, int(row["seed"])), row)
