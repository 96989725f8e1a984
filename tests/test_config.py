"""Every experiment composes and builds; every wrong value is one line that names its key."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import Strategy
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clients import Attack
from clients.vertical import PartyAttack
from fl_backdoor.config import build, conf_directory, load, one_line
from fl_backdoor.data.vertical import mnist_rows
from fl_backdoor.errors import UserError
from fl_backdoor.federation.attackers import build_attack
from fl_backdoor.federation.model import new_model
from fl_backdoor.federation.optimizer import client_settings
from fl_backdoor.federation.roster import build_roster
from fl_backdoor.federation.vertical import VerticalFederation
from fl_backdoor.federation.vertical_attacks import NoAttack, VerticalAttack
from fl_backdoor.models.cao2019 import Cao2019CNN
from fl_backdoor.schema import Config, VerticalConfig

from .test_mnist_rows import data_of


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))


def class_of(group: str, name: str) -> type[Any]:
    """Return the class that a yaml names."""
    return get_class(OmegaConf.load(conf_directory() / group / f"{name}.yaml")._target_)


VERTICAL = [name for name in names("experiment") if name.startswith("vertical_")]
PROTOCOLS = [
    "alignins_cifar10",
    "backfed_cifar10",
    "femnist",
    "flpoison_cifar10",
    "tabular",
    "text",
]
"""Of others, on other data: see tests/test_protocols.py."""
HORIZONTAL = sorted({*names("experiment")} - {*VERTICAL, *PROTOCOLS})
SMALL = {
    "mnist": ["dataset.poisoned_train=5", "dataset.poisoned_test=5"],
    "nuswide": ["dataset.source=synthetic", "dataset.train_rows=300", "dataset.test_rows=200"],
}


def with_hydra(*overrides: str) -> DictConfig:
    """Compose as the command line does, Hydra's own settings included."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def loaded(*overrides: str) -> Any:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return load(compose("config", list(overrides)))


def composed(*overrides: str) -> Config:
    config = loaded(*overrides)
    assert isinstance(config, Config)
    return config


def built(config: Config) -> Attack:
    digits = config.dataset.get("digits", range(10))
    return build_attack(config.attack, [str(digit) for digit in digits])


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    images = data_of(80, 20, "eighty digits")
    monkeypatch.setattr(mnist_rows, "load_mnist", lambda *_: images)
    for cache in (mnist_rows._images, mnist_rows._block):
        monkeypatch.setattr(mnist_rows, cache.__name__, cache.__wrapped__)


def small(experiment: str, *overrides: str) -> VerticalConfig:
    """Load an experiment on data that is there at once."""
    data = SMALL[experiment.rpartition("_")[2]]
    config = loaded(f"+experiment={experiment}", *data, *overrides)
    assert isinstance(config, VerticalConfig)
    return config


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
        *(f"cao_{name}" for name in ("grid", "readings", "baseline", "single", "table2")),
        *(f"cao_fig{number}" for number in (3, 4, 5, 7, 8)),
    }


def test_the_vertical_experiments_are_there_on_both_data_sets() -> None:
    figures = ["table1", "table2", "fig3", "fig4", "fig5", "fig6", "fig7", "combined"]
    expected = {f"vertical_{name}_{data}" for name in figures for data in SMALL}
    assert set(VERTICAL) >= expected | {f"vertical_{data}" for data in SMALL}


