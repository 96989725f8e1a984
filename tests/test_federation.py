"""Tests of `fl_backdoor.federation`: the same for every process, and nobody shares a sample."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from hydra import compose, initialize_config_dir
from torch import Tensor

from clients import Attack, Backdoor, HonestClient, LabelFlipping, MaliciousClient, Seat
from clients.attacker import Update
from fl_backdoor import config as configuration
from fl_backdoor.errors import UserError
from fl_backdoor.federation import horizontal as module
from fl_backdoor.federation.horizontal import CLEAN_TWIN, Federation, make_client_app
from fl_backdoor.schema import Config

SMALL = (
    "dataset.source=bundled",
    "dataset.digits=[2,6]",
    "dataset.samples_per_class=20",
    "dataset.test_samples_per_class=30",
    "model.channels=[4,4]",
    "num_clients=6",
    "attack.num_attackers=2",
    "attack.poisoned_samples=31",
    "attack.uneven_shares=true",
)
BACKDOOR = (*SMALL[:-2], "attack=backdoor")


def make_config(*overrides: str, base: tuple[str, ...] = SMALL) -> Config:
    directory = str(configuration.conf_directory())
    with initialize_config_dir(version_base="1.3", config_dir=directory):
        return configuration.load(compose("config", [*base, *overrides]))


def make(*overrides: str, base: tuple[str, ...] = SMALL) -> Federation:
    return Federation(make_config(*overrides, base=base))


def rows(images: Tensor) -> list[bytes]:
    """Return each image as something to compare and count."""
    return [image.numpy().tobytes() for image in images]


def same_data(a: HonestClient, b: HonestClient) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def refusal(federation: Federation) -> str:
    with pytest.raises(UserError) as error:
        federation.check()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_shares_a_sample(seed: int) -> None:
    federation = make(f"seed={seed}", "attack.roster=random")
    federation.check()
    spare = federation.spare(1)  # 6 is label 1
    held = np.concatenate(federation.partitions)
    assert len(held) == len(set(held.tolist()))
    assert len(spare) == 6000 - 6 * 20
    images = set(rows(federation.data.train[held][0]))
    assert not images & set(rows(spare))

    first, second = (federation.client(number) for number in federation.attackers)
    added = [first.images[40:], second.images[40:]]
    assert [len(images) for images in added] == [16, 15]
    taken = spare[:31]
    assert torch.equal(torch.cat(added), taken)
    sixes, _ = federation.data.train[federation.data.labels == "6"]
    assert set(rows(taken)) <= set(rows(sixes))
    for attacker in (first, second):
        assert isinstance(attacker, MaliciousClient)
        assert attacker.labels[40:].tolist() == [0] * (len(attacker.labels) - 40)  # 2 is label 0


@pytest.mark.parametrize("base", [SMALL, BACKDOOR])
def test_the_clean_twin_has_the_data_of_a_run_without_attack(base: tuple[str, ...]) -> None:
    none = ["attack.num_attackers=0"]
    if base is SMALL:
        none.append("attack.poisoned_samples=0")
    attacked, peaceful = make(base=base), make(*none, base=base)
    for number in range(6):
        clean = attacked.client(number, clean=True)
        assert type(clean) is HonestClient
        assert same_data(clean, peaceful.client(number))
        assert same_data(clean, attacked.client(number)) == (number not in attacked.attackers)
        assert torch.bincount(clean.labels).tolist() == [20, 20]
    assert all(map(torch.equal, attacked.test_set(), peaceful.test_set()))


def test_every_client_gets_its_training_arguments() -> None:
    federation = make("training.batch_size=7", "training.decay=0.5", "seed=9")
    for number in (0, 5):
        client = federation.client(number)
        assert (client.seed, client.partition) == (9, number)
        assert (client.batch_size, client.decay, client.learning_rate) == (7, 0.5, 0.08)


@pytest.mark.parametrize("digits", [[2, 6], [6, 2]])
def test_labels_are_places_in_the_digits(digits: list[int]) -> None:
    federation = make(f"dataset.digits={digits}")
    client = federation.client(5)
    known = {
        row: digits.index(int(digit))
        for row, digit in zip(
            rows(federation.data.train[:][0]),
            federation.data.labels,
            strict=True,
        )
    }
    assert [known[row] for row in rows(client.images)] == client.labels.tolist()
    attacker = federation.client(0)
    assert isinstance(attacker, MaliciousClient)
    assert isinstance(attacker.attack, LabelFlipping)
    attack = attacker.attack
    assert (attack.source, attack.target) == (digits.index(6), digits.index(2))
    assert federation.model(client.images).shape == (20 * len(digits), len(digits))


def test_test_set_is_even_and_seeded() -> None:
    images, labels = make().test_set()
    assert images.shape == (60, 1, 28, 28)
    assert (images.min(), images.max()) == (0, 1)
    assert torch.bincount(labels).tolist() == [30, 30]
    assert len(set(rows(images))) == 60
    assert torch.equal(images, make("num_clients=9", "seed=0").test_set()[0])
    assert not torch.equal(images, make("seed=1").test_set()[0])


def test_the_seed_decides_partitions_pool_and_weights() -> None:
    one, again, other = make(), make(), make("seed=1")
    for mine, same, different in zip(
        (*one.partitions, one.spare(1), *one.initial_state().values()),
        (*again.partitions, again.spare(1), *again.initial_state().values()),
        (*other.partitions, other.spare(1), *other.initial_state().values()),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, same)
        assert not np.array_equal(mine, different) or not mine.any()  # biases are all 0


@dataclass(kw_only=True)
class Tired(Attack):
    """An attack of somebody's own, which needs no line of the suite: poisons once a process."""

    victim: int
    classes: ClassVar = ("victim",)
    poisoned: ClassVar[list[int]] = []

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        self.poisoned.append(seat.client)
        return inputs, labels.where(labels != self.victim, 1 - self.victim)

    def craft(self, update: Update, seat: Seat) -> Update:
        seat.memory["rounds"] = seat.memory.get("rounds", np.zeros(1)) + 1
        return {name: array / seat.memory["rounds"] for name, array in update.items()}


