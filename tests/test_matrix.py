"""Tests of the matrix: its plan, and the page that is rebuilt from its stored rows."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.matrix import (
    KINDS,
    PAGE,
    RESULTS,
    SETTINGS,
    TABLE,
    answer,
    effects,
    opened,
    rebuilt,
    summary,
    table,
    tidy,
    walked,
)
from fl_backdoor.papers.matrix import ATTACKS, DEFENSES, PLAN

from .test_config import names
from .test_shared_twins import VERTICAL

OPTIMIZERS = {"fedadam", "fedavgm", "fedyogi"}


def test_it_has_every_defense_and_every_attack() -> None:
    assert set(DEFENSES) == set(names("strategy")) - OPTIMIZERS
    assert {attack["attack"] for attack in ATTACKS} == set(names("attack")) - VERTICAL - {"none"}
    assert {part.experiment for part in PLAN.parts} == set(SETTINGS)


def test_the_pages_are_made_of_the_stored_rows() -> None:
    rows = pd.read_csv(TABLE)
    assert rebuilt(PAGE.read_text(), rows) == PAGE.read_text(), "python -m benchmarks.matrix"
    assert opened(RESULTS.read_text(), rows) == RESULTS.read_text(), "python -m benchmarks.matrix"


def plant(run: Path, arguments: list[str], **summary: Any) -> None:
    run.mkdir(parents=True)
    (run / "command.json").write_text(json.dumps({"arguments": arguments}))
    (run / "summary.json").write_text(json.dumps(summary))


def test_a_row_is_what_the_run_was_and_measured(tmp_path: Path) -> None:
    own = [
        *("+experiment=matrix_digits", "strategy=krum", "attack=pgd", "seed=2"),
        *("attack.max_norm=3", "attack.data.trigger={kind:patch}", "strategy.num_selected=2"),
    ]
    plant(tmp_path / "a", own, main_accuracy=0.5, attack_success_rate=0.25, at_chance=False)
    plant(tmp_path / "a" / "clean_twin", own, main_accuracy=0.9)  # no run of its own
    (row,) = tidy([tmp_path]).to_dict("records")
    assert row["attack"] == "pgd max_norm=3"
    assert (row["setting"], row["defense"], row["seed"]) == ("matrix_digits", "krum", 2)
    assert (row["main_accuracy"], row["attack_success"], row["at_chance"]) == (50.0, 25.0, 0)


def rows() -> pd.DataFrame:
    """Return two defenses against a targeted and an untargeted attack, two seeds each."""
    made = []
    for seed, (defense, success, damage) in enumerate(
        [("weak", 90.0, 30.0), ("strong", 12.0, 2.0)] * 2
    ):
        base = {"setting": "s", "defense": defense, "seed": seed // 2, "twin_accuracy": 95.0}
        base["main_accuracy"] = 94.0
        made.append(
            base | {"attack": "backdoor", "attack_success": success + seed, "floor": 2.0,
                    "at_chance": 0}
        )  # fmt: skip
        made.append(base | {"attack": "alie", "damage": damage, "at_chance": seed % 2})
    return effects(pd.DataFrame(made))


def asked(effect: float) -> pd.DataFrame:
    """Return the two defenses and the plain average, against the adaptive attack as well."""
    plain = rows()[rows()["defense"] == "weak"].assign(defense="fedavg")
    both = pd.concat([rows(), plain])
    again = both[both["attack"] == "backdoor"].assign(attack="adaptive", attack_success=effect)
    return pd.concat([both, again]).drop(columns=["kind", "effect"])


def test_who_falls_to_the_adaptive_attack_alone_is_named() -> None:
    held, fallen, always = walked(asked(2.0)).splitlines()[0].split("; ")
    assert "`strong`" in held
    assert fallen.endswith("none")
    assert "`strong`" in always
    held, fallen, always = walked(asked(80.0)).splitlines()[0].split("; ")
    assert held.endswith("none")
    assert "`strong`" in fallen
    assert "`weak`" not in fallen
    assert always.endswith("none.")


def test_a_mean_under_the_line_hides_no_run_above_it() -> None:
    some = asked(2.0)
    one = (some["defense"] == "strong") & (some["attack"] == "backdoor") & (some["seed"] == 1)
    some.loc[one, "attack_success"] = 30.0
    held, _, always = walked(some).splitlines()[0].split("; ")
    assert "`strong`" in held
    assert always.endswith("none.")
    said = answer(effects(some), "targeted")
    assert "`strong` (19.5)" in said
    assert "In every single run: none." in said


def test_a_defense_that_was_not_tried_with_all_is_not_said_to_hold() -> None:
    some = asked(2.0)
    left = some[~((some["defense"] == "strong") & (some["attack"] == "adaptive"))]
    assert "`strong`" not in walked(left).splitlines()[0]


def test_the_summary_has_the_worst_of_the_others_beside_the_adaptive() -> None:
    (line,) = [text for text in summary(asked(80.0)).splitlines() if text.startswith("| `strong`")]
    assert line == "| `strong` | 95.0 (+0.0) | 12.0 (`backdoor`) | 78.0 | 2.0 (`alie`) | - |"


def test_an_effect_is_success_above_the_floor_or_accuracy_lost() -> None:
    found = rows().groupby(["kind", "defense"])["effect"].mean()
    assert found["targeted", "weak"] == pytest.approx(89.0)
    assert found["untargeted", "strong"] == pytest.approx(2.0)


def test_the_table_is_sorted_by_the_worst_cell_and_marks_chance() -> None:
    lines = table(rows(), "untargeted").splitlines()
    assert lines[2].startswith("| `strong` | 95.0 | 2.0 ± 0.0†† | 2.0 |")
    assert lines[3].startswith("| `weak` |")


def test_the_answer_names_who_holds_and_what_beats_most() -> None:
    said = answer(rows(), "targeted")
    assert "`strong` (12.0)" in said
    assert "`weak`" not in said
    assert "`backdoor` (1 of 2)" in said
    assert set(KINDS) == {"targeted", "untargeted"}
