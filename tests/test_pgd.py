"""Tests of `clients.PGD`: every step ends in the ball, as a literal descent does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn
from torch.nn import functional

from clients import PGD, HonestClient, LabelFlipping, MaliciousClient, Seat
from clients.updates import centers, norm

from .test_attacks import IMAGES, LABELS, attacker, context, network

Train = Callable[..., Message]


def update(reply: Message, received: ArrayRecord) -> dict[str, Any]:
    trained = {n: a.numpy() for n, a in reply.content["arrays"].items()}  # type: ignore[union-attr]
    start = centers({n: a.numpy() for n, a in received.items()}, trained)
    return {name: trained[name] - center for name, center in start.items()}


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.2])
def test_what_is_sent_lies_in_the_ball(radius: float, train_message: Train) -> None:
    state = ArrayRecord(network().state_dict())
    options: dict[str, Any] = {"epochs": 5, "learning_rate": 0.5}
    free = HonestClient(network(), IMAGES, LABELS, **options).train(train_message(state), context())
    assert norm(update(free, state)) > 0.2
    reply = attacker(PGD(max_norm=radius), **options).train(train_message(state), context())
    assert norm(update(reply, state)) == pytest.approx(radius, rel=1e-4)  # on its surface


def test_steps_within_the_ball_are_those_of_anybody(train_message: Train) -> None:
    message = train_message(ArrayRecord(network().state_dict()))
    one, honest = attacker(PGD(max_norm=1e3)), HonestClient(network(), IMAGES, LABELS)
    replies = [client.train(message, context()).content["arrays"] for client in (one, honest)]
    assert replies[0] == replies[1]


def test_it_is_a_descent_with_a_projection_after_each_step(train_message: Train) -> None:
    """Written out for one batch a step, in float64; the finished update shortened is another."""
    radius, rate = 0.1, 0.5
    one = attacker(
        PGD(max_norm=radius), batch_size=20, epochs=6, learning_rate=rate, weight_decay=0.0
    )
    state = ArrayRecord(network().state_dict())
    sent = update(one.train(train_message(state), context()), state)
    model = network().double()
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(6):
        loss = functional.cross_entropy(model(IMAGES.double()), LABELS)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            moved = [
                p - rate * g - s
                for p, g, s in zip(model.parameters(), gradients, start, strict=True)
            ]
            length = float(torch.cat([m.flatten() for m in moved]).norm())
            for p, m, s in zip(model.parameters(), moved, start, strict=True):
                p.copy_(s + m * min(1.0, radius / length))
    expected = [(p - s).detach().numpy() for p, s in zip(model.parameters(), start, strict=True)]
    for ours, theirs in zip(sent.values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_statistics_are_no_part_of_the_ball(train_message: Train) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))
    state = ArrayRecord(model.state_dict())
    images: Tensor = 100 * IMAGES
    one = MaliciousClient(model, images, LABELS, attack=PGD(max_norm=0.05), batch_size=5)
    reply = one.train(train_message(state), context())
    assert norm(update(reply, state)) <= 0.05 * (1 + 1e-4)
    mean = reply.content["arrays"]["1.running_mean"].numpy()  # type: ignore[index]
    assert np.linalg.norm(mean) > 1


def test_it_carries_an_attack_on_data() -> None:
    flipping = LabelFlipping(source=1, target=0, poisoned_samples=4, poisoning="replace")
    attack = PGD(max_norm=1.0, data=flipping)
    assert attack.goal == flipping.goal
    assert len(attack.hooks("poison")) == len(attack.hooks("constrain")) == 1


def test_a_point_outside_becomes_the_nearest_of_the_ball() -> None:
    parameters = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor(5.0)}
    received = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor(1.0)}
    PGD(max_norm=2.5).constrain(parameters, Seat(received=received))
    torch.testing.assert_close(parameters["a"], torch.tensor([1.5, 1.0]))
    torch.testing.assert_close(parameters["b"], torch.tensor(3.0))


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_values_out_of_range(radius: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm={radius}: allowed is a number > 0"):
        PGD(max_norm=radius)
