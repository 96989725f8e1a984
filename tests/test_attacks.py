"""Tests of attacks as hooks, of the roster, and of attacks built from a configuration."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clients import (
    Attack,
    Backdoor,
    Goal,
    HonestClient,
    LabelFlipping,
    MaliciousClient,
    ModelReplacement,
    NormProjection,
    Seat,
)
from clients.attacker import Update, knowledge
from clients.memory import give_attack_memory, take_attack_memory
from fl_backdoor.errors import UserError
from fl_backdoor.federation.attackers import build_attack, describe, in_full
from fl_backdoor.federation.roster import Roster, build_roster

from .test_experiment import tiny

DIGITS = ["2", "6"]
IMAGES = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 2


def flipping(**options: Any) -> dict[str, Any]:
    values = {"source": 6, "target": 2, "poisoned_samples": 300, "num_attackers": 3}
    return {"_target_": "clients.LabelFlipping"} | values | options


def backdoor(**options: Any) -> dict[str, Any]:
    return {"_target_": "clients.Backdoor", "target": 2, "num_attackers": 3} | options


def build(node: dict[str, Any]) -> Attack:
    return build_attack(node, DIGITS)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    return str(error.value)


# Who attacks.


@given(
    clients=st.integers(1, 100),
    over=st.booleans(),
    roster=st.sampled_from(["first", "random"]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_roster_is_of_p_clients_ascending(
    clients: int, over: bool, roster: str, seed: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, clients if over else clients // 3))
    drawn = Roster(num_attackers=number, roster=roster, allow_over_third=over)
    attackers = drawn.draw(clients, seed)
    assert len(attackers) == number
    assert list(attackers) == sorted(set(attackers) & set(range(clients)))
    assert attackers == drawn.draw(clients, seed)
    if roster == "first":
        assert attackers == tuple(range(number))


def test_every_client_can_be_drawn() -> None:
    rosters = {Roster(num_attackers=3, roster="random").draw(10, seed) for seed in range(40)}
    assert len(rosters) > 25
    assert set().union(*rosters) == set(range(10))


@pytest.mark.parametrize(
    ("options", "clients", "message"),
    [
        (
            {"num_attackers": 4},
            10,
            "attack.num_attackers=4: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
        (
            {"num_attackers": 5, "allow_over_third": True},
            4,
            "attack.num_attackers=5: allowed are 0 to 4 of 4 clients "
            "(attack.allow_over_third=True)",
        ),
        (
            {"num_attackers": -1},
            10,
            "attack.num_attackers=-1: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
        (
            {"roster": "last"},
            10,
            "attack.roster=last: allowed are first, random, or a list of clients",
        ),
    ],
)
def test_bad_rosters_are_named_in_one_line(options: Any, clients: int, message: str) -> None:
    assert refusal(lambda: Roster(**options).draw(clients, seed=0)) == message


# Label flipping and backdoor.


@given(samples=st.integers(0, 3000), attackers=st.integers(1, 40))
def test_shares_sum_to_s_and_differ_by_one_at_most(samples: int, attackers: int) -> None:
    attack = LabelFlipping(source=0, target=1, poisoned_samples=samples, uneven_shares=True)
    seats = [Seat(rank=rank, attackers=attackers) for rank in range(attackers)]
    parts = [attack.part(samples, seat) for seat in seats]
    assert [sample for part in parts for sample in part] == list(range(samples))
    shares = [len(part) for part in parts]
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
    if samples % attackers == 0:
        even = LabelFlipping(source=0, target=1, poisoned_samples=samples)
        assert [even.part(samples, seat) for seat in seats] == parts


@given(samples=st.integers(0, 30), attackers=st.integers(1, 6))
def test_attackers_share_what_nobody_holds(samples: int, attackers: int) -> None:
    attack = LabelFlipping(source=0, target=1, poisoned_samples=samples, uneven_shares=True)
    pool = torch.arange(30.0)
    asked: list[int] = []

    def spare(label: int) -> Tensor:
        asked.append(label)
        return pool

    added = []
    for rank in range(attackers):
        seat = Seat(rank=rank, attackers=attackers, spare=spare)
        inputs, labels = attack.poison(torch.zeros(1), torch.tensor([0]), seat)
        added.append(inputs[1:])
        assert labels.tolist() == [0] + [1] * len(added[-1])
    assert torch.equal(torch.cat(added), pool[:samples])
    assert set(asked) == ({0} if samples else set())


def test_goals() -> None:
    """The places of 6 and 2 among the digits; what was given is not changed."""
    labels, images = torch.tensor([0, 1, 2, 1, 0]), torch.zeros(2, 1, 28, 28)
    node = flipping(source=2, target=5)
    goal = build_attack(node, ["6", "2", "5"]).goal
    assert goal == Goal(target=2, source=1)
    assert node["source"] == 2
    assert goal.victims(labels).tolist() == [False, True, False, True, False]
    assert goal.trigger(images, {}) is None
    goal = build(backdoor(target=6, pattern=[[0, 1], [27, 3]])).goal
    assert goal is not None
    assert goal.target == 1
    assert goal.victims(labels).tolist() == [True, False, True, False, True]
    stamped = goal.trigger(images, {})
    assert stamped is not None
    assert stamped[1, 0].nonzero().tolist() == [[0, 1], [27, 3]]
    assert images.sum() == 0


# Attacks from a configuration.


def test_replacement_and_max_norm_are_attacks_around() -> None:
    attack = build(backdoor(fraction=1.0, replacement=3, max_norm=2.0))
    assert attack == NormProjection(
        max_norm=2.0, data=ModelReplacement(factor=3, data=Backdoor(target=0, fraction=1.0))
    )
    assert build(backdoor(replacement=None, max_norm=None)) == Backdoor(target=0)
    assert attack.goal is not None
    assert attack.goal.target == 0
    assert build_roster(backdoor()).num_attackers == 3
    nested = {"_target_": "clients.ModelReplacement", "factor": 3.0, "data": flipping(max_norm=1)}
    assert build(nested) == ModelReplacement(
        factor=3.0,
        data=NormProjection(
            max_norm=1,
            data=LabelFlipping(source=1, target=0, poisoned_samples=300, num_classes=2),
        ),
    )


def test_nests_come_from_the_command_line() -> None:
    replaced = "attack@attack.data=label_flipping"
    for overrides, expected in [
        (["attack=model_replacement"], ["Backdoor", "ModelReplacement"]),
        (["attack=model_replacement", replaced], ["LabelFlipping", "ModelReplacement"]),
        (["attack=norm_projection"], ["Backdoor", "ModelReplacement", "NormProjection"]),
        (["attack=norm_projection", replaced], ["LabelFlipping", "NormProjection"]),
        (
            ["attack=label_flipping", "+attack.max_norm=2", "+attack.replacement=3"],
            ["LabelFlipping", "ModelReplacement", "NormProjection"],
        ),
    ]:
        config = tiny(*overrides, "attack.num_attackers=2")
        attack = build_attack(config.attack, [str(digit) for digit in config.dataset["digits"]])
        assert [type(layer).__name__ for layer in attack.layers()] == expected
        assert build_roster(config.attack) == Roster(num_attackers=2)
    config = tiny("attack=norm_projection", "attack.data.data.num_attackers=1")
    assert build_roster(config.attack) == Roster(num_attackers=1)


def test_nobody_attacks_in_either_protocol() -> None:
    node = {"_target_": "fl_backdoor.federation.vertical_attacks.NoAttack", "target": "0"}
    assert build(node) == Attack()
    assert build(node).goal is None
    assert build_roster(node).draw(10, 0) == ()


def test_descriptions_name_each_attack_and_its_settings() -> None:
    pattern = [[0, 1], [2, 3], [4, 5]]
    node = {
        "_target_": "clients.ModelReplacement",
        "factor": 3.0,
        "num_attackers": 3,
        "data": backdoor(pattern=pattern, max_norm=None),
    }
    expected = "ModelReplacement (factor 3.0) around Backdoor (target 2), trigger: 3 white pixels"
    assert describe(node, build(node)) == expected
    assert describe(flipping(), build(flipping())) == (
        "LabelFlipping (source 6, target 2, poisoned_samples 300)"
    )


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (flipping(target=6), "attack.target=6: must differ from attack.source=6"),
        (flipping(source=5), "attack.source=5: allowed are the classes of the data, 2, 6"),
        (flipping(poisoning="mix"), "attack.poisoning=mix: allowed are add, replace, fill, copy"),
        (flipping(poisoned_samples=-3), "attack.poisoned_samples=-3: allowed is 0 or more"),
        (
            flipping(sauce=1),
            "attack.sauce: unknown key; allowed are allow_over_third, data, kind, learning_rate, "
            "max_norm, num_attackers, num_classes, poisoned_epochs, poisoned_samples, poisoning, "
            "replacement, roster, roster_seed, schedule, share, source, target, uneven_shares",
        ),
        (backdoor(fraction=0.0), "attack.fraction=0.0: allowed is more than 0, at most 1"),
        (backdoor(fraction=1.5), "attack.fraction=1.5: allowed is more than 0, at most 1"),
        (
            backdoor(replacement=-1.0),
            "attack.replacement=-1.0: allowed is null or a finite number > 0",
        ),
        (
            backdoor(max_norm=float("nan")),
            "attack.max_norm=nan: allowed is null or a finite number > 0",
        ),
        (backdoor(max_norm="so"), "attack.max_norm=so: allowed is null or a finite number > 0"),
        (
            {"_target_": "clients.ModelReplacement", "factor": 2.0, "data": backdoor(fraction=2)},
            "attack.data.fraction=2.0: allowed is more than 0, at most 1",
        ),
        (
            {"_target_": "clients.ModelReplacement", "factor": -2.0},
            "attack.factor=-2.0: allowed is a finite number > 0, or null",
        ),
    ],
)
def test_bad_values_are_named_in_one_line(node: Any, message: str) -> None:
    assert refusal(lambda: build(node)) == message


@pytest.mark.parametrize(
    ("node", "seat", "message"),
    [
        (
            flipping(poisoned_samples=500, uneven_shares=False),
            Seat(attackers=3),
            "attack.poisoned_samples=500: not divisible by attack.num_attackers=3; allowed are "
            "multiples such as 498 and 501, or any number with attack.uneven_shares=true",
        ),
        (
            flipping(poisoned_samples=9, poisoning="replace"),
            Seat(attackers=3, rank=2),
            "attack.poisoned_samples=9: attacker 2 would flip 3 of its own source samples but "
            "holds 2; allowed is less, or attack.poisoning=add",
        ),
        (
            flipping(poisoned_samples=3, poisoning="copy"),
            Seat(attackers=1),
            "attack.poisoned_samples=3: attacker 0 would flip 3 of its own source samples but "
            "holds 2; allowed is less, or attack.poisoning=add",
        ),
        (
            flipping(poisoned_samples=3, poisoning="fill"),
            Seat(attackers=1),
            "attack.poisoned_samples=3: allowed are 0 to 0, the samples of the source that no "
            "participant holds; with attack.poisoning=replace attackers flip their own",
        ),
        (
            {"_target_": "clients.ModelReplacement", "factor": 2.0, "data": flipping()},
            Seat(attackers=3),
            "attack.data.poisoned_samples=300: allowed are 0 to 0, the samples of the source that "
            "no participant holds; with poisoning=replace attackers flip their own",
        ),
        *(
            (
                backdoor(pattern=pattern),
                Seat(),
                f"attack.pattern={pattern}: allowed are [row, column] pixels, [0, 0] to [27, 27], "
                "one or more",
            )
            for pattern in ([], [[0]], [[0, 0], [28, 0]], [[0, -1]], [[1, 2, 3]])
        ),
    ],
)
def test_what_the_data_do_not_allow_is_named_in_one_line(
    node: Any, seat: Seat, message: str
) -> None:
    (poison,) = build(node).hooks("poison")
    with pytest.raises(ValueError, match="=") as error:
        poison(torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 1, 0]), seat)
    assert str(in_full(error.value, node, "attack", DIGITS)) == message


# Hooks.


def network() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.constant_(model[1].weight, 0.1)  # type: ignore[arg-type]
    nn.init.zeros_(model[1].bias)  # type: ignore[arg-type]
    return model


class Said(Attack):
    """Writes down which of its hooks are called."""

    def __init__(self, name: str, said: list[Any], data: Attack | None = None) -> None:
        super().__init__(data=data)
        self.name, self.said = name, said

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        self.said.append(("poison", self.name, seat.round))
        return inputs + 1, labels

    def loss(self, model: nn.Module, inputs: Tensor, labels: Tensor, seat: Seat) -> Tensor:
        self.said.append(("loss", self.name, seat.round))
        return super().loss(model, inputs, labels, seat) * 2

    def project(self, gradients: dict[str, Tensor], seat: Seat) -> None:
        self.said.append(("project", self.name, seat.round))
        assert seat.scratch.setdefault("round", seat.round) == seat.round
        gradients["1.weight"] = gradients["1.weight"] * 0

    def constrain(self, parameters: dict[str, Tensor], seat: Seat) -> None:
        self.said.append(("constrain", self.name, seat.round))
        assert torch.equal(parameters["1.weight"], seat.received["1.weight"])
        parameters["1.bias"].copy_(seat.received["1.bias"] + 1)

    def craft(self, update: Update, seat: Seat) -> Update:
        self.said.append(("craft", self.name, seat.round))
        return update | {"1.bias": update["1.bias"] + 1}


def attacker(attack: Attack, **training: Any) -> MaliciousClient:
    return MaliciousClient(network(), IMAGES, LABELS, attack=attack, **training)


def context() -> Context:
    return Context(1, 1, {}, RecordDict(), {})


def test_the_attack_carried_goes_first_in_every_hook(
    train_message: Callable[..., Message],
) -> None:
    said: list[Any] = []
    one = attacker(Said("outer", said, Said("inner", said)), batch_size=20, weight_decay=0.0)
    assert said == [("poison", "inner", 0), ("poison", "outer", 0)]
    assert torch.equal(one.images, IMAGES + 1 + 1)
    said.clear()
    plain = HonestClient(network(), IMAGES + 2, LABELS, batch_size=20)
    message = train_message(ArrayRecord(network().state_dict()), 3)
    reply = one.train(message, context()).content
    inner_first = ["inner", "outer"]
    assert said == [
        *(("loss", name, 3) for name in reversed(inner_first)),  # the outer asks the inner's
        *((hook, name, 3) for hook in ("project", "constrain", "craft") for name in inner_first),
    ]
    assert reply["metrics"]["train-loss"] == pytest.approx(4 * plain.fit(3))  # type: ignore[index]
    sent = reply["arrays"].to_torch_state_dict()  # type: ignore[union-attr]
    assert torch.equal(sent["1.weight"], network()[1].weight)  # type: ignore[index]
    assert sent["1.bias"].tolist() == [3.0, 3.0]
    one.train(train_message(ArrayRecord(network().state_dict()), 4), context())
    assert one.seat.scratch == {"round": 4}


def test_an_attack_without_hooks_is_an_honest_client(train_message: Callable[..., Message]) -> None:
    message = train_message(ArrayRecord(network().state_dict()), 2)
    one, honest = attacker(Attack(data=Attack())), HonestClient(network(), IMAGES, LABELS)
    assert one.hooks() == {}
    replies = [client.train(message, context()).content["arrays"] for client in (one, honest)]
    assert replies[0] == replies[1]
    assert one.attack.goal is None


def test_the_most_that_a_nest_knows() -> None:
    class Some(Attack):
        knowledge = "attackers"

    class All(Attack):
        knowledge = "all"

    assert knowledge(Attack(data=Attack())) == "own"
    assert knowledge(Attack(data=Some())) == "attackers"
    assert knowledge(Some(data=All())) == knowledge(All(data=Some())) == "all"


class Learned(Attack):
    """Learns a trigger in every round from the model that arrived, and remembers it."""

    each_round = True

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        assert seat.round > 0
        before = seat.memory.get("trigger", np.zeros(1))
        bias = seat.received["1.bias"].numpy()[:1]
        seat.memory["trigger"] = before + bias + 1
        return inputs + float(seat.memory["trigger"][0]), labels


def test_data_are_remade_when_the_attack_says_so(train_message: Callable[..., Message]) -> None:
    one, node = attacker(Learned()), context()
    assert torch.equal(one.images, IMAGES)
    state = network().state_dict()
    for number, trigger in ((1, 1.0), (2, 2.0)):
        reply = one.train(train_message(ArrayRecord(state), number), node)
        assert torch.equal(one.images, IMAGES + trigger)
        assert take_attack_memory(reply) is None  # nobody asked
    state["1.bias"] = torch.full((2,), 0.5)
    message = train_message(ArrayRecord(state), 3)
    give_attack_memory(message, {})
    # Another process: what it knows comes from the node.
    reply = attacker(Learned()).train(message, node)
    memory = take_attack_memory(reply)
    assert memory is not None
    assert memory["trigger"].tolist() == [3.5]
    assert set(reply.content) == {"arrays", "metrics"}
    assert take_attack_memory(reply) is None


def test_memory_comes_back_with_a_message(train_message: Callable[..., Message]) -> None:
    message = train_message(ArrayRecord(network().state_dict()), 7)
    shared = message.content
    give_attack_memory(message, {"trigger": np.full(1, 9.0)})
    assert "attack-memory" not in shared  # other clients' messages may hold the same records
    one, node = attacker(Learned()), context()
    memory = take_attack_memory(one.train(message, node))
    assert memory is not None
    assert memory["trigger"].tolist() == [10.0]


@given(client=st.integers(0, 99), number=st.integers(0, 99), seed=st.integers(0, 2**40))
def test_a_seat_draws_as_its_client_does(client: int, number: int, seed: int) -> None:
    one = HonestClient(network(), IMAGES, LABELS, seed=seed, partition=client)
    seat = Seat(client=client, round=number, seed=seed)
    assert seat.round_seed == one.round_seed(number)
    assert seat.rng().random() == np.random.default_rng(one.round_seed(number)).random()