def test_data_are_poisoned_once_a_process_and_memory_lasts_in_the_node(
    train_message: Callable[..., Message],
) -> None:
    config = make_config("attack=none", "+attack.num_attackers=2", base=SMALL[:-3])
    config.attack = {"_target_": f"{__name__}.Tired", "num_attackers": 2, "victim": 6}
    app, arrays = make_client_app(config), ArrayRecord(Federation(config).initial_state())
    Tired.poisoned.clear()
    nodes = {k: Context(1, 9 - k, {"partition-id": k}, RecordDict(), {}) for k in range(6)}
    for number in range(1, 4):
        for node in nodes.values():
            reply = app(train_message(arrays, number), node)
            assert set(reply.content) == {"arrays", "metrics"}
    assert Tired.poisoned == [0, 1]
    federation = module._federation.__wrapped__(json.dumps(asdict(config)))
    assert federation.client(0).labels.tolist() == [0] * 40
    kept = {k: "attack-memory" in node.state for k, node in nodes.items()}
    assert kept == {k: k < 2 for k in range(6)}
    assert nodes[1].state["attack-memory"]["rounds"].numpy().tolist() == [3]  # type: ignore[index]
    twin = train_message(arrays, 4)
    twin.content["config"][CLEAN_TWIN] = True  # type: ignore[index]
    app(twin, nodes[1])
    assert nodes[1].state["attack-memory"]["rounds"].numpy().tolist() == [3]  # type: ignore[index]


def test_a_process_keeps_its_clients_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = make()
    first = federation.client(5)
    assert federation.client(5) is first
    assert federation.client(0, clean=True) is not federation.client(0)
    monkeypatch.setattr(module, "MAX_BYTES", 3 * first.images.nbytes)
    federation.client(4)
    assert set(federation._clients) == {(0, True), (4, False)}
    federation.client(0)
    federation.client(3)
    assert (4, False) not in federation._clients
    assert same_data(federation.client(5), first)
    federation.enlist((2, 3))
    assert not federation._clients
    attacker = federation.client(3)
    assert isinstance(attacker, MaliciousClient)
    assert (attacker.seat.rank, attacker.seat.attackers) == (1, 2)


def test_nobody_attacks() -> None:
    federation = make("attack=none", base=SMALL[:-3])
    federation.check()
    assert federation.attackers == ()
    assert federation.goal is None
    assert federation.describe_attack() == "NoAttack"


def test_initial_state_is_untrained() -> None:
    federation = make()
    before = federation.initial_state()
    federation.client(0).fit(1)
    assert all(map(torch.equal, before.values(), federation.initial_state().values()))


