"""Every attack of the field in a tiny run: it changes the model, and the run says what it knows."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

import fl_backdoor.loop.loop as experiment
from fl_backdoor.errors import UserError

from .test_experiment import rows, tiny
from .test_vertical_experiment import Undrawn

pytestmark = pytest.mark.usefixtures("undrawn")

COLLUDING = ["alie", "fang", "ipm", "mimic", "min_max", "min_sum"]
UNTARGETED = [*COLLUDING, "gaussian", "sign_flip"]
TARGETED = ["a3fl", "dba", "neurotoxin", "pgd"]
FEW = ["num_rounds=2", "dataset.samples_per_class=10"]


def run(path: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Run a tiny experiment; return its summary and what it printed."""
    screen = StringIO()
    shown = Undrawn(Console(file=screen, width=120))
    return experiment.run(tiny(*overrides), path, shown), screen.getvalue()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest")
    run(path, "attack=none", *FEW)
    return path


@pytest.mark.parametrize("name", [*UNTARGETED, *TARGETED])
def test_a_run_with_it_is_another_than_the_honest_one(
    name: str, honest: Path, tmp_path: Path
) -> None:
    own = {"a3fl": ["attack.steps=2"], "fang": ["attack.rule=trimmed_mean"]}.get(name, [])
    summary, screen = run(tmp_path, f"attack={name}", *own, *FEW)
    models = [load_file(path / "model.safetensors") for path in (honest, tmp_path)]
    assert any((models[0][key] != models[1][key]).any() for key in models[0])
    assert all(tensor.isfinite().all() for tensor in models[1].values())
    last = rows(tmp_path)[-1]
    assert (last["attack_success_rate"] is None) == (name in UNTARGETED)
    named = "  attack success " in screen  # in the line of a round, unless it is at chance
    assert named == any(
        row["attack_success_rate"] is not None and not row["at_chance"] for row in rows(tmp_path)
    )
    said = {"all": "knowing all updates", "attackers": "knowing the attackers' updates"}
    if name in COLLUDING:
        assert f"colluding, {said[summary['knowledge']]}" in screen
        assert summary["knowledge"] == ("all" if name == "mimic" else "attackers")
    else:
        assert "knowledge" not in summary
        assert "colluding" not in screen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack=alie", "attack.num_attackers=2"],
         "attack.num_attackers=2: allowed are 3 to 5 of 10 clients, for which z_max > 0, or any "
         "with a z"),
        (["attack=min_max", "attack.num_attackers=1"],
         "attack.num_attackers=1: allowed is 2 or more; attackers who know nobody else's updates "
         "compare their own"),
        (["attack=ipm", "attack.knowledge=own"],
         "attack.knowledge=own: allowed are attackers, all"),
        (["attack=a3fl", "attack.corner=[25,0]"],
         "attack.corner=[25, 0]: allowed are [0, 0] to [23, 23] for attack.size=5"),
        (["attack=villain"],
         "attack._target_=clients.vertical.Villain: allowed with protocol=vertical"),
        (["attack=adaptive", "attack@attack.data=label_inference"],
         "attack.data._target_=clients.vertical.LabelInference: allowed with protocol=vertical"),
        (["attack=active_party"],
         "attack._target_=fl_backdoor.federation.vertical_attacks.ActivePartyBackdoor: allowed "
         "with protocol=vertical"),
        *(
            (["attack=adaptive", f"attack.data.{name}={given}"],
             f"attack.data.{name}={value}: allowed is attack.{name}, which says it of the attack "
             "around this one")
            for name, given, value in (
                ("num_attackers", "1", "1"), ("share", "0.2", "0.2"), ("roster", "[1]", "[1]"),
                ("schedule", "[2]", "[2]"), ("learning_rate", "0.1", "0.1"),
            )
        ),
    ],
)  # fmt: skip
def test_what_it_cannot_act_on_is_refused_before_training(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path, *overrides, *FEW)
    assert str(error.value) == message
    assert not list(tmp_path.glob("metrics*"))


def test_where_rounds_have_other_numbers_it_acts_when_it_can(tmp_path: Path) -> None:
    """4 of 10 clients a round: with fewer than 2 of the 3 attackers among them it does not."""
    cohort = ["cohort.clients_per_round=4", "num_rounds=2", "dataset.samples_per_class=5"]
    summary, _ = run(tmp_path, "attack=min_max", *cohort)
    assert summary["rounds"] == 2


def test_attackers_without_victims_are_counted_in_the_row(tmp_path: Path) -> None:
    flipping = ["attack.poisoned_samples=1", "attack.uneven_shares=true"]
    run(tmp_path, "attack=label_flipping", *flipping, *FEW)
    assert [row["attack"] for row in rows(tmp_path)] == [{"cannot-act": 2}] * 2


def test_nobody_who_attacks_needs_no_number(tmp_path: Path) -> None:
    overrides: list[Any] = ["attack=alie", "attack.num_attackers=0"]
    assert tiny(*overrides).attack["num_attackers"] == 0
    summary, _ = run(tmp_path, *overrides, "num_rounds=1", *FEW[1:])
    assert summary["attackers"] == []
