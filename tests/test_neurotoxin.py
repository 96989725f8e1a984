"""Tests of `clients.Neurotoxin`: which coordinates are left alone, from the second round on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message
from hypothesis import given
from hypothesis import strategies as st

from clients import HonestClient, Neurotoxin, Seat
from clients.attacks.neurotoxin import heavy_hitters

from .test_attacks import IMAGES, LABELS, attacker, context, network

Train = Callable[..., Message]
RATIO = 0.2
MOVED = {"1.weight": [(0, 3), (1, 7), (0, 12), (1, 0), (1, 1), (1, 2)], "1.bias": [(1,)]}
"""The 7 of 34 coordinates that the global model moves most."""


def globals_of(rounds: int) -> list[ArrayRecord]:
    """Return global models; from one to the next a few coordinates move much, all a little."""
    models, state = [], {n: t.clone() for n, t in network().state_dict().items()}
    for number in range(rounds):
        models.append(ArrayRecord({name: tensor.clone() for name, tensor in state.items()}))
        for name, places in MOVED.items():
            state[name] += 0.001
            for place in places:
                state[name][place] += 0.1 * (-1) ** number
    return models


def mask(name: str) -> np.ndarray:
    expected = np.zeros(network().state_dict()[name].shape, dtype=bool)
    for place in MOVED[name]:
        expected[place] = True
    return expected


def sent(reply: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in reply.content["arrays"].items()}  # type: ignore[union-attr]


@given(
    shapes=st.lists(st.sampled_from([(), (3,), (2, 4), (1, 5)]), min_size=1, max_size=4),
    ratio=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_the_share_that_moved_most_is_marked_over_all_layers(
    shapes: list[tuple[int, ...]], ratio: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    change = {str(i): np.asarray(rng.normal(size=shape)) for i, shape in enumerate(shapes)}
    marked = heavy_hitters(change, ratio)
    places = [(abs(x), name, j) for name, a in change.items() for j, x in enumerate(a.ravel())]
    count = round(ratio * len(places))
    expected = {(name, j) for _, name, j in sorted(places, reverse=True)[:count]}
    found = {(name, j) for name, m in marked.items() for j in np.flatnonzero(m)}
    assert found == expected
    assert {name: m.shape for name, m in marked.items()} == {n: a.shape for n, a in change.items()}


def test_the_first_round_is_an_honest_one(train_message: Train) -> None:
    (model,) = globals_of(1)
    one, honest = attacker(Neurotoxin(ratio=RATIO)), HonestClient(network(), IMAGES, LABELS)
    replies = [client.train(train_message(model), context()) for client in (one, honest)]
    assert replies[0].content["arrays"] == replies[1].content["arrays"]


def test_where_the_global_model_has_not_moved_it_says_so_and_trains_as_it_would_without(
    train_message: Train,
) -> None:
    first, second = globals_of(2)
    one, honest, where = attacker(Neurotoxin()), HonestClient(network(), IMAGES, LABELS), context()
    for number, (model, idle) in enumerate([(first, 1), (first, 1), (second, 0), (second, 1)], 1):
        message = train_message(model, number)
        reply = one.train(message, where)
        assert ("attack-cannot-act" in reply.content) == idle
        same = reply.content["arrays"] == honest.train(message, context()).content["arrays"]
        assert same == idle


def test_marked_coordinates_have_no_gradient_and_do_not_move(train_message: Train) -> None:
    """The others do, all of them; with L2 regularization, which comes behind the gradient."""
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(Neurotoxin):
        def project(self, gradients: dict[str, torch.Tensor], seat: Seat) -> None:
            super().project(gradients, seat)
            seen.append(dict(gradients))

    one, where = attacker(Watched(ratio=RATIO), weight_decay=0.1), context()
    for number, model in enumerate(globals_of(3), 1):
        seen.clear()
        reply = sent(one.train(train_message(model, number), where))
        for name in MOVED if number > 1 else ():
            still = reply[name] == model[name].numpy()
            assert (still == mask(name)).all()
            for gradients in seen:
                assert (gradients[name][mask(name)] == 0).all()
        assert len(seen) == 2


def test_without_regularization_it_is_a_masked_descent(train_message: Train) -> None:
    first, second = globals_of(2)
    options: dict[str, Any] = {"batch_size": 20, "weight_decay": 0.0, "learning_rate": 0.5}
    one, where = attacker(Neurotoxin(ratio=RATIO), **options), context()
    one.train(train_message(first, 1), where)
    found = sent(one.train(train_message(second, 2), where))
    honest = sent(
        HonestClient(network(), IMAGES, LABELS, **options).train(
            train_message(second, 2), context()
        )
    )
    for name in MOVED:
        expected = np.where(mask(name), second[name].numpy(), honest[name])
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_another_process_remembers_the_last_global_model(train_message: Train) -> None:
    first, second, third = globals_of(3)

    def at(*rounds: tuple[int, ArrayRecord], where: Context) -> dict[str, np.ndarray]:
        one = attacker(Neurotoxin(ratio=RATIO))
        replies = [one.train(train_message(model, number), where) for number, model in rounds]
        return sent(replies[-1])

    here, there = context(), context()
    whole = at((1, first), (2, second), (3, third), where=here)
    at((1, first), (2, second), where=there)
    resumed = at((3, third), where=there)
    assert all((whole[name] == resumed[name]).all() for name in whole)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_values_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"ratio={ratio}: allowed is more than 0, less than 1"):
        Neurotoxin(ratio=ratio)
