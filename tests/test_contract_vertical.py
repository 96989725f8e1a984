"""One contract for every attack, top and defense of split learning that has a yaml."""

from pathlib import Path

import numpy as np
import pytest

from clients.vertical import PartyAttack
from fl_backdoor.config import conf_directory
from fl_backdoor.federation.vertical_attacks import VerticalAttack

from . import test_vertical_experiment as vertical
from .test_config import class_of, names


def is_vertical(attack: str) -> bool:
    return issubclass(class_of("attack", attack), PartyAttack | VerticalAttack)


ATTACKS = [name for name in names("attack") if name == "none" or is_vertical(name)]
CASES = [
    *([f"attack={name}"] for name in ATTACKS),
    *([f"defense={name}"] for name in names("defense")),
    *([f"top={name}"] for name in names("top")),
]


def overrides(case: list[str], folder: Path) -> list[str]:
    """Return a tiny run of CSV files; an attack that acts is in each."""
    rest = [] if case[0].startswith("attack=") else ["attack=gradient_replacement"]
    scores = [] if case[0].startswith(("top=", "attack=label")) else ["top=dense"]
    return vertical.csv(folder, *rest, *scores, *case, "num_epochs=2")


@pytest.fixture(params=CASES, ids=lambda case: case[0])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return overrides(list(request.param), tmp_path)


def config_of(case: list[str]) -> vertical.VerticalConfig:
    with vertical.initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = vertical.load(vertical.compose("config", case))
    assert isinstance(config, vertical.VerticalConfig)
    return config


def ran(path: Path, case: list[str], *more: str) -> list[dict[str, object]]:
    shown = vertical.Undrawn(vertical.Console(quiet=True))
    vertical.experiment.run(config_of([*case, *more]), path, shown)
    return vertical.untimed(path)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    case: list[str], tmp_path: Path
) -> None:
    first = ran(tmp_path / "first", case)
    assert ran(tmp_path / "second", case) == first
    assert vertical.model(tmp_path / "first") == vertical.model(tmp_path / "second")
    assert ran(tmp_path / "third", case, "seed=1") != first
    losses = [row["train_loss"] for row in first]
    assert np.isfinite(np.array(losses, dtype=np.float64)).all()


def test_a_run_interrupted_after_an_epoch_goes_on_to_the_same_bits(
    case: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ran(tmp_path / "whole", case)
    append = vertical.RunDirectory.append

    def interrupted(self: vertical.RunDirectory, *arguments: object) -> None:
        append(self, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vertical.RunDirectory, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ran(tmp_path / "resumed", case)
    assert ran(tmp_path / "resumed", case, "resume=true") == whole
    assert vertical.model(tmp_path / "resumed") == vertical.model(tmp_path / "whole")
