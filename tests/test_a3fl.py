"""Tests of `clients.A3FL`: the trigger improves its loss, travels, and is what is measured."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn
from torch.nn import functional

from clients import A3FL, MaliciousClient, Seat
from clients.attacks.a3fl import TRIGGER, trigger_loss
from clients.memory import give_attack_memory, take_attack_memory
from fl_backdoor.measure.answers import answers

from .test_attacks import context

SIZE, TARGET = 3, 2
IMAGES = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48) % 4


def network() -> nn.Module:
    torch.manual_seed(3)
    last = nn.Linear(144, 4)
    nn.init.normal_(last.weight, std=0.5)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), last)


def new(**options: Any) -> A3FL:
    return A3FL(**{"target": TARGET, "size": SIZE, "corner": [4, 1], "steps": 10, **options})


def patch(images: Tensor) -> Tensor:
    return images[..., 4:7, 1:4]


def learned(attack: A3FL, memory: dict[str, np.ndarray] | None = None) -> tuple[A3FL, Seat]:
    seat = Seat(round=1, model=network(), memory=memory or {})
    attack.poison(IMAGES, LABELS, seat)
    return attack, seat


def loss_on(model: nn.Module, attack: A3FL, memory: dict[str, np.ndarray]) -> float:
    """Return the loss of all samples read as the target, written out."""
    target = torch.full((len(IMAGES),), TARGET)
    with torch.no_grad():
        return float(functional.cross_entropy(model.eval()(attack.stamp(IMAGES, memory)), target))


def test_the_trigger_begins_in_grey_and_leaves_the_rest_alone() -> None:
    before = IMAGES.clone()
    stamped = new().stamp(IMAGES, {})
    assert torch.equal(before, IMAGES)
    assert (patch(stamped) == 0.5).all()
    patch(stamped).copy_(patch(IMAGES))
    assert torch.equal(stamped, IMAGES)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_trigger_improves_its_loss_from_round_to_round(weight: float) -> None:
    attack = new(adversarial_weight=weight)
    memory: dict[str, np.ndarray] = {}
    losses = [loss_on(network(), attack, memory)]
    for number in range(1, 4):
        attack.poison(IMAGES, LABELS, Seat(round=number, model=network(), memory=memory))
        losses.append(loss_on(network(), attack, memory))
        assert memory[TRIGGER].shape == (1, SIZE, SIZE)
        assert memory[TRIGGER].dtype == np.float32
        assert 0 <= memory[TRIGGER].min() <= memory[TRIGGER].max() <= 1
    assert losses[0] - 0.1 > losses[1] > losses[2] >= losses[3]


def test_the_loss_is_that_of_both_models() -> None:
    """Sample by sample, against softmax written out."""
    one, other = network().eval(), network().eval()
    nn.init.normal_(other[4].weight)  # type: ignore[arg-type]
    found = trigger_loss(one, other, 0.3, IMAGES[:5], TARGET).item()
    expected = 0.0
    for image in IMAGES[:5]:
        for model, weight in ((one, 1.0), (other, 0.3)):
            scores = model(image[None])[0].detach().double().exp()
            expected -= weight * float((scores[TARGET] / scores.sum()).log()) / 5
    assert found == pytest.approx(expected, rel=1e-5)


def test_where_the_loss_has_no_gradient_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Of the trigger: the model looks at none of its pixels."""
    for name, acts in (("kept", True), ("removed", False)):
        model, attack = network(), new(steps=2)
        if name == "removed":
            for parameter in model.parameters():
                nn.init.zeros_(parameter)
        seat = Seat(round=1, model=model)
        attack.poison(IMAGES, LABELS, seat)
        assert (seat.idle() == []) == acts
        assert ("does not depend on the trigger" in caplog.text) != acts


