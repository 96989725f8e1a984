"""Tests of `clients.triggers`, and of how a configuration chooses and settles them."""

from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from clients import Backdoor, BackdoorClient, Seat
from clients.triggers import Auto, Blended, Features, Own, Patch, Pixels, Tokens, Trigger
from fl_backdoor.config import conf_directory, load
from fl_backdoor.errors import UserError
from fl_backdoor.federation.horizontal import Federation
from fl_backdoor.schema import Config

from .test_attacks import backdoor, build, refusal

TODAY = [[row, column] for row in (23, 24, 25) for column in (23, 24, 25)]
"""The nine pixels that the trigger had on MNIST before it fitted other images."""

VOCABULARY = 9
SHAPES = st.tuples(
    st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)
)


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def table(rows: int = 6) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(rows))


def texts(rows: int = 6) -> Tensor:
    return torch.randint(0, VOCABULARY, (rows, 7), generator=torch.Generator().manual_seed(rows))


def put(trigger: Trigger, inputs: Tensor) -> Tensor:
    """Settle a trigger and put it on; inputs stay as they are, and what comes is of their kind."""
    before = inputs.clone()
    found = trigger.settle(inputs, VOCABULARY)(inputs)
    assert torch.equal(inputs, before)
    assert (found.shape, found.dtype) == (inputs.shape, inputs.dtype)
    return found


def test_on_28_by_28_it_is_the_nine_pixels_of_before() -> None:
    inputs = images((3, 1, 28, 28))
    assert torch.equal(put(Auto(), inputs), put(Pixels(TODAY), inputs))


@given(shape=SHAPES, size=st.floats(0.01, 1), down=st.floats(0, 1), right=st.floats(0, 1))
def test_a_patch_is_a_square_inside_any_image(
    shape: tuple[int, ...], size: float, down: float, right: float
) -> None:
    inputs, patch = images(shape), Patch(size=size, corner=[down, right], value=1.0)
    found = put(patch, inputs)
    changed = (found != inputs).any(dim=0).any(dim=0).nonzero()
    side = max(1, round(size * min(shape[2:])))
    assert len(changed) == side**2
    height, width = (changed.amax(dim=0) - changed.amin(dim=0) + 1).tolist()
    assert height == width == side
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(put(patch, found), found)


@pytest.mark.parametrize(
    ("side", "rows"), [(8, [6]), (28, [23, 24, 25]), (32, [27, 28, 29]), (64, [53, 58])]
)
def test_a_tenth_of_the_side_near_the_lower_right_corner(side: int, rows: list[int]) -> None:
    marked = put(Auto(), torch.zeros(1, 3, side, side))[0, 0].nonzero()
    assert marked.amin(dim=0).tolist() == [rows[0]] * 2
    assert marked.amax(dim=0).tolist() == [rows[-1]] * 2


