"""Tests of the claims of two papers: what is judged how, and that docs hold what tables say."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reproduction import DOCS, PAGE, rebuilt, tables
from fl_backdoor.files import CONFIG, ERROR, METRICS, SUMMARY
from fl_backdoor.papers import cao2019, cao2019_runs, liu2020, propositions
from fl_backdoor.papers.claims import NOT, REPRODUCED, TREND, UNKNOWN, Claim, judged, markdown
from fl_backdoor.papers.grids import OPEN
from fl_backdoor.papers.page import filled, parts
from fl_backdoor.papers.tidy import COLUMNS, EARLY, KEYS, store, stored, tidy, united

from .test_config import names

CAO = {
    "dataset._target_": "Mnist",
    "dataset.source": "idx",
    "dataset.samples_per_class": 250,
    "num_clients": 10,
    "num_rounds": 10,
    "training.epochs": 1,
    "training.decay": 0.098,
    "model._target_": "Cao2019CNN",
    "model.shrink": "stride",
    "strategy._target_": "FedAvg",
    "attack.poisoning": "fill",
    EARLY: 0,
    "main_accuracy": 0.99,
    "distance_honest_honest_max": 0.2,
    "distance_honest_attacker_min": 0.6,
    "distance_honest_attacker_mean": 0.7,
    "distance_global_honest_mean": 0.2,
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Permute less, but for the page that is stored."""
    if "page_holds" not in request.node.name:
        monkeypatch.setattr(propositions, "RESAMPLES", 499)


