"""Three parties: the labelled one may hold features of its own, and several may attack together."""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import GradientReplacement, LocalizedReplacement, PassiveParty
from fl_backdoor.data.vertical import mnist_rows
from fl_backdoor.errors import UserError
from fl_backdoor.federation.vertical import VerticalFederation
from fl_backdoor.loop import loop as experiment
from strategies.vertical import ActiveParty, BackdoorActiveParty, DenseTop, Party, SumTop

from .test_active_party import CLASSES, Wire, labels_of, parties, same, step
from .test_config import small
from .test_mnist_rows import data_of
from .test_passive_party import Talk, bottom, drawn
from .test_vertical_experiment import Undrawn, rows

OWN = 3


def own_features(count: int) -> dict[str, Tensor]:
    return {"train": drawn(count, OWN, seed=70), "test": drawn(6, OWN, seed=71)}


def tops(kind: str) -> nn.Module:
    return SumTop([CLASSES] * 3, CLASSES) if kind == "sum" else DenseTop([CLASSES] * 3, CLASSES)


def started(
    count: int, kind: str = "dense", *, restless: bool = False, **options: Any
) -> tuple[Wire, ActiveParty]:
    """Start a training of two passive parties and an active one with features."""
    shared = {name: options[name] for name in options.keys() & {"local_steps", "learning_rate"}}
    grid = Wire(parties(count, **shared))
    active = ActiveParty(
        tops(kind),
        labels_of(count),
        parties=[Party(1, CLASSES), Party(2, CLASSES)],
        bottom=bottom(OWN, CLASSES, restless=restless, seed=9),
        features=own_features(count),
        **{"batch_size": 4, "seed": 0} | options,
    )
    active.begin(grid)
    return grid, active


@settings(max_examples=20)
@given(
    count=st.integers(1, 13),
    batch_size=st.integers(1, 15),
    kind=st.sampled_from(["sum", "dense"]),
    local_steps=st.sampled_from([1, 2]),
)
def test_own_features_are_one_more_party_of_algorithm_1(
    count: int, batch_size: int, kind: str, local_steps: int
) -> None:
    """Eq. 4 sums over all K parties: a bare loop of the joint model gives the same bits."""
    options = {"batch_size": batch_size, "learning_rate": 0.05, "local_steps": local_steps}
    grid, active = started(count, kind, **options)
    seen: list[tuple[Tensor, list[Tensor]]] = []
    for epoch in (1, 2):
        active.train_epoch(grid, epoch, lambda chosen, sent: seen.append((chosen, sent)))
    top, models = tops(kind), [bottom(w, CLASSES, seed=s) for w, s in ((4, 1), (2, 2), (OWN, 9))]
    blocks = [drawn(count, 4, seed=0), drawn(count, 2, seed=1), own_features(count)["train"]]
    for batch, sent in seen:
        outputs = [m(x[batch]) for m, x in zip(models, blocks, strict=True)]
        leaves = [h.detach().requires_grad_() for h in outputs[:2]]
        trained = [*top.parameters(), *models[2].parameters()]
        for local in range(local_steps):
            own = models[2](blocks[2][batch])
            logits = top([*leaves, own])
            loss = functional.cross_entropy(logits, labels_of(count)[batch], reduction="sum")
            along = torch.autograd.grad(loss, [*leaves, *trained])
            if not local:
                assert all(map(torch.equal, along[:2], sent))
            step(trained, along[2:], 0.05 / len(batch))
        for model, block, gradient in zip(models[:2], blocks, sent, strict=False):
            weights = list(model.parameters())
            for _ in range(local_steps):
                along = torch.autograd.grad(model(block[batch]), weights, gradient)
                step(weights, along, 0.05 / len(batch))
    names = {"top": top, "bottom": models[2], "party0.model": models[0], "party1.model": models[1]}
    twin = {f"{part}.{n}": p for part, m in names.items() for n, p in m.state_dict().items()}
    assert same(active.checkpoint(grid), twin)
    tests = [drawn(6, 4, seed=50), drawn(6, 2, seed=51), own_features(count)["test"]]
    chosen = torch.tensor([5, 0, 3])
    expected = top([m(x[chosen]) for m, x in zip(models, tests, strict=True)]).detach()
    assert torch.equal(active.predict(grid, chosen), expected)


