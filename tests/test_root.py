"""Root data: clean training samples that the server alone holds, and trains on."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from hydra import compose, initialize_config_dir
from rich.console import Console
from safetensors.numpy import load_file

import fl_backdoor.loop.loop as experiment
from clients import HonestClient
from fl_backdoor.config import conf_directory, load
from fl_backdoor.errors import UserError
from fl_backdoor.federation.horizontal import Federation
from fl_backdoor.federation.strategy import new_strategy
from fl_backdoor.loop.means import Means
from fl_backdoor.schema import Config

from .test_experiment import untimed
from .test_vertical_experiment import Undrawn

pytestmark = pytest.mark.usefixtures("undrawn")

DIGITS = (
    "dataset=digits",
    "model=mlp",
    "partition=iid",
    "attack=sign_flip",
    "num_clients=5",
    "attack.num_attackers=1",
    "num_rounds=3",
    "cohort=uniform",
)
ROOT = (*DIGITS, "strategy=fltrust", "root=held_out", "root.samples=40")


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", ["engine=local", *overrides]))
    assert isinstance(config, Config)
    return config


def federation(*overrides: str) -> Federation:
    return Federation(composed(*overrides))


def run(path: Path, *overrides: str) -> str:
    screen = StringIO()
    experiment.run(composed(*overrides), path, Undrawn(Console(file=screen, width=120)))
    return screen.getvalue()


@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_holds_a_sample_of_the_server(seed: int) -> None:
    with_root = federation(*ROOT, f"seed={seed}")
    without = federation(*DIGITS, f"seed={seed}")
    assert len(with_root.root) == len(set(with_root.root.tolist())) == 40
    for own, before in zip(with_root.partitions, without.partitions, strict=True):
        assert set(own.tolist()) == set(before.tolist()) - set(with_root.root.tolist())
    assert len(without.root) == 0
    everything = np.concatenate([with_root.root, *with_root.partitions])
    assert len(everything) == len(set(everything.tolist())) == len(with_root.data.train)


def test_poisoned_samples_are_not_those_of_the_server() -> None:
    """What nobody holds can be added by attackers; the server's rows are held."""
    few = federation(*ROOT, "partition.max_samples=10")
    for label in range(3):
        spare = few.spare(label)
        mine = few.data.train[few.root[few.data.train.labels[few.root].numpy() == label]][0]
        assert len(mine)
        same = (spare[:, None] == mine[None]).flatten(2).all(dim=2)
        doubles = (spare[:, None] == spare[None]).flatten(2).all(dim=2).sum() - len(spare)
        assert not same.any() or doubles


def test_the_server_trains_as_a_client_would_and_always_alike() -> None:
    one, two = federation(*ROOT), federation(*ROOT)
    sent = ArrayRecord(one.initial_state())
    first = Means(one).root_update(2, sent)
    with torch.no_grad():
        for parameter in two.model.parameters():
            parameter.fill_(7)
    means = Means(two)
    means.root_update(1, sent)
    again = means.root_update(2, sent)
    images, labels = one.data.train[one.root]
    seat = HonestClient(two.model, images, labels, **one.training | {"seed": 0, "partition": 5})
    seat.load(sent)
    seat.fit(2)
    for name, array in seat.answer(sent).items():
        np.testing.assert_array_equal(first[name].numpy(), array.numpy())
        np.testing.assert_array_equal(again[name].numpy(), array.numpy())
    assert any((first[name].numpy() != sent[name].numpy()).any() for name in sent)


def test_a_resumed_run_comes_to_the_same_bits(tmp_path: Path) -> None:
    few = (*ROOT, "partition.max_samples=50")
    screen = run(tmp_path / "one", *few)
    assert "40 root samples at the server" in screen
    # As if it had been killed after the first round.
    cut = tmp_path / "cut"
    run(cut, *few, "num_rounds=1")
    config = (cut / "config.json").read_text()
    (cut / "config.json").write_text(config.replace('"num_rounds": 1', '"num_rounds": 3'))
    (cut / "summary.json").unlink()
    run(cut, *few, "resume=true")
    assert untimed(cut)[1:] == untimed(tmp_path / "one")[1:]
    first, second = (load_file(path / "model.safetensors") for path in (tmp_path / "one", cut))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("root.samples=0",), "root.samples=0: the strategy trains on samples of the server"),
        (("root.samples=-1",), "root.samples=-1: allowed is 0 or more"),
        (("root.samples=1437",), "root.samples=1437: allowed is 0 to 1436"),
        (("root.samples=1434",), "root.samples=1434: client"),
    ],
)
def test_what_cannot_be_held_out_is_refused_before_training(
    overrides: tuple[str, ...], message: str
) -> None:
    def check() -> None:
        made = federation(*ROOT, *overrides)
        assert made.partitions
        new_strategy(made.config, Means(made))

    with pytest.raises(UserError) as error:
        check()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", ["dataset=digits", "dataset=breast_cancer", "dataset=synthetic"])
def test_noise_is_as_inputs_are(data: str) -> None:
    made = federation(data, "model=mlp", "partition=iid", "attack=none", "num_clients=5")
    drawn = Means(made).noise(30, np.random.default_rng(0))
    inputs, _ = made.data.train[:30]
    assert drawn.shape == tuple(inputs.shape)
    assert torch.as_tensor(drawn).dtype == inputs.dtype
    if made.data.kind == "image":
        assert (drawn >= 0).all()
        assert (drawn < 1).all()
    outputs = Means(made).run_model(ArrayRecord(made.initial_state()), drawn)
    assert outputs.shape == (30, len(made.classes))
