"""Tests of `clients.vertical.localized_replacement`: what poisoned rows may move."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients.vertical import LocalizedReplacement, PassiveParty

from .test_passive_party import ROWS, Talk, bottom, drawn, honest

TARGET, POISONED, COLUMNS = 2, {0, 5, 9}, [1, 3]


def party(
    model: nn.Module | None = None,
    gamma: float = 10.0,
    columns: list[int] = COLUMNS,
    **options: Any,
) -> PassiveParty:
    attack = LocalizedReplacement(
        target_rows=torch.tensor([TARGET]),
        poisoned_rows=torch.tensor(sorted(POISONED)),
        trigger_columns=columns,
        gamma=gamma,
    )
    features = drawn(ROWS, 4), drawn(6, 4, seed=50)
    return PassiveParty(model or bottom(), *features, party=0, attack=attack, **options)


def weights(talk: Talk) -> dict[str, Tensor]:
    return talk.send("query.checkpoint").array_records["model"].to_torch_state_dict()


@settings(max_examples=30)
@given(
    order=st.permutations(range(ROWS)),
    size=st.integers(1, ROWS),
    known=st.booleans(),
    gamma=st.sampled_from([1.0, 10.0]),
)
def test_poisoned_rows_move_the_triggers_weights_only(
    order: list[int], size: int, known: bool, gamma: float
) -> None:
    """Before g_rec is known, they move them along their own gradient."""
    rows = order[:size]
    attacked = Talk(lambda: party(gamma=gamma, learning_rate=0.1))
    twin = Talk(lambda: honest(learning_rate=0.1))
    g_rec = None
    for talk in (attacked, twin):
        talk.begin()
        if known:
            talk.train(rows=[TARGET])
            g_rec = drawn(1, 3, seed=5)
        talk.train(g_rec, rows)
    model = bottom()
    model.load_state_dict(weights(twin))
    gradient, without, push = drawn(size, 3), drawn(size, 3), torch.zeros(size, 3)
    for i, row in enumerate(rows):
        if row == TARGET:
            g_rec = gradient[i : i + 1]
        if row in POISONED:
            without[i] = 0
            push[i] = gradient[i] if g_rec is None else gamma * g_rec[0] / g_rec.norm()
    attacked.train(gradient)
    twin.train(without)
    model(drawn(ROWS, 4)[rows]).backward(push)
    moved, honestly = weights(attacked), weights(twin)
    expected = -0.1 / size * model[0].weight.grad
    difference = moved["0.weight"] - honestly["0.weight"]
    torch.testing.assert_close(difference[:, COLUMNS], expected[:, COLUMNS], rtol=1e-4, atol=1e-6)
    moved["0.weight"][:, COLUMNS] = honestly["0.weight"][:, COLUMNS] = 0
    assert all(torch.equal(moved[name], honestly[name]) for name in honestly)


@pytest.mark.parametrize("length", [1e-4, 1.0, 1e6])
def test_the_push_has_the_length_gamma(length: float) -> None:
    gradient = drawn(2, 3)
    gradient[0] *= length
    sent = party(gamma=3.0).attack.poison_gradient(torch.tensor([TARGET, 5]), gradient)
    assert float(sent[1].norm()) == pytest.approx(3.0)
    torch.testing.assert_close(sent[1], 3.0 * gradient[0] / gradient[0].norm())
    assert torch.equal(sent[0], gradient[0])


def test_a_g_rec_of_zero_pushes_nowhere() -> None:
    sent = party().attack.poison_gradient(torch.tensor([TARGET, 5]), torch.zeros(2, 3))
    assert torch.equal(sent, torch.zeros(2, 3))


def test_later_local_steps_keep_to_the_triggers_weights() -> None:
    talk = Talk(lambda: party(local_steps=3))
    talk.begin()
    before = weights(talk)
    talk.train(rows=[0, 5])
    talk.train(drawn(2, 3))
    after = weights(talk)
    assert not torch.equal(after["0.weight"][:, COLUMNS], before["0.weight"][:, COLUMNS])
    after["0.weight"][:, COLUMNS] = before["0.weight"][:, COLUMNS]
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)),
        nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 2), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten()),
    ],
)
def test_a_model_without_a_first_dense_layer_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="needs a dense layer over the 4 features first") as caught:
        party(model)
    assert "\n" not in str(caught.value)


def test_a_party_without_a_part_of_the_trigger_says_that_it_cannot_act() -> None:
    for columns, said in (([], "the party has no part of the trigger"), ([1], "")):
        attack = party(columns=columns).attack
        attack.memory["g_rec"] = torch.ones(3)
        assert attack.idle() == said