def test_backdoor_needs_no_pool() -> None:
    federation = make(base=BACKDOOR)
    federation.check()
    attacker = federation.client(1)
    assert isinstance(attacker, MaliciousClient)
    assert isinstance(attacker.attack, Backdoor)
    assert not federation._spare
    assert torch.bincount(attacker.labels).tolist() == [30, 10]
    assert int((attacker.images[..., 25, 25] == 1).sum()) >= 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["attack.poisoned_samples=5881"],
            "attack.poisoned_samples=5881: allowed are 0 to 5880, the samples of the source "
            "that no participant holds; with attack.poisoning=replace attackers flip their own",
        ),
        (
            ["dataset.samples_per_class=1000"],
            "attack.poisoned_samples=31: allowed are 0 to 0, the samples of the source "
            "that no participant holds; with attack.poisoning=replace attackers flip their own",
        ),
        (
            ["attack.poisoning=replace", "attack.poisoned_samples=42"],
            "attack.poisoned_samples=42: attacker 0 would flip 21 of its own source samples but "
            "holds 20; allowed is less, or attack.poisoning=add",
        ),
        (
            ["dataset.samples_per_class=1001"],
            "dataset.samples_per_class=1001: class 2 has 6000 samples for 6 participants, allowed "
            "is 1 to 1000",
        ),
        (
            ["attack.uneven_shares=false"],
            "attack.poisoned_samples=31: not divisible by attack.num_attackers=2; allowed are "
            "multiples such as 30 and 32, or any number with attack.uneven_shares=true",
        ),
        (["model.shrink=pool"], "model: shrink = 'pool' must be 'stride' or 'max_pool'"),
        (
            ["model.channels=[4,4,4,4,4]", "model.shrink=max_pool"],
            "model: channels = [4, 4, 4, 4, 4]: 5 times max_pool leave nothing of 28 pixels",
        ),
    ],
)
def test_check_names_what_is_wrong(overrides: list[str], message: str) -> None:
    assert refusal(make(*overrides)) == message


@pytest.mark.parametrize("attackers", [0, 2])
def test_a_trigger_outside_the_images_is_named(attackers: int) -> None:
    overrides = ["attack.pattern=[[28,0]]", f"attack.num_attackers={attackers}"]
    assert refusal(make(*overrides, base=BACKDOOR)) == (
        "attack.pattern=[[28, 0]]: allowed are [row, column] pixels, [0, 0] to [27, 27], one or "
        "more"
    )


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_an_absent_device_is_named(device: str) -> None:
    message = refusal(make(f"training.device='{device}'"))
    assert message.startswith(f"training.device={device}: allowed is what torch finds here (")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack.source=5"], r"attack\.source=5: allowed are the classes of the data, 2, 6"),
        (["attack.target=5"], r"attack\.target=5: allowed are the classes of the data, 2, 6"),
        (["attack.num_attackers=3"], r"attack\.num_attackers=3: allowed are 0 to 2 of 6 clients"),
        (["attack.roster=last"], r"attack\.roster=last: allowed are first, random"),
    ],
)
def test_a_bad_attack_is_refused_at_once(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as error:
        make(*overrides)
    assert "\n" not in str(error.value)


def test_objects_of_the_wrong_kind_are_named() -> None:
    config = make_config()
    config.attack = {"_target_": "torch.nn.Identity"}
    with pytest.raises(UserError, match=r"attack._target_=torch.nn.Identity: allowed are Attack"):
        Federation(config)
    config = make_config()
    config.model = {"_target_": "builtins.dict"}
    with pytest.raises(UserError, match=r"model._target_=builtins.dict: allowed are Module"):
        Federation(config).initial_state()


def test_too_many_test_samples() -> None:
    with pytest.raises(UserError) as error:
        make("dataset.test_samples_per_class=1001").test_set()
    assert str(error.value) == (
        "dataset.test_samples_per_class=1001: allowed are 1 to 1000, the test samples of class 2"
    )


@pytest.mark.parametrize("base", [SMALL, BACKDOOR])
def test_a_process_that_gets_the_config_as_json_builds_the_same(base: tuple[str, ...]) -> None:
    config = make_config("seed=3", "attack.roster=random", base=base)
    mine, theirs = Federation(config), module._federation(json.dumps(asdict(config)))
    assert theirs.config == config
    assert theirs.attackers == mine.attackers
    assert theirs.attack == mine.attack
    for number in range(6):
        assert same_data(mine.client(number), theirs.client(number))
    assert all(map(torch.equal, mine.initial_state().values(), theirs.initial_state().values()))


def test_the_client_app_plays_the_client_of_its_partition(
    train_message: Callable[..., Message],
) -> None:
    config = make_config()
    app, federation = make_client_app(config), Federation(config)
    arrays = ArrayRecord(federation.initial_state())
    for number in (0, 5):
        node = Context(1, 7, {"partition-id": number}, RecordDict(), {})
        question = Message(RecordDict(), 7, "query")
        enrolment = {
            "partition-id": number,
            "attacker": number in federation.attackers,
            "data": "MNIST stand-in",
        }
        assert app(question, node).content["enrolment"] == ConfigRecord(enrolment)
        for clean in (False, True):
            message = train_message(arrays, 2)
            message.content["config"][CLEAN_TWIN] = clean  # type: ignore[index]
            client = federation.client(number, clean=clean)
            expected = client.train(train_message(arrays, 2), node).content["arrays"]
            assert app(message, node).content["arrays"] == expected
