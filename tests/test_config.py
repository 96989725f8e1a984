"""Every experiment composes and builds; every wrong value is one line that names its key."""

from pathlib import Path

import pytest
from flwr.serverapp.strategy import Strategy
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fl_backdoor.attacks import Attack
from fl_backdoor.config import Config, build, conf_directory, load, one_line
from fl_backdoor.errors import UserError
from fl_backdoor.models import Cao2019CNN


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return load(compose("config", list(overrides)))


def test_the_experiments_of_the_paper_are_there() -> None:
    assert set(names("experiment")) >= {
        "sniper_goal1",
        "sniper_goal2",
        "fedavg_goal1",
        "fedavg_goal2",
        "baseline",
        "single_participant",
        "backdoor_fedavg",
        "backdoor_norm_clipping",
        "backdoor_noise",
        "backdoor_sniper",
    }


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_builds(experiment: str) -> None:
    config = composed(f"+experiment={experiment}")
    assert config.name == experiment
    assert isinstance(build("strategy", config.strategy), Strategy)
    attack = build("attack", config.attack)
    assert isinstance(attack, Attack)
    assert attack.attackers(config.num_clients, config.seed) == tuple(range(attack.num_attackers))
    assert set(attack.goal_digits().values()) <= set(config.dataset.digits)
    model = build("model", config.model, num_classes=len(config.dataset.digits), seed=0)
    assert isinstance(model, Cao2019CNN)


@pytest.mark.parametrize("strategy", names("strategy"))
@pytest.mark.parametrize("attack", names("attack"))
def test_every_strategy_meets_every_attack(strategy: str, attack: str) -> None:
    config = composed(f"strategy={strategy}", f"attack={attack}", "attack.num_attackers=1")
    assert isinstance(build("strategy", config.strategy), Strategy)
    assert isinstance(build("attack", config.attack), Attack)


def test_the_papers_setting() -> None:
    config = composed("+experiment=sniper_goal1")
    assert config.num_clients == 10
    assert config.dataset.samples_per_class == 250
    assert config.dataset.test_samples_per_class == 500
    training = config.training
    assert (training.batch_size, training.epochs) == (10, 1)
    assert (training.learning_rate, training.decay, training.weight_decay) == (0.08, 0.098, 0.01)
    assert (config.strategy["threshold"], config.strategy["step"]) == (0.5, 0.05)
    assert config.attack["poisoned_samples"] == 500
    assert (config.attack["source"], config.attack["target"]) == (6, 2)
    goal2 = composed("+experiment=sniper_goal2").attack
    assert (goal2["source"], goal2["target"]) == (8, 4)


def test_defenses_nest_from_the_command_line() -> None:
    config = composed("strategy=norm_clipping", "strategy@strategy.strategy=sniper")
    assert config.strategy["strategy"]["_target_"] == "strategies.Sniper"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("num_clients=0", "num_clients=0"),
        ("num_clients=ten", "num_clients"),
        ("num_rounds=-1", "num_rounds=-1"),
        ("num_round=1", "num_round"),
        ("+num_round=1", "num_round: unknown key"),
        ("+training.momentum=0.9", "training.momentum: unknown key"),
        ("engine=local engine.num_workers=4", "engine.num_workers=4"),
        ("seed=-3", "seed=-3"),
        ("round_timeout=0", "round_timeout=0"),
        ("strategy=snipper", "snipper"),
        ("strategy.thresold=1", "thresold"),
        ("training.batch_size=0", "training.batch_size=0"),
        ("training.learning_rate=-1", "training.learning_rate=-1"),
        ("training.learning_rate=nan", "training.learning_rate=nan"),
        ("dataset.digits=[6]", "dataset.digits=[6]"),
        ("dataset.digits=[6,6]", "dataset.digits=[6, 6]"),
        ("dataset.digits=[6,12]", "dataset.digits=[6, 12]"),
        ("engine.kind=spark", "engine.kind=spark"),
        ("engine.cpus_per_client=0", "engine.cpus_per_client=0"),
        ("engine.gpus_per_client=-1", "engine.gpus_per_client=-1"),
        ("engine.num_workers=0", "engine.num_workers=0"),
        ("floor=perhaps", "floor"),
    ],
)
def test_wrong_values_are_named(override: str, said: str) -> None:
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        composed(*override.split())
    message = one_line(caught.value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "overrides", "said"),
    [
        ("strategy", ["strategy=sniper", "strategy.threshold=-1"], "threshold = -1"),
        ("strategy", ["strategy=sniper", "strategy.threshold=abc"], "threshold = 'abc'"),
        ("strategy", ["strategy=sniper", "+strategy.thresold=1"], "thresold"),
        ("strategy", ["strategy._target_=strategies.Snipper"], "Snipper"),
        ("strategy", ["strategy=norm_clipping", "strategy.max_norm=0"], "max_norm = 0"),
        ("strategy", ["strategy=gaussian_noise", "strategy.stddev=-1"], "stddev = -1"),
        ("attack", ["attack.source=2"], "attack.target=2"),
        ("attack", ["attack.source=six"], "attack.source"),
        ("attack", ["+attack.sauce=6"], "sauce"),
        ("attack", ["attack.poisoning=mix"], "attack.poisoning=mix"),
        ("attack", ["attack.poisoned_samples=-1"], "attack.poisoned_samples=-1"),
        ("attack", ["attack.poisoned_samples=500"], "attack.poisoned_samples=500"),
        ("attack", ["attack=backdoor", "attack.pattern=[[28,0]]"], "attack.pattern"),
        ("model", ["model.shrink=crop"], "shrink = 'crop'"),
    ],
)
def test_parts_refuse_wrong_values(key: str, overrides: list[str], said: str) -> None:
    config = composed(*overrides)
    with pytest.raises(UserError) as caught:
        build(key, getattr(config, key), **({"num_classes": 2} if key == "model" else {}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conf_directory_holds_the_groups() -> None:
    groups = {path.name for path in conf_directory().iterdir() if path.is_dir()}
    assert groups == {"strategy", "attack", "dataset", "model", "engine", "experiment"}
    assert (Path(conf_directory()) / "config.yaml").is_file()