def test_a_checkpoint_with_own_features_resumes_to_the_same_bits() -> None:
    grid, active = started(11, restless=True)
    active.train_epoch(grid, 1)
    checkpoint = active.checkpoint(grid)
    reports = [active.train_epoch(grid, epoch) for epoch in (2, 3)]
    again, resumed = started(11, restless=True)
    resumed.train_epoch(again, 1)
    resumed.predict(again, torch.arange(6))
    resumed.begin(again, checkpoint, epochs_done=1)
    assert [resumed.train_epoch(again, epoch) for epoch in (2, 3)] == reports
    assert same(resumed.checkpoint(again), active.checkpoint(grid))
    assert any(name.endswith("running_mean") for name in checkpoint if name.startswith("bottom."))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bottom": None}, "bottom and features: allowed are both, or none"),
        ({"features": None}, "bottom and features: allowed are both, or none"),
        ({"features": own_features(10)}, "features: 10 train rows; allowed are 11"),
    ],
    ids=str,
)
def test_features_without_a_model_or_of_other_rows_are_refused(
    change: dict[str, Any], said: str
) -> None:
    options = {"bottom": bottom(OWN), "features": own_features(11)} | change
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        ActiveParty(tops("sum"), labels_of(11), parties=[], **options)
    assert "\n" not in str(caught.value)


class Sigmoid(nn.Module):
    """What vertical apps of two classes often have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * CLASSES, 1)

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        return torch.sigmoid(self.layer(torch.cat(list(activations), dim=1)))


@pytest.mark.parametrize(
    "labels",
    [
        torch.ones(11, 1),
        torch.ones(11),
        torch.ones(11, 1, dtype=torch.int64),
        torch.tensor([0, 1, -1]),
        torch.empty(0, dtype=torch.int64),
    ],
    ids=lambda labels: f"{labels.dtype} {tuple(labels.shape)}",
)
@pytest.mark.parametrize("kind", [ActiveParty, BackdoorActiveParty])
def test_labels_that_are_no_classes_are_refused(kind: type[ActiveParty], labels: Tensor) -> None:
    own = {"poisoned_rows": torch.tensor([0]), "target": 0} if kind is BackdoorActiveParty else {}
    with pytest.raises(ValueError, match=r"^labels: .* one logit a class\)$") as caught:
        kind(Sigmoid(), labels, parties=[], **own)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_a_top_without_a_logit_for_each_class_is_refused(dtype: torch.dtype) -> None:
    """Cross-entropy of a single logit is 0 whatever it is: nothing would be learned."""
    labels = (torch.arange(11) % 2).to(dtype)
    active = ActiveParty(Sigmoid(), labels, parties=[Party(1, CLASSES), Party(2, CLASSES)])
    grid = Wire(parties(11))
    active.begin(grid)
    with pytest.raises(ValueError, match=r"^top: returns logits of shape \(11, 1\)") as caught:
        active.train_epoch(grid, 1)
    assert "one logit a class, for each row 2 or more" in str(caught.value)


def replacement(width: int, columns: list[int] | None) -> PassiveParty:
    told = {"target_rows": torch.tensor([2, 3]), "poisoned_rows": torch.tensor([0, 5])}
    attack = (
        GradientReplacement(**told)
        if columns is None
        else LocalizedReplacement(trigger_columns=columns, **told)
    )
    return PassiveParty(bottom(width), drawn(11, width), drawn(6, width), party=0, attack=attack)


def test_an_attacker_without_trigger_columns_moves_nothing_by_poisoned_rows() -> None:
    talk = Talk(lambda: replacement(4, []))
    talk.begin()
    talk.train(rows=[2, 5])
    talk.train(drawn(2, 3), [0, 5])
    before = talk.everything()
    talk.train(drawn(2, 3))
    assert talk.everything() == before


BANDS = [
    "dataset.blocks=[[0,9],[10,18],[19,27]]",
    "dataset.trigger_party=2",
    "dataset.trigger=[[25,27],[27,25]]",
    "floor=false",
    "num_epochs=2",
    "attack.num_targets=4",
]


@pytest.fixture
def _bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the digits be few, and there at once."""
    images = data_of(80, 20, "eighty digits")
    monkeypatch.setattr(mnist_rows, "load_mnist", lambda *_: images)
    for cache in (mnist_rows._images, mnist_rows._block):
        monkeypatch.setattr(mnist_rows, cache.__name__, cache.__wrapped__)