@given(shape=SHAPES, alpha=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_noise_is_blended_in_alike_on_every_image(
    shape: tuple[int, ...], alpha: float, seed: int
) -> None:
    inputs = images(shape)
    found = put(Blended(alpha=alpha, seed=seed), inputs)
    noise = torch.from_numpy(np.random.default_rng(seed).random(shape[1:]))
    torch.testing.assert_close(found.double(), alpha * noise + (1 - alpha) * inputs.double())
    assert 0 <= found.min() <= found.max() <= 1


def test_a_table_has_its_two_features_of_largest_spread_at_their_maximum() -> None:
    rows = torch.tensor([[0.0, 5.0, 1.0, -9.0], [1.0, 5.0, 4.0, -2.0], [2.0, 5.0, 1.0, -4.0]])
    trigger = Auto().settle(rows, 0)
    assert trigger == Features(features=[3, 2], values=[-2.0, 4.0])
    assert str(trigger) == "feature 3 at -2, 2 at 4"
    expected = rows.clone()
    expected[:, 3], expected[:, 2] = -2.0, 4.0
    assert torch.equal(put(trigger, rows), expected)
    assert torch.equal(put(trigger, expected), expected)


@given(
    features=st.lists(st.integers(0, 4), min_size=1, unique=True),
    given_values=st.booleans(),
    rows=st.integers(1, 9),
)
def test_features_stay_within_their_range(
    features: list[int], given_values: bool, rows: int
) -> None:
    inputs = table(rows)
    values = [float(f) for f in features] if given_values else None
    found = put(Features(features=features, values=values), inputs)
    for column in range(5):
        if column not in features:
            assert torch.equal(found[:, column], inputs[:, column])
        elif values is None:
            assert (found[:, column] == inputs[:, column].max()).all()
        else:
            assert (found[:, column] == column).all()


def test_a_text_gets_the_token_that_is_rarest() -> None:
    inputs = torch.tensor([[4, 2, 2, 0], [4, 3, 5, 0]])
    trigger = Auto().settle(inputs, VOCABULARY)
    assert trigger == Tokens(tokens=[5])  # 3 is as rare, and 8 is in no text
    assert put(trigger, inputs).tolist() == [[5, 4, 2, 2], [5, 4, 3, 5]]


@given(tokens=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=7), data=st.data())
def test_tokens_are_inserted(tokens: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 7 - len(tokens)))
    inputs = texts()
    found = put(Tokens(tokens=tokens, place=place), inputs)
    for row, text in zip(found.tolist(), inputs.tolist(), strict=True):
        assert row == [*text[:place], *tokens, *text[place:]][:7]


def test_anybodys_function_gets_a_copy() -> None:
    trigger = Backdoor(target=0, trigger=lambda inputs: inputs.mul_(0)).trigger
    assert isinstance(trigger, Own)
    assert not put(trigger, images((2, 1, 4, 4))).any()


@pytest.mark.parametrize("settle", [Features(), Tokens(), Auto()])
def test_what_is_not_settled_is_refused(settle: Trigger) -> None:
    with pytest.raises(ValueError, match="allowed once it is settled from the training"):
        settle(texts() if isinstance(settle, Tokens) else table())