def as_the_paper_says() -> pd.DataFrame:
    """Invent runs of Cao et al. with the paper's own numbers, and a little noise of the seed."""
    rows: list[dict[str, Any]] = []
    for goal, digits in cao2019_runs.GOALS.items():
        for seed in range(5):
            noise = 1e-4 * (seed - 2)
            own = CAO | {"dataset.digits": digits, "seed": seed}
            nobody = own | {"attack.num_attackers": 0, "attack.poisoned_samples": 500}
            rows += [
                nobody | {"attack_success_rate": 0.005, "loss_first": 0.7, "loss": 0.05},
                nobody | {"num_clients": 1, "main_accuracy": 0.9 + noise},
                *(
                    nobody | {"attack.num_attackers": p, "loss_first": 0.7, "loss": 0.8}
                    for p in (4, 5, 6)
                ),
            ]
            for attackers in (1, 2, 3):
                for samples in (300, 350, 400, 450, 500):
                    wiggle = 1e-4 * ((seed + attackers + samples // 50) % 3 - 1)
                    cell = own | {
                        "attack.num_attackers": attackers,
                        "attack.poisoned_samples": samples,
                        "loss_first": 0.7,
                        "loss": 0.1,
                        "distance_global_attacker_mean": 0.001 * samples / attackers + wiggle,
                    }
                    success = (
                        cao2019_runs.TABLE2[goal, attackers].at(samples) / 100 + noise + wiggle
                    )
                    rows.append(cell | {"attack_success_rate": success})
                    sniper = {
                        "strategy._target_": "Sniper",
                        "attack_success_rate": 0.01 + goal / 100,
                    }
                    rows.append(cell | sniper | {"defense_precision": 1.0, "defense_recall": 0.95})
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def test_a_paper_that_is_right_is_reproduced_in_every_claim() -> None:
    runs = as_the_paper_says()
    found = {claim.where: claim for claim in cao2019.claims(runs)}
    assert {where: c for where, c in found.items() if c.verdict != REPRODUCED} == {}
    assert min(claim.seeds for claim in found.values()) == 5


def test_a_paper_that_is_wrong_is_not_reproduced() -> None:
    """Whatever was attacked or defended, nothing came of it."""
    runs = as_the_paper_says()
    constant = {
        "attack_success_rate": 0.2,
        "main_accuracy": 0.7,
        "loss": 0.1,
        "distance_global_attacker_mean": 0.1,
        "distance_honest_honest_max": 0.9,
        "distance_honest_attacker_mean": 0.5,
        "distance_honest_attacker_min": 0.3,
        "defense_recall": 0.1,
    }
    found = list(cao2019.claims(runs.assign(**constant)))
    assert {claim.where for claim in found if claim.verdict in (REPRODUCED, TREND)} == set()
    assert {claim.verdict for claim in found} == {NOT}


def test_cells_of_unlike_seeds_are_compared_by_those_that_they_share() -> None:
    """Seeds that are easier, and were run with few attackers only, are no effect of attackers."""
    runs = as_the_paper_says().assign(loss=0.11)
    few = runs[runs["attack.num_attackers"] <= 3]
    more = [few.assign(seed=few["seed"] + 5, loss=0.05), runs]
    found = {c.where: c for c in cao2019.claims(pd.concat(more, ignore_index=True))}
    assert found["Fig. 3: loss with more than 3 attackers"].verdict == NOT


def test_two_values_of_s_show_growth_and_no_line() -> None:
    runs = as_the_paper_says()
    ends = runs[runs["attack.poisoned_samples"].isin([300, 500])]
    found = [claim for claim in cao2019.claims(ends) if "linearly" in claim.where]
    assert [claim.verdict for claim in found] == [TREND] * 2
    assert found[0].reason == "two values of S can show growth, but no line"


def split_learning(good: bool) -> pd.DataFrame:
    """Invent runs of Liu et al. on MNIST in which everything is as they say, or nothing."""
    own = {
        "dataset._target_": "MnistRows",
        "dataset.source": "idx",
        "num_epochs": 20,
        "bottom.projection": True,
        "attack._target_": "GradientReplacement",
        "attack.gamma": 10,
        EARLY: 0,
    }
    works = own | {"attack._target_": "LocalizedReplacement", "top._target_": "DenseTop"}
    noise = works | {"defenses.noise.distribution": "gaussian"}
    rate, variance = "defenses.sparsification.drop_rate", "defenses.noise.variance"
    clean = own | {"attack._target_": "NoAttack", "num_epochs": 50}
    rows = [
        (clean | {"top._target_": "SumTop"}, 0.957, 0.8, 0.0),
        (clean | {"top._target_": "DenseTop"}, 0.971, 0.7, 0.0),
        *((own | {"top._target_": "SumTop", "attack.gamma": g}, 0.94, 0.1, 0.9) for g in (5, 10)),
        (own | {"top._target_": "SumTop", "bottom.projection": False}, 0.94, 0.1, 0.9),
        (works | {"top._target_": "SumTop"}, 0.94, 0.1, 0.9),
        (own | {"attack._target_": "LabelInference", "top._target_": "SumTop"}, 0.94, 0.1, 0.9),
        (own | {"top._target_": "DenseTop"}, 0.96, 0.9, 0.1),
        (noise | {variance: 0.001}, 0.96, 0.2, 0.9),
        (noise | {variance: 0.05}, 0.96, 0.2, 0.05),
        (works | {rate: 0.5}, 0.96, 0.2, 0.9),
        (works | {rate: 0.99}, 0.96, 0.2, 0.1),
        (works | {"defenses.clipping.max_norm": 0.5}, 0.96, 0.2, 0.8),
    ]
    invented = [
        row
        | {
            "seed": seed,
            "main_accuracy": right if good else wrong,
            "backdoor_accuracy": backdoor if good else 1 - backdoor,
            "attack_success_rate": backdoor if good else 0.5,
        }
        for seed in range(3)
        for row, right, wrong, backdoor in rows
    ]
    return pd.DataFrame(invented).reindex(columns=COLUMNS)


@pytest.mark.parametrize("good", [True, False])
def test_split_learning_is_as_the_paper_says_or_is_not(good: bool) -> None:
    found = list(liu2020.claims(split_learning(good)))
    full = [claim for claim in found if "NUS-WIDE" in claim.where or "Table 1" in claim.where]
    assert {claim.verdict for claim in full} == {UNKNOWN}
    assert {claim.verdict for claim in found if claim not in full} == {REPRODUCED if good else NOT}


@pytest.mark.parametrize("paper", [cao2019, liu2020])
def test_without_runs_every_claim_stands_with_a_reason(paper: Any) -> None:
    nothing = pd.DataFrame(columns=COLUMNS)
    for claim in paper.claims(nothing):
        assert claim.verdict == UNKNOWN
        assert claim.ours in ("not run yet", "-")
        assert claim.reason
        assert claim.command.partition(" ")[0] in names("experiment")


@given(st.integers(0, 5), st.sampled_from([True, False, None]), st.booleans())
def test_verdicts(number: int, holds: bool | None, trend: bool) -> None:
    claim = judged(
        "w", "p", "o", number, holds=holds, trend=trend, reason="because", command="cao_grid"
    )
    if number < 3 or holds is None:
        assert claim.verdict == UNKNOWN
    else:
        assert claim.verdict == (REPRODUCED if holds else TREND if trend else NOT)
        assert claim.reason == "because"
    if 0 < number < 3:
        assert claim.reason == f"{number} of 3 seeds so far"


def test_other_data_settings_or_ends_are_not_the_papers() -> None:
    runs = as_the_paper_says()
    for column, value in (("dataset.source", "bundled"), ("num_rounds", 5), (EARLY, 1)):
        assert not len(cao2019_runs.prepared(runs.assign(**{column: value})))
    chance = cao2019_runs.prepared(runs.assign(at_chance=1.0))
    assert chance["success"].isna().all()
    assert cao2019.proposition1(chance) is None


def test_readings_that_cannot_be_had_are_marked() -> None:
    rows = cao2019_runs.readings(as_the_paper_says()).splitlines()
    assert rows[0] == "| goal | P | S | paper | `add` | `replace` | `fill` | `copy` |"
    assert rows[2] == "| 1 | 1 | 300 | 0.9 |  | impossible | 0.92 ± 0.02 (5) | impossible |"
    two = next(row for row in rows if row.startswith("| 1 | 2 | 300 "))
    assert two.count("2.10") == 2  # to fill is to replace


def test_choices_are_compared_one_at_a_time() -> None:
    runs = as_the_paper_says()
    other = runs.assign(**{"model.shrink": "max_pool", "attack_success_rate": 0.5})
    rows = cao2019_runs.choices(pd.concat([runs, other])).splitlines()
    assert rows[2] == "| the paper's value | | 7.2 | 9.0 |"
    assert "| `num_rounds` | 5 | not run yet | not run yet |" in rows
    assert "| `model.shrink` | max_pool | 50.00 ± 0.00 (5) | 50.00 ± 0.00 (5) |" in rows
    (here,) = [row for row in rows if "stride (here)" in row]
    assert "7.2" in here
    assert set(cao2019_runs.CHOICES) == {key for key, *_ in OPEN}


def test_cells_do_not_break_the_table() -> None:
    claim = Claim("a|b", "p", "o", 1, UNKNOWN, "r", "c")
    assert markdown([claim]).splitlines()[2] == r"| a\|b | p | o | 1 | **can't tell** | r | `c` |"


def test_parts_stand_between_their_marks() -> None:
    page = "x\n<!-- a -->\nold\n<!-- end -->\ny\n<!-- b -->\n<!-- end -->\n"
    assert filled(page, {"a": "new", "b": "2"}) == (
        "x\n<!-- a -->\nnew\n<!-- end -->\ny\n<!-- b -->\n2\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no <!-- c -->"):
        filled(page, {"c": ""})


def test_the_page_holds_what_the_stored_tables_say() -> None:
    """`python -m benchmarks.reproduction` makes it so."""
    text = PAGE.read_text()
    assert rebuilt(text) == text
    for plan, table in tables().items():
        marks = set(parts(plan, table))
        assert all(f"<!-- {mark} -->" in text for mark in marks)
    assert sum(path.stat().st_size for path in (DOCS / "data").iterdir()) < 500_000


# The tables.


def write_run(folder: Path, seed: int, *, success: float | None = 0.25) -> None:
    """Write what a run of two rounds leaves; without success one that an error ended."""
    folder.mkdir(parents=True)
    config = {
        "name": "x",
        "seed": seed,
        "num_rounds": 2,
        "dataset": {"_target_": "a.b.Mnist", "digits": [2, 6]},
        "attack": {"num_attackers": 1, "poisoned_samples": 9},
    }
    (folder / CONFIG).write_text(json.dumps(config))
    if success is None:
        (folder / ERROR).write_text("it diverged\n")
        return
    rows = [{"loss": 0.7}, {"loss": 0.5, "attack_success_rate": success, "at_chance": False}]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / SUMMARY).write_text(json.dumps({"seconds": 3.0, "defense_recall": None}))


def test_a_row_is_what_the_files_of_a_run_say(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "0", 0)
    write_run(tmp_path / "a" / "0" / "clean_twin", 0)
    write_run(tmp_path / "b", 1, success=None)
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / ERROR).write_text("no\n")
    table = tidy([tmp_path])
    assert list(table["seed"]) == [0, 1]
    assert list(table[EARLY]) == [0, 1]
    row = table.iloc[0]
    assert (row["dataset._target_"], row["dataset.digits"]) == ("Mnist", "2 6")
    assert (row["loss_first"], row["loss"], row["attack_success_rate"]) == (0.7, 0.5, 0.25)
    assert row["seconds"] == 3
    assert table.iloc[1][["loss", "seconds"]].isna().all()


def test_what_is_stored_is_read_again_and_stored_alike(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), seed, success=seed / 3 if seed else None)
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    store(tidy([tmp_path]), first)
    store(united(stored(first), stored(first)), second)
    assert first.read_text() == second.read_text()
    assert list(stored(first)["dataset.digits"]) == ["2 6"] * 3


def test_a_finished_run_stands_above_one_that_ended_early(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, success=None)
    write_run(tmp_path / "b", 0, success=0.5)
    for folders in ("ab", "ba"):
        table = united(*(tidy([tmp_path / folder]) for folder in folders))
        assert list(table["attack_success_rate"]) == [0.5]
    assert len(KEYS) == len(set(KEYS))
