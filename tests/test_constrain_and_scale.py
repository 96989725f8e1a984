"""Tests of `clients.ConstrainAndScale`: the penalty has a gradient, and the update is scaled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch.nn import functional

from clients import ConstrainAndScale, ModelReplacement
from clients.attacks.constrain_and_scale import anomaly_loss
from clients.updates import norm

from .test_attacks import IMAGES, LABELS, attacker, context, network
from .test_pgd import update

Train = Callable[..., Message]
OPTIONS: dict[str, Any] = {"epochs": 5, "learning_rate": 0.5, "weight_decay": 0.0}


def test_the_anomaly_loss_is_the_squared_distance_with_its_gradient() -> None:
    model = network()
    received = {name: p.detach() - 0.25 for name, p in model.named_parameters()}
    loss = anomaly_loss(model, received)
    count = sum(p.numel() for p in model.parameters())
    assert loss.item() == pytest.approx(0.25**2 * count)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        torch.testing.assert_close(gradient, torch.full_like(gradient, 0.5))


def test_the_less_weight_classification_has_the_nearer_the_model_stays(
    train_message: Train,
) -> None:
    state = ArrayRecord(network().state_dict())
    lengths = []
    for alpha in (1.0, 0.6, 0.2):
        reply = attacker(ConstrainAndScale(factor=1.0, alpha=alpha), **OPTIONS).train(
            train_message(state), context()
        )
        lengths.append(norm(update(reply, state)))
    assert lengths[0] > 1.2 * lengths[1] > 1.4 * lengths[2] > 0


def test_with_all_weight_on_classification_it_is_model_replacement(train_message: Train) -> None:
    message = train_message(ArrayRecord(network().state_dict()))
    attacks = ConstrainAndScale(alpha=1, factor=3), ModelReplacement(factor=3)
    one, other = (attacker(a, **OPTIONS).train(message, context()).content for a in attacks)
    assert one["arrays"] == other["arrays"]


def test_it_is_a_descent_of_both_losses_that_is_scaled(train_message: Train) -> None:
    """Written out for one batch a step, in float64."""
    alpha, factor, rate = 0.4, 2.5, 0.3
    one = attacker(
        ConstrainAndScale(alpha=alpha, factor=factor),
        batch_size=20, epochs=4, learning_rate=rate, weight_decay=0.0,
    )  # fmt: skip
    state = ArrayRecord(network().state_dict())
    sent = update(one.train(train_message(state), context()), state)
    model = network().double()
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(4):
        loss = functional.cross_entropy(model(IMAGES.double()), LABELS)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g, s in zip(model.parameters(), gradients, start, strict=True):
                p -= rate * (alpha * g + (1 - alpha) * 2 * (p - s))
    for ours, p, s in zip(sent.values(), model.parameters(), start, strict=True):
        np.testing.assert_allclose(ours, factor * (p - s).detach().numpy(), atol=1e-6)


def test_values_out_of_range() -> None:
    for alpha in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"alpha={alpha}: allowed is more than 0, at most 1"):
            ConstrainAndScale(alpha=alpha)
    with pytest.raises(ValueError, match=r"factor=0\.0: allowed is a finite number > 0"):
        ConstrainAndScale(factor=0.0)