def test_a_step_is_along_the_sign_of_the_gradient() -> None:
    _, seat = learned(new(steps=1, adversarial_weight=0.0, step_size=0.03))
    trigger = torch.full((1, SIZE, SIZE), 0.5, requires_grad=True)
    stamped = IMAGES.clone()
    patch(stamped).copy_(trigger)
    loss = functional.cross_entropy(network().eval()(stamped), torch.full((48,), TARGET))
    (gradient,) = torch.autograd.grad(loss, trigger)
    expected = (trigger - 0.03 * gradient.sign()).detach().numpy()
    np.testing.assert_allclose(seat.memory[TRIGGER], expected, atol=1e-7)


def test_the_adversary_unlearns_the_trigger_and_the_model_stays() -> None:
    model, attack = network().eval(), new(adversarial_epochs=20)
    before = deepcopy(model.state_dict())
    stamped = attack.stamp(IMAGES, {})
    adversary, weight = attack.adapt(model, stamped, LABELS, Seat(round=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert 0 < weight < attack.adversarial_weight  # lambda_0 times a cosine
    right = [functional.cross_entropy(m(stamped), LABELS) for m in (model, adversary.eval())]
    assert right[1] < right[0]


def test_an_adversary_changes_what_is_learned() -> None:
    triggers = [
        learned(new(adversarial_weight=weight, adversarial_epochs=30, step_size=0.003))[1].memory
        for weight in (0.0, 100.0)
    ]
    assert (triggers[0][TRIGGER] != triggers[1][TRIGGER]).any()


def test_part_of_the_other_classes_is_stamped_with_what_was_learned() -> None:
    attack, seat = new(fraction=0.5), Seat(round=1, model=network())
    images, labels = attack.poison(IMAGES, LABELS, seat)
    relabelled = labels != LABELS
    assert relabelled.sum() == 18
    assert (labels[relabelled] == TARGET).all()
    assert (patch(images[relabelled]) == torch.from_numpy(seat.memory[TRIGGER])).all()
    assert torch.equal(images[~relabelled], IMAGES[~relabelled])


def test_it_travels_in_the_memory_and_the_measures_read_it(
    train_message: Callable[..., Message],
) -> None:
    one = MaliciousClient(network(), IMAGES, LABELS, attack=new(), batch_size=16)
    message = train_message(ArrayRecord(network().state_dict()))
    give_attack_memory(message, {})
    reply = one.train(message, context())
    memory = take_attack_memory(reply)
    assert memory is not None
    assert list(reply.content.array_records) == ["arrays"]
    trigger = memory[TRIGGER]
    assert (trigger != 0.5).any()
    goal = one.attack.goal
    assert goal is not None
    found = answers(one.model, IMAGES, LABELS, goal, memory, 4).attacked
    victims = IMAGES[LABELS != TARGET].clone()
    patch(victims).copy_(torch.from_numpy(trigger.copy()))
    with torch.inference_mode():
        torch.testing.assert_close(found, one.model.eval()(victims))


def test_the_image_decides_where_a_trigger_may_lie() -> None:
    message = r"^corner=\[6, 1\]: allowed are \[0, 0\] to \[5, 5\] for size=3$"
    with pytest.raises(ValueError, match=message):
        new(corner=[6, 1]).stamp(IMAGES, {})


@pytest.mark.parametrize("corner", [[], [1], [1, 2, 3]])
def test_a_corner_is_a_row_and_a_column(corner: list[int]) -> None:
    words = r"^corner=\[.*\]: allowed are two integers \[row, column\]$"
    with pytest.raises(ValueError, match=words):
        new(corner=corner)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("fraction", 0.0, "more than 0, at most 1"),
        ("size", 0, "1 or more"),
        ("steps", 0, "1 or more"),
        ("adapt_every", 0, "1 or more"),
        ("adversarial_epochs", 0, "1 or more"),
        ("step_size", float("inf"), "a finite number > 0"),
        ("adversarial_weight", -0.1, "0 or more"),
    ],
)
def test_values_out_of_range(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value}: allowed is {allowed}"):
        new(**{name: value})
