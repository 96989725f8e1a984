"""Tests of `clients.vertical.label_inference`: what the gradients of the summed scores tell."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import LabelInference, PassiveParty, infer_labels

from .test_passive_party import Talk, drawn

ROWS, CLASSES = 8, 3
LABELS = torch.arange(ROWS) % CLASSES


def slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return dl_i/dH_i of each row by autograd."""
    leaf = logits.clone().requires_grad_()
    loss = functional.cross_entropy(leaf, labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def party(poisoned: list[int], target: int = 2) -> PassiveParty:
    model = nn.Linear(3, CLASSES)
    with torch.no_grad():
        model.weight.copy_(drawn(CLASSES, 3))
        model.bias.zero_()
    rows = torch.tensor(poisoned, dtype=torch.int64)
    x = drawn(ROWS, 3, seed=7)
    attack = LabelInference(poisoned_rows=rows, target=target)
    return PassiveParty(model, x, x, party=0, attack=attack)


@settings(max_examples=100)
@given(
    classes=st.integers(2, 10),
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    data=st.data(),
)
def test_labels_are_recovered(classes: int, seed: int, scale: float, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=9))
    logits = scale * drawn(len(labels), classes, seed=seed)
    assert infer_labels(slopes(logits, torch.tensor(labels))).tolist() == labels


@settings(max_examples=50)
@given(
    order=st.permutations(range(ROWS)),
    size=st.integers(1, ROWS),
    poisoned=st.sets(st.integers(0, ROWS - 1)),
    target=st.integers(0, CLASSES - 1),
    seed=st.integers(0, 999),
)
def test_poisoned_rows_get_the_gradient_of_the_targets_loss(
    order: list[int], size: int, poisoned: set[int], target: int, seed: int
) -> None:
    rows = torch.tensor(order[:size])
    logits = 2 * drawn(size, CLASSES, seed=seed)
    gradient = slopes(logits, LABELS[rows])
    before = gradient.clone()
    sent = party(sorted(poisoned), target).attack.poison_gradient(rows, gradient)
    aimed = slopes(logits, torch.full((size,), target))
    assert torch.equal(gradient, before)
    for i, row in enumerate(rows.tolist()):
        if row in poisoned:
            torch.testing.assert_close(sent[i], aimed[i], rtol=1e-5, atol=3e-7)
        else:
            assert torch.equal(sent[i], gradient[i])


def test_a_training_is_one_with_the_backdoors_labels() -> None:
    poisoned, rows = [0, 3, 5], list(range(ROWS))
    talk = Talk(lambda: party(poisoned))
    talk.begin()
    model, features = party([]).model, drawn(ROWS, 3, seed=7)
    labels = LABELS.index_fill(0, torch.tensor(poisoned), 2)
    gradient = None
    for _ in range(20):
        sent = talk.train(gradient, rows)
        gradient = slopes(sent, LABELS)
        own = model(features)
        torch.testing.assert_close(sent, own.detach(), rtol=1e-4, atol=1e-5)
        model.zero_grad()
        functional.cross_entropy(own, labels).backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(0.01 * weight.grad)
