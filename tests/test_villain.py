"""Tests of `clients.vertical.Villain`: whose label it infers, its trigger, and that it acts."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clients.vertical import Villain

from . import test_vertical_hooks as hooks
from .test_passive_party import drawn

LABELS, KNOWN = hooks.LABELS, 3  # a row of class 0
ROWS, WIDTH = 12, 8


def seated(**options: Any) -> Villain:
    """Return an attack at a seat whose embedding is the features themselves."""
    attack = Villain(**{"target_rows": torch.tensor([2]), "elements": 5, **options})
    features = {"train": drawn(ROWS, WIDTH, seed=1) * torch.arange(1.0, WIDTH + 1)}
    seat: Any = SimpleNamespace(model=nn.Identity(), features=features, draw=lambda stream: stream)
    attack.join(seat)
    return attack


def after(attack: Villain, epochs: int) -> Tensor:
    """Let epochs go by, and return all embeddings."""
    for _ in range(epochs):
        attack.train_hook()
    embeddings: Tensor = attack.seat.features["train"]
    return embeddings


def test_the_rows_most_like_the_known_one_are_swapped_in_their_epochs_only() -> None:
    attack = seated(honest_epochs=1, swap_epochs=2, candidates=3, mu=0.0)
    rows = torch.arange(ROWS)
    for epoch in range(4):
        own = after(attack, epoch > 0)
        attack.record(rows, own, torch.ones(ROWS, WIDTH))
        sent = attack.poison_activations(rows, own)
        swapped = (sent != own).any(dim=1)
        swapped[2] = False  # by itself
        cosine = [float(row @ own[2] / row.norm() / own[2].norm()) for row in own]
        best = sorted(range(ROWS), key=lambda row: -cosine[row])[:3]
        assert swapped.nonzero().flatten().tolist() == sorted(set(best) - {2}) * (epoch in (1, 2))
        if epoch in (1, 2):
            assert (sent[swapped] == own[2]).all()
            stepped = attack.poison_gradient(rows, torch.ones(ROWS, WIDTH)).any(dim=1)
            assert sorted((~stepped).nonzero().flatten().tolist()) == sorted(best)


def test_a_label_is_the_targets_where_the_gradient_is_short_by_both_bounds() -> None:
    attack, rows = seated(honest_epochs=1, candidates=ROWS, theta=2.0, mu=0.5), torch.arange(ROWS)
    own = attack.seat.features["train"]
    before = torch.linspace(0.05, 0.6, ROWS)
    attack.record(rows, own, before[:, None] * torch.eye(1, WIDTH))
    own = after(attack, 1)
    now = torch.linspace(0.6, 0.05, ROWS)
    attack.record(rows, own, now[:, None] * torch.eye(1, WIDTH))
    expected = [float(x <= 2 * y and x <= 0.5) for x, y in zip(now, before, strict=True)]
    assert attack.memory["inferred"].tolist() == expected
    assert 0 < sum(expected) < ROWS
    torch.testing.assert_close(attack.memory["norms"], before)  # those of what is the row's own


def test_the_trigger_is_on_the_elements_of_greatest_spread() -> None:
    attack = seated(honest_epochs=1, swap_epochs=1, beta=2.0)
    embeddings = after(attack, 2)
    spread = embeddings.std(dim=0)
    order = spread.argsort(descending=True).tolist()
    expected = torch.zeros(WIDTH)
    for place, sign in zip(order[:5], (1, 1, -1, -1, 1), strict=True):
        expected[place] = sign * 2.0 * spread[order[:5]].mean()
    torch.testing.assert_close(attack.memory["trigger"], expected)
    torch.testing.assert_close(attack.trigger_activations(embeddings), embeddings + expected)


def test_in_training_only_rows_found_get_it_at_a_random_strength() -> None:
    attack, rows = seated(honest_epochs=1, swap_epochs=1), torch.arange(ROWS)
    own = after(attack, 2)
    attack.memory["inferred"] = torch.zeros(ROWS).index_fill(0, torch.tensor([1, 4, 7]), 1.0)
    push = attack.poison_activations(rows, own) - own
    assert push.any(dim=1).nonzero().flatten().tolist() == [1, 4, 7]
    trigger = attack.memory["trigger"]
    for row in (1, 4, 7):
        ratio = (push[row] / trigger)[push[row] != 0]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-3, rtol=1e-3)
        assert 0.59 <= float(ratio[0]) <= 1.21
    assert (push[[1, 4, 7]] == 0).sum() > 3 * (WIDTH - 5)  # some elements are dropped


def test_it_infers_labels_and_its_trigger_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "OUTPUTS", 16)
    options: dict[str, Any] = {"honest_epochs": 2, "swap_epochs": 3, "candidates": 5, "mu": 0.3}
    options |= {"beta": 4.0, "elements": 12}
    grid, active = hooks.federation(
        lambda: [None, Villain(target_rows=torch.tensor([KNOWN]), **options)]
    )
    whole, _ = hooks.trained(grid, active, 24)
    inferred = torch.tensor(whole["party1.memory.inferred"].numpy()).bool()
    assert inferred.sum() > 10
    assert float((LABELS[inferred] == LABELS[KNOWN]).double().mean()) > 0.75
    clean, honest = hooks.federation(lambda: [None, None])
    hooks.trained(clean, honest, 24)
    assert hooks.accuracy(grid, active) > hooks.accuracy(clean, honest) - 0.05
    assert hooks.success(grid, active) > hooks.success(clean, honest) + 0.2


def test_other_processes_and_resumes_change_no_bit() -> None:
    def attacks() -> list[Any]:
        target = torch.tensor([KNOWN])
        return [None, Villain(target_rows=target, honest_epochs=1, swap_epochs=1, mu=1.0)]

    whole, _ = hooks.trained(*hooks.federation(attacks), 4)
    restless, _ = hooks.trained(*hooks.federation(attacks, restless=True), 4)
    assert hooks.same(whole, restless)
    assert "party1.memory.trigger" in whole


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("honest_epochs", 0, "1 or more"),
        ("swap_epochs", 1.5, "a whole number, 1 or more"),
        ("candidates", True, "a whole number, 1 or more"),
        ("elements", "much", "a whole number, 1 or more"),
        ("theta", -1.0, "0 or more"),
        ("mu", float("nan"), "0 or more"),
        ("beta", "much", "0 or more"),
    ],
)
def test_values_out_of_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value}: allowed is {allowed}$"):
        Villain(target_rows=torch.tensor([0]), **{name: value})


def test_it_says_where_it_found_no_row_or_has_no_trigger() -> None:
    attack = seated(honest_epochs=1, swap_epochs=1)
    after(attack, 1)
    assert attack.idle() == ""  # it waits, as it is meant to
    after(attack, 1)
    assert attack.idle() == "no row was found to be of the target class"
    attack.memory["inferred"] = torch.ones(ROWS)
    assert attack.idle() == ""
    attack.memory["trigger"] = torch.zeros(WIDTH)
    assert attack.idle() == "embeddings have no spread for a trigger"