@pytest.mark.parametrize("experiment", HORIZONTAL)
def test_every_experiment_builds(experiment: str) -> None:
    config = composed(f"+experiment={experiment}")
    reads_others = experiment.startswith("cao_") and config.name == "cao_grid"
    assert config.name == experiment or reads_others
    assert isinstance(build("strategy", config.strategy), Strategy)
    roster = build_roster(config.attack)
    drawn = roster.draw(config.num_clients, config.seed)
    assert len(drawn) == roster.num_attackers
    assert roster.roster == "random" or drawn == tuple(range(roster.num_attackers))
    goal = built(config).goal
    assert goal is not None
    digits = list(config.dataset.get("digits", range(10)))
    assert goal.target == digits.index(config.attack["target"])
    if not experiment.startswith("matrix"):
        assert isinstance(new_model(config.model, 0, num_classes=len(digits)), Cao2019CNN)


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("experiment", VERTICAL)
def test_every_vertical_experiment_builds(experiment: str) -> None:
    config = small(experiment)
    assert config.name == experiment
    federation = VerticalFederation(config)
    federation.check()
    assert federation.data.num_parties == 2
    assert federation.data.trigger_party == 1
    assert federation.labels.names[federation.target] in ("0", "buildings")


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("experiment", [e for e in VERTICAL if e.endswith("_mnist")])
def test_every_sweep_builds_at_both_its_ends(experiment: str) -> None:
    settings = with_hydra(f"+experiment={experiment}").hydra
    swept = OmegaConf.to_container(settings.sweeper.params) if settings.sweeper.params else {}
    assert isinstance(swept, dict)
    assert (settings.mode == RunMode.MULTIRUN) == bool(swept)
    if swept:
        repeats = "range(20)" if "fig6" in experiment else "0, 1, 2"
        assert swept.pop("seed") == repeats
        for end in (0, -1):
            chosen = {key: values.split(", ")[end] for key, values in swept.items()}
            config = small(experiment, *(f"{key}={value}" for key, value in chosen.items()))
            VerticalFederation(config).check()
    other = with_hydra(f"+experiment={experiment.replace('mnist', 'nuswide')}").hydra
    assert other.sweeper.params == settings.sweeper.params


def test_the_papers_vertical_setting() -> None:
    config = loaded("+experiment=vertical_fig5_mnist")
    training = config.training
    assert (training.batch_size, training.learning_rate, training.local_steps) == (64, 0.01, 1)
    assert config.bottom["hidden"] == config.top["hidden"] == 32
    assert not config.bottom["projection"]
    assert (config.attack["gamma"], config.attack["blur_variance"]) == (10, 1e-6)
    assert config.dataset["blocks"] == [[0, 13], [14, 27]]
    assert (config.dataset["poisoned_train"], config.dataset["poisoned_test"]) == (600, 100)
    sums = loaded("+experiment=vertical_fig4_nuswide")
    assert sums.bottom["projection"]
    assert sums.attack["_target_"].endswith(".GradientReplacement")
    assert (sums.dataset["train_rows"], sums.dataset["test_rows"]) == (60_000, 40_000)


def test_defenses_are_applied_in_the_order_they_are_named() -> None:
    config = loaded("protocol=vertical", "defense=[noise,clipping]")
    assert list(config.defenses) == ["noise", "clipping"]
    assert loaded("protocol=vertical").defenses == {}


@pytest.mark.parametrize("protocol", names("protocol"))
def test_the_protocol_decides_the_schema(protocol: str) -> None:
    schema = {"horizontal": Config, "vertical": VerticalConfig}[protocol]
    assert type(loaded(f"protocol={protocol}")) is schema


def attacks(*kinds: type) -> list[str]:
    """Name the attacks of a protocol."""
    return [name for name in names("attack") if issubclass(class_of("attack", name), kinds)]


def test_every_attack_belongs_to_a_protocol() -> None:
    assert sorted(attacks(Attack) + attacks(VerticalAttack, PartyAttack)) == names("attack")
    assert built(composed("attack=none")) == Attack()
    assert isinstance(build("attack", loaded("protocol=vertical", "attack=none").attack), NoAttack)


# Neither is built knowing of the other: the shorter list goes round.
@pytest.mark.parametrize(
    ("strategy", "attack"),
    list(zip(names("strategy"), itertools.cycle(attacks(Attack)), strict=False)),
)
def test_every_strategy_and_every_attack_is_built(strategy: str, attack: str) -> None:
    given = (f"strategy={strategy}", f"attack={attack}", "attack.num_attackers=1")
    config = composed(*given, "dataset.digits=[0,1,2,3,4,5,6,7,8,9]")
    assert isinstance(build("strategy", config.strategy), Strategy)
    assert built(config).layers()


def test_no_attack_is_left_out_above() -> None:
    assert len(names("strategy")) >= len(attacks(Attack))


