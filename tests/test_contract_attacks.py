"""One contract for every horizontal yaml of ``conf/attack``: a new one is under it at once."""

import inspect
import re
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from clients import Adaptive, Attack, Colluding, HonestClient, MaliciousClient, Seat, View
from fl_backdoor.config import conf_directory
from fl_backdoor.errors import UserError
from fl_backdoor.federation.attackers import build_attack
from fl_backdoor.federation.roster import build_roster

from .test_config import class_of, names

CLASSES = [str(digit) for digit in range(10)]


def settings(name: str, *overrides: str) -> dict[str, Any]:
    return deepcopy(composed(name, *overrides))


@cache
def composed(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", [f"attack={name}", *overrides])
        node = OmegaConf.to_container(config.attack, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


NAMES = [n for n in names("attack") if n == "none" or issubclass(class_of("attack", n), Attack)]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def new(name: str) -> Attack:
    return build_attack(settings(name), CLASSES)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 5, stride=4), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    )


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(60, 1, 28, 28, generator=generator)
    return images, torch.arange(60) % 10


def spare(label: int) -> Tensor:
    return torch.rand(400, 1, 28, 28, generator=torch.Generator().manual_seed(label))


def client(name: str, rank: int = 0) -> MaliciousClient:
    options = {"spare": spare, "partition": rank, "batch_size": 20}
    seat = {"rank": rank, "attackers": 3, "clients_per_attacker": 10 / 3}
    return MaliciousClient(network(), *data(), attack=new(name), **seat, **options)


def message(number: int, model: ArrayRecord) -> Message:
    config = ConfigRecord({"server-round": number})
    return Message(RecordDict({"arrays": model, "config": config}), 1, "train")


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def played(player: HonestClient, where: Context, rounds: range) -> list[dict[str, np.ndarray]]:
    """Let a client answer messages that hold the same model."""
    model = ArrayRecord(network().state_dict())
    answers = []
    for number in rounds:
        reply = player.train(message(number, model), where)
        record = next(iter(reply.content.array_records.values()))
        answers.append({key: array.numpy() for key, array in record.items()})
    return answers


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_what_it_sends_is_finite_and_of_the_models_kind(name: str) -> None:
    (sent,) = played(client(name), context(), range(1, 2))
    state = network().state_dict()
    assert sent.keys() == state.keys()
    for key, value in state.items():
        assert (sent[key].shape, sent[key].dtype) == (tuple(value.shape), value.numpy().dtype)
        assert np.isfinite(sent[key]).all()
    assert (sent["1.running_var"] > 0).all()


def test_statistics_are_what_training_made_of_them(name: str) -> None:
    """Whatever it does to the update: a scaled variance may be negative."""
    attacker = client(name)
    (sent,) = played(attacker, context(), range(1, 2))
    for key, value in attacker.model.state_dict().items():
        if "running" in key or "num_batches" in key:
            assert np.array_equal(sent[key], value.numpy())


def test_the_same_seat_sends_the_same_bits(name: str) -> None:
    first, second = (played(client(name, rank=1), context(), range(1, 4)) for _ in range(2))
    assert all(map(same, first, second))


def test_its_memory_makes_another_process_go_on(name: str) -> None:
    whole = played(client(name), context(), range(1, 4))
    where = context()
    begun = played(client(name), where, range(1, 3))
    assert same(whole[1], begun[1])
    (resumed,) = played(client(name), where, range(3, 4))
    assert same(whole[2], resumed)


