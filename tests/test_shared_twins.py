"""Tests of `fl_backdoor.loop.twins`: a clean twin is trained once and asked for every goal."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fl_backdoor.compose import composed
from fl_backdoor.config import conf_directory, load
from fl_backdoor.files import METRICS, TWIN
from fl_backdoor.loop.display import Display
from fl_backdoor.loop.loop import run
from fl_backdoor.loop.round import Rounds
from fl_backdoor.loop.twins import key
from fl_backdoor.schema import Config

TINY = (
    "dataset=digits", "model=logistic", "num_clients=7", "num_rounds=2", "engine=local",
    "attack.num_attackers=2", "measure.distances=never", "floor=true", "root=held_out",
)  # fmt: skip
VERTICAL = {"active_party", "gradient_replacement", "label_inference", "localized_replacement",
            "villain"}  # fmt: skip
ATTACKS = sorted({path.stem for path in (conf_directory() / "attack").glob("*.yaml")} - VERTICAL)
ATTACKS.remove("none")
OWN = {
    "fang": ("attack.knowledge=all",),
    "label_flipping": ("attack.poisoning=replace", "attack.poisoned_samples=20"),
}
BY_DEFAULT = {"alie"}


def train(path: Path, *overrides: str, twins: Path | None = None) -> dict[str, Any]:
    config = load(composed(*TINY, *overrides))
    return run(config, path, Display(Console(quiet=True), ""), twins=twins)


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what a run measured, without times."""
    lines = map(json.loads, (path / METRICS).read_text().splitlines())
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in lines]


@pytest.mark.parametrize(
    "attack",
    [
        name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow)
        for name in ATTACKS
    ],
)
def test_another_attacks_twin_is_its_own_to_the_bit(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "label_flipping" if attack == "backdoor" else "backdoor"
    given = (f"attack={attack}", *OWN.get(attack, ()))
    train(tmp_path / "alone", *given)
    train(tmp_path / "first", f"attack={first}", *OWN.get(first, ()), twins=tmp_path / "twins")
    trained, step = [], Rounds.step

    def counted(self: Rounds, *given: Any) -> Any:
        trained.append(self.clean)
        return step(self, *given)

    monkeypatch.setattr(Rounds, "step", counted)
    train(tmp_path / "shared", *given, twins=tmp_path / "twins")
    assert trained == [False, False]  # the run alone
    assert rows(tmp_path / "shared" / TWIN) == rows(tmp_path / "alone" / TWIN)
    assert rows(tmp_path / "shared") == rows(tmp_path / "alone")


def named(*overrides: str) -> str:
    config = load(composed(*TINY, *overrides))
    assert isinstance(config, Config)
    return key(config)


def test_what_changes_a_clean_training_changes_its_name() -> None:
    own = named("attack=backdoor")
    assert own == named("attack=backdoor", "attack.target=3", "name=other", "engine.num_workers=1")
    for other in ("seed=1", "strategy=krum", "training.learning_rate=0.3", "num_rounds=3",
                  "attack.num_attackers=1", "partition=dirichlet", "root.samples=50"):  # fmt: skip
        assert named("attack=backdoor", other) != own


def test_a_twin_that_another_run_left_unfinished_is_trained(tmp_path: Path) -> None:
    train(tmp_path / "first", "attack=backdoor", twins=tmp_path / "twins")
    (kept,) = (tmp_path / "twins").iterdir()
    (kept / "round-2.safetensors").unlink()
    train(tmp_path / "second", "attack=alie", twins=tmp_path / "twins")
    assert (kept / "round-2.safetensors").exists()
    assert [row["round"] for row in rows(tmp_path / "second" / TWIN)] == [1, 2]