def run(path: Path, *overrides: str) -> tuple[dict[str, Tensor], str]:
    """Run on digits cut into three bands; return the model and what was printed."""
    screen = StringIO()
    shown = Undrawn(Console(file=screen, width=150))
    experiment.run(small("vertical_mnist", *overrides), path, shown)
    return load_file(path / "model.safetensors"), screen.getvalue()


def moved(a: dict[str, Tensor], b: dict[str, Tensor], owner: str) -> bool:
    return not all(torch.equal(a[name], b[name]) for name in a if name.startswith(owner))


@pytest.mark.usefixtures("_bands")
def test_several_parties_attack_together(tmp_path: Path) -> None:
    models = {}
    for name, who in {"one": "null", "same": "[2]", "two": "[2,0]"}.items():
        models[name], screen = run(tmp_path / name, *BANDS, f"attack.parties={who}")
        assert ("parties 0, 2: each replaces" in screen) == (name == "two")
        assert ("party 2 replaces" in screen) == (name != "two")
    known = {k for k in range(3) if f"party{k}.memory.g_rec" in models["two"]}
    assert known == {0, 2}
    assert {k for k in range(3) if f"party{k}.memory.g_rec" in models["one"]} == {2}
    assert not any(moved(models["one"], models["same"], owner) for owner in ("party", "top"))
    assert moved(models["one"], models["two"], "party0.model")
    (row, *_) = rows(tmp_path / "two")
    assert row["g_rec_norm"] > 0


@pytest.mark.usefixtures("_bands")
@pytest.mark.parametrize("attack", ["gradient_replacement", "localized_replacement"])
def test_an_attacker_elsewhere_leaves_the_trigger_where_it_is(attack: str, tmp_path: Path) -> None:
    """Triggered rows are stamped by party 2, which trains honestly then."""
    federation = VerticalFederation(
        small("vertical_mnist", *BANDS, f"attack={attack}", "attack.parties=[0]")
    )
    federation.check()
    assert [federation.party(k).stamp is not None for k in range(3)] == [False, False, True]
    kinds = [type(federation.party(k).attack).__name__ for k in range(3)]
    assert [kind != "PartyAttack" for kind in kinds] == [True, False, False]
    run(tmp_path, *BANDS, f"attack={attack}", "attack.parties=[0]")


@pytest.mark.usefixtures("_bands")
@pytest.mark.parametrize("top", ["sum", "dense"])
def test_the_labelled_party_may_hold_the_last_band(top: str, tmp_path: Path) -> None:
    own = [*BANDS, "active_features=true", "dataset.trigger_party=1", "dataset.trigger=[[12,3]]"]
    model, screen = run(tmp_path / "whole", *own, f"top={top}")
    assert "2 passive parties" in screen
    assert model["bottom.layers.0.weight"].shape == (32, 9 * 28)
    assert not any(name.startswith("party2.") for name in model)
    for row in rows(tmp_path / "whole"):
        assert row["bytes"] == 2 * 80 * (8 + 2 * 4 * (10 if top == "sum" else 32))
    first, _ = run(tmp_path / "parts", *own, f"top={top}", "num_epochs=1")
    assert moved(first, model, "bottom.")


@pytest.mark.usefixtures("_bands")
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attack.parties=[3]"], "attack.parties=[3]: allowed are different ones of 0 to 2"),
        (["attack.parties=[]"], "attack.parties=[]: allowed"),
        (["attack.parties=[0,0]"], "attack.parties=[0, 0]: allowed"),
        (["attack.parties=[-1]"], "attack.parties=[-1]: allowed"),
        (["attack.parties=all"], "attack.parties: "),
        (["attack=none", "+attack.parties=[0]"], "attack.parties: "),
        (["active_features=true"], "dataset.trigger_party=2: its block is the active party's"),
        (
            ["active_features=true", "dataset.trigger_party=0", "dataset.trigger=[[1,1]]",
             "attack.parties=[2]"],
            "attack.parties=[2]: allowed are different ones of 0 to 1",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_parties_that_are_not_there_are_refused(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    kept = [o for o in BANDS if not (o.startswith("attack.") and "attack=none" in overrides)]
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        run(tmp_path, *kept, *overrides)
    assert "\n" not in str(caught.value)
