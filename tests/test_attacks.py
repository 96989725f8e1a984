"""Tests of `fl_backdoor.attacks`: the roster, the shares, and what bad input says."""

from typing import Any

import pytest
import torch
from fl_backdoor.federation.attacks import Attack, Backdoor, LabelFlipping
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients import BackdoorClient, LabelFlippingClient
from fl_backdoor.errors import UserError


def flipping(**options: Any) -> LabelFlipping:
    values = {"num_attackers": 3, "source": 6, "target": 2, "poisoned_samples": 300}
    return LabelFlipping(**values | options)


def backdoor(**options: Any) -> Backdoor:
    return Backdoor(**{"num_attackers": 3, "target": 2} | options)


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
    attack = backdoor(num_attackers=number, roster=roster, allow_over_third=over)
    drawn = attack.attackers(clients, seed)
    assert len(drawn) == number
    assert list(drawn) == sorted(set(drawn) & set(range(clients)))
    assert drawn == attack.attackers(clients, seed)
    if roster == "first":
        assert drawn == tuple(range(number))


def test_every_client_can_be_drawn() -> None:
    rosters = {backdoor(roster="random").attackers(10, seed) for seed in range(40)}
    assert len(rosters) > 25
    assert set().union(*rosters) == set(range(10))


@given(samples=st.integers(0, 3000), attackers=st.integers(1, 40))
def test_shares_sum_to_s_and_differ_by_one_at_most(samples: int, attackers: int) -> None:
    attack = flipping(poisoned_samples=samples, num_attackers=attackers, uneven_shares=True)
    shares = attack.shares()
    assert len(shares) == attackers
    assert sum(shares) == samples
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
    if samples % attackers == 0:
        even = flipping(poisoned_samples=samples, num_attackers=attackers)
        assert even.shares() == [samples // attackers] * attackers


def test_shares_golden() -> None:
    """The paper's 500 samples on 3 attackers; replaced samples need no pool."""
    attack = flipping(poisoned_samples=500, uneven_shares=True)
    assert attack.shares() == attack.pool_shares() == [167, 167, 166]
    assert flipping(poisoning="replace").pool_shares() == [0, 0, 0]
    assert flipping(num_attackers=0, poisoned_samples=0).shares() == []
    assert backdoor().pool_shares() == [0, 0, 0]


def test_goals() -> None:
    assert flipping().goal_digits() == {"source": 6, "target": 2}
    assert flipping().pool_digit() == 6
    assert backdoor().goal_digits() == {"target": 2}
    assert backdoor().pool_digit() is None


def test_victims_are_counted_by_the_place_of_their_digit() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])
    digits = [6, 2, 5]
    assert flipping().victims(labels, digits).tolist() == [True, False, False, False, True]
    assert backdoor().victims(labels, digits).tolist() == [True, False, True, False, True]


def test_only_the_backdoor_has_a_trigger() -> None:
    images = torch.zeros(2, 1, 28, 28)
    assert flipping().triggered(images) is None
    stamped = backdoor(pattern=[[0, 1], [27, 3]]).triggered(images)
    assert stamped[1, 0].nonzero().tolist() == [[0, 1], [27, 3]]
    assert images.sum() == 0


def test_clients_get_labels_and_share() -> None:
    model, digits = nn.Linear(1, 1), [2, 6]
    images, labels, pool = torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 1, 1]), torch.ones(2, 1)
    training = {"seed": 3, "partition": 1}
    adding = flipping(poisoned_samples=6).client(
        1, model, images, labels, pool[..., None, None].expand(2, 1, 28, 28), digits, **training
    )
    assert isinstance(adding, LabelFlippingClient)
    assert (adding.source, adding.target, adding.seed, adding.partition) == (1, 0, 3, 1)
    assert adding.labels.tolist() == [0, 1, 1, 1, 0, 0]
    replacing = flipping(poisoned_samples=6, poisoning="replace").client(
        1, model, images, labels, pool, digits
    )
    assert replacing.labels.sum() == 1
    stamping = backdoor(fraction=1.0, replacement=3.0, max_norm=2.0).client(
        1, model, images, labels, pool, digits
    )
    assert isinstance(stamping, BackdoorClient)
    assert (stamping.target, stamping.replacement, stamping.max_norm) == (0, 3.0, 2.0)
    assert stamping.labels.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (flipping, {"target": 6}, "attack.target=6: must differ from attack.source"),
        (flipping, {"poisoning": "mix"}, "attack.poisoning=mix: allowed are add, replace"),
        (
            flipping,
            {"poisoned_samples": 500},
            "attack.poisoned_samples=500: not divisible by attack.num_attackers=3; allowed are "
            "multiples such as 498 and 501, or any number with attack.uneven_shares=true",
        ),
        (
            flipping,
            {"poisoned_samples": -3},
            "attack.poisoned_samples=-3: allowed is 0 or more",
        ),
        (backdoor, {"fraction": 0.0}, "attack.fraction=0.0: allowed is more than 0, at most 1"),
        (backdoor, {"fraction": 1.5}, "attack.fraction=1.5: allowed is more than 0, at most 1"),
        (
            backdoor,
            {"replacement": -1.0},
            "attack.replacement=-1.0: allowed is null or a finite number > 0",
        ),
        (
            backdoor,
            {"max_norm": float("nan")},
            "attack.max_norm=nan: allowed is null or a finite number > 0",
        ),
        *(
            (
                backdoor,
                {"pattern": pattern},
                f"attack.pattern={pattern}: allowed are [row, column] pixels, [0, 0] to [27, 27], "
                "one or more",
            )
            for pattern in ([], [[0]], [[0, 0], [28, 0]], [[0, -1]], [[1, 2, 3]])
        ),
    ],
)
def test_bad_values_are_named_in_one_line(build: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("attack", "clients", "message"),
    [
        (
            backdoor(num_attackers=4),
            10,
            "attack.num_attackers=4: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
        (
            backdoor(num_attackers=5, allow_over_third=True),
            4,
            "attack.num_attackers=5: allowed are 0 to 4 of 4 clients "
            "(attack.allow_over_third=True)",
        ),
        (
            backdoor(num_attackers=-1),
            10,
            "attack.num_attackers=-1: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
        (backdoor(roster="last"), 10, "attack.roster=last: allowed are first, random"),
    ],
)
def test_bad_rosters_are_named_in_one_line(attack: Attack, clients: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        attack.attackers(clients, seed=0)
    assert str(error.value) == message


def test_too_few_own_samples_to_replace() -> None:
    attack = flipping(poisoned_samples=9, poisoning="replace")
    images, labels = torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 1, 0])
    with pytest.raises(UserError) as error:
        attack.client(2, nn.Linear(1, 1), images, labels, images[:0], [2, 6])
    assert str(error.value) == (
        "attack.poisoned_samples=9: attacker 2 would flip 3 of its own source samples but holds 2; "
        "allowed is less, or attack.poisoning=add"
    )


def test_without_attackers_nothing_is_poisoned() -> None:
    """So that a sweep of attack.num_attackers can start at 0."""
    attack = LabelFlipping(num_attackers=0, source=6, target=2, poisoned_samples=500)
    assert attack.attackers(10, seed=0) == ()
    assert attack.shares() == attack.pool_shares() == []
