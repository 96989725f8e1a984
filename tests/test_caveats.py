"""What results do not show: each caveat where it is true, and not where it is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_backdoor.measure import caveats as c
from fl_backdoor.measure.runs import Run
from fl_backdoor.measure.sides import attacked

CONFIG = {
    "name": "x",
    "seed": 0,
    "num_clients": 4,
    "floor": True,
    "attack": {"_target_": "clients.LabelFlipping", "num_attackers": 1},
    "strategy": {"_target_": "strategies.Krum", "num_malicious": 2},
}
SUMMARY = {
    "num_clients": 4,
    "attackers": [0],
    "attackers_expected": 1.0,
    "at_chance": False,
    "main_accuracy": 0.9,
    "main_accuracy_twin": 0.9,
    "attack_success_rate": 0.5,
    "attack_success_floor": 0.1,
    "attack_success_floor_interval": [0.05, 0.2],
    "data": "digits, 1,437 train + 360 test images",
    "adaptive": False,
    "damage": None,
}
ROW = {
    "main_accuracy": 0.9,
    "attackers": [0],
    "cohort": [0, 1, 2, 3],
    "kept": [1, 2, 3],
    "failed": [],
    "invalid": [],
    "strategy": {},
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Run]:
    """Write a run of ten rounds, with other values where a test gives some."""

    def make(
        config: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
        row: dict[str, Any] | None = None,
        rounds: list[dict[str, Any]] | None = None,
    ) -> Run:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.mkdir()
        rows = [{"round": n + 1} | ROW | (row or {}) for n in range(10)]
        for number, own in enumerate(rounds or []):
            rows[number] |= own
        (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        (path / "summary.json").write_text(json.dumps(SUMMARY | (summary or {})))
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Run.read(path)

    return make


Make = Callable[..., Run]


def test_one_seed(made: Make) -> None:
    run = made()
    assert c.one_seed([run]) == "One seed: nothing is known of the spread."
    other = made({"seed": 1})
    assert c.one_seed([run, other]) == ""
    longer = made({"num_rounds": 20})
    assert c.one_seed([run, other, longer]).startswith("One seed in 1 of 2 settings")


def test_at_chance(made: Make) -> None:
    assert c.at_chance([made()]) == ""
    runs = [made(), made({"seed": 1}, {"at_chance": True})]
    assert c.at_chance(runs) == (
        "The main accuracy is at chance in 1 of 2 runs (Krum x LabelFlipping): "
        "no attack success is counted there."
    )


def test_the_floor_is_missing(made: Make) -> None:
    assert c.no_floor([made()]) == ""
    assert c.no_floor([made(summary={"attack_success_floor": None})]).startswith("There is no fl")
    # An untargeted attack's is the damage; without attackers none is needed.
    assert c.no_floor([made(summary={"attack_success_floor": None, "damage": 0.0})]) == ""
    none = {"attack": {"_target_": "x.NoAttack"}}
    assert c.no_floor([made(none, {"attack_success_floor": None})]) == ""


def test_the_attackers_are_always_the_same(made: Make) -> None:
    one = made()
    assert c.same_attackers([one]) == "The attackers are always the same clients: 0."
    assert c.same_attackers([one, made({"seed": 1})]) != ""
    assert c.same_attackers([one, made({"seed": 1}, {"attackers": [2]})]) == ""
    assert c.same_attackers([one, made({"seed": 1}, {"attackers": [0, 1]})]) != ""
    assert c.same_attackers([made(summary={"attackers": []})]) == ""


def test_attackers_are_those_of_the_crowd_whoever_came(made: Make) -> None:
    came = [made({"seed": n}, {"roster": [0, 1], "attackers": [n]}) for n in (0, 1)]
    assert c.same_attackers(came) == "The attackers are always the same clients: 0 1."
    three = made(summary={"roster": [5, 6, 7]})
    assert c.same_attackers([*came, three]) == "The attackers are always the same clients."
    others = [made({"seed": n}, {"roster": [n, 9], "attackers": [n, 9][:n]}) for n in (1, 2)]
    assert c.same_attackers(others) == ""
    assert c.same_attackers([*others, three]) == (
        "The attackers are always the same clients in 1 of 3 runs: 5 6 7."
    )
    many = made(summary={"roster": [*range(360)]})
    assert c.same_attackers([many]) == "The attackers are always the same clients."
    nobody = made(summary={"roster": [0], "attackers": []})
    assert attacked(nobody)


def test_no_attacker_came(made: Make) -> None:
    assert c.absent_attackers([made(row={"attackers": []}, rounds=[{"attackers": [0]}])]) == ""
    clean = made(summary={"attackers": []}, row={"attackers": []})
    assert c.absent_attackers([clean]) == ""
    alone = made(summary={"roster": [0], "attackers": []}, row={"attackers": []})
    assert c.absent_attackers([alone]) == "No attacker came to act."
    assert c.absent_attackers([made(row={"failed": [0]}), clean]) != ""


def test_full_participation(made: Make) -> None:
    assert c.full_participation([made()]) == "Every client takes part in every round."
    assert c.full_participation([made(row={"cohort": [0, 1, 2]})]) == ""
    assert c.full_participation([made(rounds=[{"failed": [3]}])]) == ""


@pytest.mark.parametrize(
    ("data", "invented"),
    [
        ("MNIST stand-in, digits 2 6 (not the full MNIST)", True),
        ("synthetic, 100 train + 10 test rows", True),
        ("synthetic NUS-WIDE stand-in, 50 train + 50 test rows, invented features", True),
        ("synthetic.npz, 144 train + 36 test rows of 8 numbers, 3 classes", False),
        ("MNIST, digits 2 6, 12,000 train + 2,000 test images", False),
    ],
)
def test_the_data_are_not_the_real_ones(made: Make, data: str, invented: bool) -> None:
    assert c.invented_data([made(summary={"data": data})]) == (
        f"The data are not the real ones: {data}." * invented
    )


def test_a_defense_is_told_the_true_number_of_attackers(made: Make) -> None:
    assert c.told_attackers([made()]) == ""
    krum = {"_target_": "strategies.Krum", "num_malicious": 1}
    told = "Told the true number of attackers: Krum (num_malicious=1)."
    assert c.told_attackers([made({"strategy": krum})]) == told
    assert c.told_attackers([made({"strategy": krum | {"num_malicious": "oracle"}})]) != ""
    wrapped = {"_target_": "strategies.NormClipping", "strategy": krum}
    assert "NormClipping(Krum)" in c.told_attackers([made({"strategy": wrapped})])
    assert "1 cut at either end" in c.told_attackers([made(row={"strategy": {"trimmed": 1}})])
    assert c.told_attackers([made(row={"strategy": {"trimmed": 2}})]) == ""


def test_an_attack_knows_all_honest_updates(made: Make) -> None:
    assert c.all_updates([made(summary={"knowledge": "attackers"})]) == ""
    assert c.all_updates([made(summary={"knowledge": "all"})]) == (
        "Knows the updates of all honest clients: LabelFlipping."
    )


@pytest.mark.parametrize(("rate", "within"), [(0.2, True), (0.01, True), (0.21, False)])
def test_success_is_within_the_floors_interval(made: Make, rate: float, within: bool) -> None:
    assert bool(c.within_floor([made(summary={"attack_success_rate": rate})])) == within
    at_chance = {"attack_success_rate": rate, "at_chance": True}
    assert c.within_floor([made(summary=at_chance)]) == ""


def test_no_adaptive_attacker_was_tried(made: Make) -> None:
    runs = [made(), made({"strategy": {"_target_": "strategies.Sniper"}})]
    assert c.no_adaptive(runs) == "No adaptive attacker was tried against Krum, Sniper."
    runs.append(made({"seed": 1}, {"adaptive": True}))
    assert c.no_adaptive(runs) == "No adaptive attacker was tried against Sniper."
    assert c.no_adaptive([made({"strategy": {"_target_": "strategies.FedAvg"}})]) == ""


def test_learning_has_not_settled(made: Make) -> None:
    assert c.unsettled([made()]) == ""
    assert c.unsettled([made(rounds=[{"main_accuracy": 0.1}] * 7)]) == ""
    assert c.unsettled([made(rounds=[{"main_accuracy": 0.88}] * 8)]).startswith("Learning has not")
    run = made()
    del run.rows[1:]
    assert c.unsettled([run]) != ""


def test_a_rule_kept_everybody_or_failed(made: Make) -> None:
    assert c.idle_rule([made()]) == ""
    assert c.idle_rule([made(row={"kept": None})]) == ""  # it does not select
    rounds = [{"kept": [0, 1, 2, 3]}] * 2 + [{"kept": [0, 1, 2], "failed": [3]}]
    assert c.idle_rule([made(rounds=rounds)]) == "Krum left nobody out in 3 of 10 rounds."
    assert c.idle_rule([made(rounds=[{"kept": [0, 1, 2, 3], "attackers": []}])]) == ""
    idle: list[dict[str, Any]] = [{"strategy": {"cannot-act": 1}}, {"kept": []}]
    idle += [{"strategy": {"rule-failed": 1}}, {"strategy": {"cannot-act": 1}, "kept": []}]
    assert c.idle_rule([made(rounds=idle)]) == "Krum could not act in 4 of 10 rounds."


def test_an_attack_could_not_act(made: Make) -> None:
    assert c.idle_attack([made(row={"attack": {"z": 0.3}})]) == ""
    two: dict[str, Any] = {"attackers": [0, 1, 2], "failed": [2]}  # who sent something
    rounds = [two | {"attack": {"cannot-act": n}} for n in (1, 2, 2)]
    rounds += [two | {"attack": {"cannot-ask": 1}}, {"attackers": []}]
    assert c.idle_attack([made(rounds=rounds)]) == (
        "LabelFlipping could not act in 3 of 9 rounds; "
        "LabelFlipping could not act for some attackers in 1 of 9 rounds."
    )
    clean = made(summary={"attackers": []}, row={"attackers": []})
    assert c.idle_attack([clean]) == ""
    epochs = [{"epoch": n + 1, "attack": {"cannot-act": 1} if n < 2 else {}} for n in range(10)]
    split = made({"num_epochs": 10}, {"attackers": None}, {"attackers": []}, epochs)
    assert c.idle_attack([split]) == "LabelFlipping could not act in 2 of 10 epochs."


def test_the_defense_itself_harms_the_clean_twin(made: Make) -> None:
    plain = made({"strategy": {"_target_": "strategies.FedAvg"}})
    assert c.harmed_twin([plain, made()]) == ""
    harmed = made(summary={"main_accuracy_twin": 0.7})
    said = "The defense itself harms the clean twin: Krum costs it 20.0 points."
    assert c.harmed_twin([plain, harmed]) == said
    assert c.harmed_twin([harmed]) == ""  # against nothing
    other = made({"num_clients": 5}, {"main_accuracy_twin": 0.7})
    assert c.harmed_twin([plain, other]) == ""
    (harmed.path / "clean_twin").mkdir()
    (harmed.path / "clean_twin" / "summary.json").write_text('{"at_chance": true}')
    assert c.harmed_twin([harmed]) == (
        "The defense itself harms the clean twin: Krum leaves it at chance."
    )


def test_a_run_of_which_nothing_is_doubtful_says_nothing(made: Make) -> None:
    """The last one, as every defense has one it should be told: an adaptive attack was tried."""
    cohort = {"cohort": [0, 1, 2], "kept": [1, 2]}
    runs = [
        made({"seed": seed}, {"attackers": [seed], "adaptive": True}, cohort) for seed in (0, 1)
    ]
    assert c.caveats(runs) == []


def test_runs_that_an_error_ended_say_nothing(made: Make) -> None:
    run = made()
    (run.path / "summary.json").unlink()
    (run.path / "error.txt").write_text("full disk")
    assert c.caveats([Run.read(run.path)]) == []