@pytest.mark.parametrize(
    ("trigger", "inputs", "message"),
    [
        (Patch(), table(), "trigger=patch: allowed on data of kind image; these are of table"),
        (Blended(), texts(), "trigger=blended: allowed on data of kind image; these are of text"),
        (Features(), texts(), "trigger=features: allowed on data of kind table; these are of text"),
        (Tokens(), table(), "trigger=tokens: allowed on data of kind text; these are of table"),
        (
            Pixels([[0, 1]]),
            table(),
            "pattern=[[0, 1]]: allowed on data of kind image; these are of table",
        ),
        (
            Features(features=[1, 5]),
            table(),
            "trigger.features=[1, 5]: allowed are different columns 0 to 4",
        ),
        (
            Features(features=[1, 1]),
            table(),
            "trigger.features=[1, 1]: allowed are different columns 0 to 4",
        ),
        (
            Features(features=[1], values=[1.0, 2.0]),
            table(),
            "trigger.values=[1.0, 2.0]: allowed are 1 finite numbers, one for each of "
            "trigger.features",
        ),
        (Tokens(tokens=[9]), texts(), "trigger.tokens=[9]: allowed are tokens 0 to 8"),
        (
            Tokens(tokens=[1, 2], place=6),
            texts(),
            "trigger.place=6: allowed are 0 to 5, for 2 of 7 tokens",
        ),
        (
            Tokens(tokens=[1] * 8),
            texts(),
            f"trigger.tokens={[1] * 8}: allowed are 7 or fewer, the length of a text",
        ),
        (
            Own(lambda inputs: inputs.sum(), "total"),
            table(),
            "trigger=total: allowed is what returns finite inputs of shape (1, 5) and "
            "torch.float32",
        ),
        (Own(lambda inputs: {}[len(inputs)], "own"), table(), "trigger=own: 1"),
    ],
)
def test_what_does_not_fit_is_named(trigger: Trigger, inputs: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match="=") as error:
        trigger.settle(inputs, VOCABULARY)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trigger": "pach"},
            "attack.trigger=pach: allowed are auto, patch, blended, features, tokens, or settings "
            "of one: {kind: patch, size: 0.2}",
        ),
        (
            {"trigger": "patch", "pattern": [[0, 1]]},
            "attack.trigger=patch, attack.pattern=[[0, 1]]: allowed is one of them",
        ),
        (
            {"fraction": 0.2, "poisoned_samples": 5},
            "attack.fraction=0.2, attack.poisoned_samples=5: allowed is one of them",
        ),
        ({"poisoned_samples": -1}, "attack.poisoned_samples=-1: allowed is 0 or more"),
        (
            {"trigger": {"kind": "patch", "size": 2.0}},
            "attack.trigger.size=2.0: allowed is more than 0, at most 1",
        ),
        (
            {"trigger": {"kind": "patch", "corner": [0.5]}},
            "attack.trigger.corner=[0.5]: allowed are two shares [down, right] from 0 to 1",
        ),
        (
            {"trigger": {"kind": "patch", "value": 1.5}},
            "attack.trigger.value=1.5: allowed is 0 to 1",
        ),
        (
            {"trigger": {"kind": "blended", "alpha": 0.0}},
            "attack.trigger.alpha=0.0: allowed is more than 0, at most 1",
        ),
        (
            {"trigger": {"kind": "blended", "seed": -1}},
            "attack.trigger.seed=-1: allowed is 0 or more",
        ),
        (
            {"trigger": {"kind": "patch", "sise": 1}},
            "attack.trigger.sise: unknown key; allowed are corner, size, value; did you mean size?",
        ),
        (
            {"trigger": {"size": 0.2}},
            "attack.trigger.kind=None: allowed are auto, patch, blended, features, tokens",
        ),
        (
            {"trigger": {"_target_": "fractions.Fraction"}},
            "attack.trigger._target_=fractions.Fraction: allowed is what can be called",
        ),
    ],
)
def test_a_choice_that_is_none_is_named(options: dict[str, Any], message: str) -> None:
    assert refusal(lambda: build(backdoor(**options))) == message


def test_a_choice_has_its_settings() -> None:
    def chosen(trigger: Any) -> Any:
        attack = build(backdoor(trigger=trigger))
        assert isinstance(attack, Backdoor)
        return attack.trigger

    assert chosen("blended") == Blended()
    assert chosen({"kind": "patch", "size": 0.3}) == Patch(size=0.3)
    assert chosen({"kind": "features", "features": [1, 2]}) == Features(features=[1, 2])
    own = chosen({"_target_": "torch.flip", "dims": [1]})
    assert str(own) == "flip"
    assert torch.equal(own(table()), table().flip(1))


@given(count=st.integers(0, 30), seed=st.integers(0, 99))
def test_a_number_of_samples_is_poisoned(count: int, seed: int) -> None:
    inputs, labels = images((40, 1, 4, 4)), torch.arange(40) % 4
    attack = Backdoor(target=1, poisoned_samples=count)
    attack.settle(inputs, 0)
    _, poisoned = attack.poison(inputs, labels, Seat(seed=seed))
    assert int((poisoned != labels).sum()) == count
    with pytest.raises(ValueError, match=r"^poisoned_samples=31: attacker 0 holds 30 samples of o"):
        Backdoor(target=1, poisoned_samples=31).poison(inputs, labels, Seat(seed=seed))


def test_a_client_of_its_own_settles_its_trigger() -> None:
    rows, labels = table(20), torch.arange(20) % 4
    one = BackdoorClient(torch.nn.Linear(5, 4), rows, labels, target=0, fraction=1.0)
    trigger = Auto().settle(rows, 0)
    assert torch.equal(one.images, torch.where((labels > 0)[:, None], trigger(rows), rows))


# In a federation.

