"""Every key of an experiment, given a wrong value: it is refused in a line that names it, or valid.

Nothing is trained: a config is composed, mutated, loaded, and built as far as a run does before
its first message. ``pytest -m slow tests/test_mutations.py`` tries every fourth pair of a key and a
value, so that each key has two values or three, and each value a quarter of the keys, and ``-m
exhaustive`` all. With ``-s`` it prints what is accepted.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fl_backdoor.config import conf_directory, load, one_line
from fl_backdoor.data import mnist
from fl_backdoor.data.base import Data, Split
from fl_backdoor.data.vertical import mnist_rows
from fl_backdoor.errors import UserError
from fl_backdoor.loop.epoch import Vertical
from fl_backdoor.loop.horizontal import Horizontal
from fl_backdoor.loop.tracking import Tracking
from fl_backdoor.schema import Config

from .test_config import HORIZONTAL, VERTICAL
from .test_mnist_rows import data_of

SMALL = {
    "horizontal": [
        "engine=local",
        "dataset.source=bundled",
        "dataset.samples_per_class=3",
        "dataset.test_samples_per_class=4",
        "model.channels=[2,3]",
    ],
    "mnist": ["dataset.source=bundled", "dataset.poisoned_train=5", "dataset.poisoned_test=5"],
    "nuswide": ["dataset.source=synthetic", "dataset.train_rows=300", "dataset.test_rows=200"],
}
FEW = ["backdoor_noise", "vertical_combined_nuswide"]
REST = [name for name in [*HORIZONTAL, *VERTICAL] if name not in FEW]

VALUES: dict[str, Any] = {
    "text": "so\nso",
    "list": ["so", -1],
    "null": None,
    "a mapping": {"so": 1},
    "-1": -1,
    "nan": math.nan,
    "1e30": 1e30,
    "10**30": 10**30,
}
MISSPELT = "misspelt"
STEP = 4
"""From one pair of a key and a value to the next that is tried by default."""


@pytest.fixture(autouse=True)
def _few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hundred digits instead of seventy thousand."""
    whole = data_of(400, 60, "four hundred digits")

    def load_some(root: str | None, source: str, chosen: list[int]) -> Data:
        splits = []
        for split in (whole.train, whole.test):
            mine = torch.isin(split.labels, torch.tensor(chosen))
            numbers = torch.tensor([chosen.index(label) for label in split.labels[mine].tolist()])
            splits.append(Split(split.inputs[mine], numbers, mnist._grey))
        return Data(whole.name, *splits, tuple(map(str, chosen)), whole.description)

    monkeypatch.setattr(mnist, "load_mnist", load_some)
    monkeypatch.setattr(mnist_rows, "load_mnist", lambda *_: whole)
    for cache in (mnist_rows._images, mnist_rows._block):
        monkeypatch.setattr(mnist_rows, cache.__name__, cache.__wrapped__)


def composed(name: str) -> DictConfig:
    data = name.rpartition("_")[2] if name.startswith("vertical_") else "horizontal"
    overrides = [f"+experiment={name}", *SMALL[data]]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", overrides)
    if data == "horizontal" and "poisoned_samples" in config.attack:
        config.attack.poisoned_samples = 3 * config.attack.num_attackers
    return config


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """Name the keys of all values that are no mappings."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key)


def prepare(config: DictConfig) -> None:
    """Do what a run does before its first message."""
    loaded = load(config)
    experiment = Horizontal(loaded) if isinstance(loaded, Config) else Vertical(loaded)
    experiment.check()
    experiment.training(clean=False)
    Tracking(loaded, Path(), experiment.unit)


def refusal(config: DictConfig, key: str, mutation: str) -> str | None:
    """Return the line that a mutation is refused with; None if it is accepted."""
    config = config.copy()
    try:
        if mutation == MISSPELT:
            parent, _, name = key.rpartition(".")
            wrong = f"{parent}.x{name}" if parent else f"x{name}"
            OmegaConf.update(config, wrong, OmegaConf.select(config, key), force_add=True)
        else:
            OmegaConf.update(config, key, VALUES[mutation], merge=False)
        prepare(config)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return one_line(error)
    return None


def mutations(name: str, step: int) -> Iterator[tuple[str, str, str | None]]:
    """Try mutations of the keys of an experiment: key, mutation, the line or None."""
    config = composed(name)
    prepare(config.copy())
    pairs = itertools.product(leaves(OmegaConf.to_container(config)), (*VALUES, MISSPELT))
    for key, mutation in itertools.islice(pairs, None, None, step):
        yield key, mutation, refusal(config, key, mutation)


def check(name: str, step: int = 1) -> None:
    faults, accepted, count = [], [], 0
    for key, mutation, line in mutations(name, step):
        count += 1
        last = key.rpartition(".")[2]
        if line is None:
            accepted.append(f"{key} {mutation}")
            if mutation == MISSPELT:
                faults.append(f"{key} {mutation}: accepted")
        elif not line.isprintable() or last not in line:
            faults.append(f"{key} {mutation}: {line}")
    print(f"{name}: {count} mutations, {len(accepted)} accepted: {', '.join(accepted)}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_mutated_keys_are_refused_by_name_or_valid(name: str) -> None:
    assert math.gcd(STEP, len(VALUES) + 1) == 1, "each key would have the same values"
    check(name, STEP)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FEW)
def test_all_mutated_keys_are_refused_by_name_or_valid(name: str) -> None:
    check(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", REST)
def test_mutated_keys_of_every_other_experiment(name: str) -> None:
    check(name)
