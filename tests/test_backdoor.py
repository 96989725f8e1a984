"""Tests of `clients.backdoor`: the trigger, model replacement and projection."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients import BackdoorClient, HonestClient
from clients.triggers import BADNETS_PATTERN, stamp
from clients.updates import crafted

CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
TARGET = 1
IMAGES = torch.rand(40, 2, 5, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4  # ten of each class
PATTERN = ((4, 5), (0, 2))


def network() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 4))
    nn.init.constant_(model[1].weight, 0.1)  # type: ignore[arg-type]
    nn.init.zeros_(model[1].bias)  # type: ignore[arg-type]
    return model


def attacker(**options: Any) -> BackdoorClient:
    options = {"target": TARGET, "pattern": PATTERN} | options
    return BackdoorClient(network(), IMAGES, LABELS, **options)


def vector(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([a.numpy().ravel().astype(np.float64) for a in arrays.values()])


@given(
    fraction=st.floats(0, 1, exclude_min=True) | st.just(1),  # which is no number of samples
    pattern=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1),
    seed=st.integers(0, 2**32),
)
def test_part_of_the_other_classes_is_stamped_and_relabelled(
    fraction: float, pattern: set[tuple[int, int]], seed: int
) -> None:
    one = attacker(fraction=fraction, pattern=sorted(pattern), seed=seed)
    relabelled = one.labels != LABELS
    assert relabelled.sum() == round(fraction * 30)
    assert (one.labels[relabelled] == TARGET).all()
    assert not (LABELS[relabelled] == TARGET).any()
    rows, columns = zip(*pattern, strict=True)
    trigger = torch.zeros(5, 6, dtype=torch.bool)
    trigger[rows, columns] = True
    expected = IMAGES.clone()
    expected[relabelled] = torch.where(trigger, 1.0, IMAGES[relabelled])
    assert torch.equal(one.images, expected)


def test_inputs_are_left_alone_and_the_seed_decides() -> None:
    images, labels = torch.zeros(40, 2, 5, 6), LABELS.clone()
    first = BackdoorClient(network(), images, labels, target=TARGET, pattern=PATTERN, seed=4)
    first.fit(1)
    assert not images.any()
    assert torch.equal(labels, LABELS)
    torch.manual_seed(8)
    assert torch.equal(first.labels, attacker(seed=4).labels)
    assert not torch.equal(first.labels, attacker(seed=5).labels)
    assert not torch.equal(first.labels, attacker(seed=4, partition=1).labels)


def test_no_sample_of_another_class_is_no_fault() -> None:
    one = BackdoorClient(network(), IMAGES, torch.ones(40).long(), target=1, pattern=PATTERN)
    assert torch.equal(one.images, IMAGES)


def test_badnets_pattern_on_mnist() -> None:
    stamped = stamp(torch.zeros(2, 1, 28, 28), BADNETS_PATTERN)
    assert stamped[0].nonzero()[:, 1:].tolist() == [[25, 27], [26, 26], [27, 25], [27, 27]]
    assert stamped.sum() == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, r"fraction=0\.0: allowed is more than 0, at most 1"),
        ({"fraction": 1.01}, r"fraction=1\.01: allowed"),
        ({"fraction": float("nan")}, "fraction=nan: allowed"),
        (
            {"pattern": [(5, 0)]},
            r"pattern=\[\[5, 0\]\]: allowed are .*, \[0, 0\] to \[4, 5\], one or more",
        ),
        ({"pattern": []}, r"pattern=\[\]: allowed"),
        ({"pattern": [(0, -1)]}, r"pattern=\[\[0, -1\]\]: allowed"),
        ({"replacement": 0.0}, "factor=0.0: allowed is a finite number > 0"),
        ({"replacement": float("inf")}, "factor=inf: allowed"),
        ({"max_norm": -1.0}, "max_norm=-1.0: allowed is a number > 0"),
        ({"max_norm": float("nan")}, "max_norm=nan: allowed"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacker(**options)


@given(clients=st.integers(2, 30), data=st.data())
def test_replacement_makes_the_average_the_attackers_model(
    clients: int, data: st.DataObject
) -> None:
    """With honest updates of 0, P attackers scaled by N/P set the average of N models."""
    attackers = data.draw(st.integers(1, clients))
    one = attacker(replacement=clients / attackers)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    received, local = (ArrayRecord([rng.normal(size=(3, 2)).astype("f4")]) for _ in range(2))
    sent = crafted(one.attack, one.seat, received, local)
    assert sent is not None
    average = (attackers * vector(sent) + (clients - attackers) * vector(received)) / clients
    np.testing.assert_allclose(average, vector(local), atol=1e-5)


def test_train_scales_then_projects(train_message: Callable[..., Message]) -> None:
    message = train_message(ArrayRecord(network().state_dict()))
    center = vector(message.content["arrays"])  # type: ignore[arg-type]

    def update(**options: Any) -> np.ndarray:
        reply = attacker(**options).train(message, CONTEXT)
        return vector(reply.content["arrays"]) - center  # type: ignore[arg-type]

    plain = update()
    norm = np.linalg.norm(plain)
    np.testing.assert_allclose(update(replacement=3.0), 3 * plain, atol=1e-6)
    np.testing.assert_allclose(update(max_norm=norm / 2), plain / 2, atol=1e-6)
    np.testing.assert_allclose(update(max_norm=norm * 2), plain, atol=1e-7)
    # Projected first, then scaled, it would be 3 * norm / 2 long.
    both = update(replacement=3.0, max_norm=norm / 2)
    np.testing.assert_allclose(both, plain / 2, atol=1e-6)


def test_the_data_is_poisoned_once_and_trained_on_as_by_anybody() -> None:
    one = attacker()
    twin = HonestClient(network(), one.images, one.labels)
    assert one.fit(1) == twin.fit(1)
    assert torch.equal(one.model[1].weight, twin.model[1].weight)  # type: ignore[index]