def test_who_has_nothing_to_poison_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Or refuses the data; one warning for all rounds, a mark on each reply."""
    attack, (images, _) = new(name), data()
    labels = torch.zeros(60, dtype=torch.int64).fill_(getattr(attack.goal, "target", 0))
    options = {"rank": 1, "attackers": 3, "clients_per_attacker": 3.0, "spare": spare}
    try:
        attacker = MaliciousClient(network(), images, labels, attack=attack, **options)
    except ValueError:
        return
    poisons, where, model = attack.hooks("poison"), context(), ArrayRecord(network().state_dict())
    replies = [attacker.train(message(number, model), where) for number in (1, 2)]
    if poisons and torch.equal(attacker.labels, labels) and torch.equal(attacker.images, images):
        assert all("attack-cannot-act" in reply.content for reply in replies)
        assert sum("it changes none of 60 samples" in text for text in caplog.messages) == 1


def test_it_leaves_the_data_that_it_was_given_alone(name: str) -> None:
    images, labels = data()
    before = images.clone(), labels.clone()
    MaliciousClient(network(), images, labels, attack=new(name), attackers=3, spare=spare)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_its_goal_names_victims_and_a_trigger_that_leaves_inputs_alone(name: str) -> None:
    goal = new(name).goal
    if goal is None:
        return
    images, labels = data()
    victims = goal.victims(labels)
    assert victims.any()
    assert not victims[labels == goal.target].any()
    before = images.clone()
    triggered = goal.trigger(images, {})
    assert torch.equal(images, before)
    assert triggered is None or triggered.shape == images.shape


def test_hooks_that_it_does_not_override_cost_nothing(name: str) -> None:
    attack = new(name)
    for hook in ("poison", "project", "constrain", "craft", "collude"):
        own = any(getattr(type(a), hook) is not getattr(Attack, hook) for a in attack.layers())
        assert bool(attack.hooks(hook)) == own
    assert attack.craft({}, Seat(clients_per_attacker=2)) == {} or attack.hooks("craft")


def agreed(attack: Attack, rows: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, View]:
    """Let five attackers agree on what to send; with knowledge of all, of twelve clients."""
    for layer in attack.layers():
        if isinstance(layer, Adaptive):
            layer.rule = lambda updates, **_: (updates.mean(axis=0), None, {})
    view = View(
        round=3,
        center=np.zeros(rows.shape[1]),
        own=rows[:5],
        honest=rows[5:] if attack.knowledge == "all" else None,
        asked=12,
        columns={"w": slice(0, rows.shape[1])},
        seed=0,
        memory={},
        clean=clean[:5],
    )
    return attack.collude(view), view


@pytest.mark.parametrize("knows", ["attackers", "all"])
def test_who_agrees_says_so_where_updates_leave_nothing_to_do(
    knows: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where they are equal, so that they have no spread, or all are 0; and never else."""
    attack = new(name)
    if not isinstance(attack, Colluding):
        return
    attack.knowledge = knows
    drawn, clean = np.random.default_rng(0).normal(0.3, 1.0, (2, 12, 40))
    for rows in (drawn, 0.1 + np.zeros((12, 40)), np.zeros((12, 40))):
        caplog.clear()
        sent, view = agreed(attack, rows, clean if rows is drawn else rows)
        idle = np.allclose(sent, view.own, rtol=1e-12, atol=0)
        said = [text for text in caplog.messages if "cannot act in round 3: " in text]
        assert view.notes.get("cannot-act") == (5 if idle else None)
        assert [text.partition(" ")[0] for text in said] == [type(attack).__name__] * idle
        assert not idle if rows is drawn else idle or rows.any()


def test_a_number_that_is_none_gives_one_line_that_names_it(name: str) -> None:
    node = settings(name)
    for key, value in node.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for wrong in (float("nan"), "much", -1.0e9):
            with pytest.raises(UserError) as caught:
                checked(node | {key: wrong})
            assert f"attack.{key}" in str(caught.value), (key, wrong)
            assert "\n" not in str(caught.value)


def checked(node: dict[str, Any]) -> None:
    build_roster(node).draw(10, 0)
    build_attack(node, CLASSES)


def test_its_class_names_its_paper(name: str) -> None:
    for layer in new(name).layers():
        if type(layer) is not Attack:
            text = (inspect.getmodule(type(layer)).__doc__ or "") + (type(layer).__doc__ or "")
            assert re.search(r"(et al\.| & \w+),? (19|20)\d\d", text)


def test_who_colludes_says_so_where_nobody_asks_them_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A `MaliciousClient` without `Colluders` sends what it trained."""
    one = client("alie")
    sent = ArrayRecord({n: Array(t.numpy()) for n, t in network().state_dict().items()})
    reply = one.train(message(1, sent), context())
    assert "attack-cannot-act" in reply.content
    assert "clients.Colluders" in caplog.text
