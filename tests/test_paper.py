"""Claims of Cao et al. 2019 at the paper's scale: minutes long, so marked slow."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from fl_backdoor.config import conf_directory, load
from fl_backdoor.loop.display import Display
from fl_backdoor.loop.loop import run

from .test_experiment import rows


@pytest.mark.slow
def test_sniper_drops_exactly_the_attackers(tmp_path: Path) -> None:
    """Section V, goal 1, S = 500, P = 3: once the network has left its starting point."""
    overrides = ["+experiment=sniper_goal1", "dataset.source=bundled", "floor=false"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", overrides))
    summary = run(config, tmp_path, Display(Console(quiet=True)))
    trained = [row for row in rows(tmp_path) if row["main_accuracy"] > 0.8]
    assert len(trained) >= 5
    assert all(row["dropped"] == [0, 1, 2] for row in trained)
    assert summary["defense_precision"] > 0.9
    assert summary["main_accuracy"] > 0.9
    assert summary["attack_success_rate"] < 0.05
    last = rows(tmp_path)[-1]
    assert last["distance_honest_honest_max"] < 0.5 < last["distance_honest_attacker_mean"]