def test_the_papers_setting() -> None:
    config = composed("+experiment=sniper_goal1")
    assert config.num_clients == 10
    assert config.dataset["samples_per_class"] == 250
    assert config.dataset["test_samples_per_class"] == 500
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
        ("measure.extra=one", "measure.extra"),
        ("strategy.thresold=1", "thresold"),
        ("training.batch_size=0", "training.batch_size=0"),
        ("training.learning_rate=-1", "training.learning_rate=-1"),
        ("training.learning_rate=nan", "training.learning_rate=nan"),
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
        ("attack", ["attack=backdoor", "attack.pattern=[[0,one]]"], "attack.pattern"),
        ("attack", ["attack=backdoor", "attack.replacement=-1"], "attack.replacement=-1"),
        ("attack", ["attack=backdoor", "attack.max_norm=one"], "attack.max_norm=one"),
        ("dataset", ["dataset.digits=6"], "dataset.digits: allowed is a list, and not 6"),
        ("dataset", ["dataset.digits=[6]"], "dataset.digits=[6]"),
        ("dataset", ["dataset.digits=[6,6]"], "dataset.digits=[6, 6]"),
        ("dataset", ["dataset.digits=[6,12]"], "dataset.digits=[6, 12]"),
        ("dataset", ["+dataset.digit=[6]"], "dataset.digit"),
        ("model", ["model.shrink=crop"], "shrink = 'crop'"),
        ("model", ["model=mlp", "model.hidden=[0]"], "hidden = [0]"),
        ("model", ["+model.chanels=[1]"], "chanels"),
        ("optimizer", ["optimizer.learning_rate=-1"], "optimizer.learning_rate=-1"),
        ("optimizer", ["optimizer.learning_rate=fast"], "optimizer.learning_rate=fast"),
        ("optimizer", ["optimizer.weight_decay=nan"], "optimizer.weight_decay=nan"),
        ("optimizer", ["optimizer.mu=-0.1"], "optimizer.mu=-0.1"),
        ("optimizer", ["optimizer.momentum=much"], "given are weight_decay=0.01, momentum='much'"),
        ("optimizer", ["optimizer.momentum=nan"], "optimizer.momentum=nan"),
        ("optimizer", ["optimizer.nesterov=true"], "momentum=0, nesterov=True"),
        ("optimizer", ["optimizer=adam", "optimizer.betas=[2,0.9]"], "betas=[2, 0.9]"),
        ("optimizer", ["optimizer.max_norm=0"], "optimizer.max_norm=0"),
        ("optimizer", ["+optimizer.momentun=0.9"], "'momentun'; allowed are learning_rate,"),
        ("optimizer", ["optimizer._target_=torch.optim.Sgd"], "optimizer._target_"),
        ("optimizer", ["optimizer._target_=torch.nn.Identity"], "allowed are Optimizer classes"),
        ("optimizer", ["optimizer.schedule=cosine"], "choose it with optimizer/schedule=cosine"),
        ("optimizer", ["optimizer/schedule=step", "optimizer.schedule.every=0"], "every=0"),
        ("optimizer", ["optimizer/schedule=cosine", "+optimizer.schedule.last=1"], "last"),
        (
            "optimizer",
            ["training.learning_rate=0.1", "optimizer.learning_rate=0.2"],
            "training.learning_rate=0.1, optimizer.learning_rate=0.2: allowed is one of them",
        ),
        (
            "optimizer",
            ["training.weight_decay=0.5", "optimizer=adam"],
            "training.weight_decay=0.5, optimizer.weight_decay=0:",
        ),
        (
            "optimizer",
            ["training.decay=0.5", "optimizer/schedule=constant"],
            "training.decay=0.5, optimizer.schedule.decay=not there:",
        ),
    ],
)
def test_parts_refuse_wrong_values(key: str, overrides: list[str], said: str) -> None:
    config = composed(*overrides)
    builders: dict[str, Any] = {
        "attack": lambda: built(config),
        "model": lambda: new_model(config.model, 0, num_classes=2, input_shape=(1, 28, 28)),
        "optimizer": lambda: client_settings(config),
    }
    with pytest.raises(UserError) as caught:
        builders.get(key, lambda: build(key, getattr(config, key)))()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conf_directory_holds_the_groups() -> None:
    groups = {path.name for path in conf_directory().iterdir() if path.is_dir()}
    common = {"protocol", "attack", "dataset", "engine", "experiment", "tracker"}
    horizontal = {
        "strategy",
        "partition",
        "model",
        "optimizer",
        "cohort",
        "attackers",
        "root",
        "size",
    }
    assert groups == common | horizontal | {"bottom", "top", "defense"}
    assert (Path(conf_directory()) / "config.yaml").is_file()