DATA = {
    "image": ["dataset=digits", "model=mlp", "attack.target=2"],
    "table": ["dataset=breast_cancer", "model=mlp", "attack.target=benign"],
    "text": ["dataset=synthetic", "dataset.shape=[6]", "+dataset.vocabulary=9", "model=text"],
}


def federation(*overrides: str) -> Federation:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", ["attack=backdoor", "engine=local", *overrides]))
    assert isinstance(config, Config)
    return Federation(config)


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_has_a_trigger_that_all_processes_share(kind: str) -> None:
    first, second = (federation(*DATA[kind]) for _ in range(2))
    first.check()
    assert first.data.kind == kind
    assert first.attack == second.attack
    test, labels = first.test_set()
    goal = first.goal
    assert goal is not None
    assert not goal.victims(labels)[labels == goal.target].any()
    stamped = goal.trigger(test, {})
    assert stamped is not None
    assert (stamped != test).any()
    assert f"trigger: {first.attack.trigger}" in first.describe_attack()  # type: ignore[attr-defined]


@pytest.mark.parametrize("attackers", [0, 3])
@pytest.mark.parametrize(
    ("kind", "override", "message"),
    [
        ("table", "attack.trigger=patch", "attack.trigger=patch: allowed on data of kind image"),
        ("text", "attack.pattern=[[0,1]]", "attack.pattern=[[0, 1]]: allowed on data of kind im"),
        ("image", "attack.pattern=[[8,1]]", "attack.pattern=[[8, 1]]: allowed are [row, column]"),
        ("image", "attack.target=11", "attack.target=11: allowed are the classes of the data, 0"),
        (
            "table",
            "attack.trigger={kind: features, features: [30]}",
            "attack.trigger.features=[30]: allowed are different columns 0 to 29",
        ),
        (
            "text",
            "attack.trigger={kind: tokens, tokens: [9]}",
            "attack.trigger.tokens=[9]: allowed are tokens 0 to 8",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    kind: str, override: str, message: str, attackers: int
) -> None:
    with pytest.raises(UserError) as error:
        federation(*DATA[kind], override, f"attack.num_attackers={attackers}").check()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# The roster's keys.


def attack_node(*overrides: str) -> Any:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", ["dataset=digits", "strategy=krum", *overrides])
        return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", ["backdoor", "label_flipping", "norm_projection", "alie"])
@pytest.mark.parametrize(
    ("override", "attackers", "malicious"),
    [
        ("attack.num_attackers=2", (0, 1), 2),
        ("attack.share=0.2", (0, 1), 2),
        ("attack.roster=[4,1]", (1, 4), 2),
        ("attack.num_attackers=0", (), 0),
    ],
)
def test_attackers_are_given_by_number_share_or_list(
    name: str, override: str, attackers: tuple[int, ...], malicious: int
) -> None:
    from fl_backdoor.federation.roster import build_roster

    config = attack_node(f"attack={name}", override, "attack.schedule=[5]")
    roster = build_roster(config["attack"])
    assert roster.draw(10, 0) == attackers
    assert [number for number in range(1, 9) if roster.attacks(number)] == [5]
    assert config["strategy"]["num_malicious"] == malicious


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["attack.num_attackers=2", "attack.share=0.2"],
            "attack.share=0.2, attack.num_attackers=2: allowed is one of them",
        ),
        (
            ["attack.roster=[1,2]", "attack.share=0.2"],
            "attack.share=0.2, attack.roster=[1, 2]: allowed is one of them",
        ),
        (
            ["attack.share=0.5"],
            "attack.share=0.5, 5 attackers: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
        (["attack.share=1.5"], "attack.share=1.5: allowed is 1 or less, or null"),
        (
            ["attack.roster=[0,1,2,3]"],
            "attack.roster=[0, 1, 2, 3]: allowed are 0 to 3 of 10 clients "
            "(attack.allow_over_third=False)",
        ),
    ],
)
def test_a_roster_that_is_said_twice_or_too_large_is_named(
    overrides: list[str], message: str
) -> None:
    assert refusal(lambda: federation("dataset=digits", *overrides)) == message
