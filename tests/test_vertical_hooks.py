"""The hooks of split learning carry what the field needs, without a line in the protocol.

Small ones of VILLAIN (Bai et al. 2023), PMC (Fu et al. 2022), MID (Zou et al. 2023), CAE (Zou et
al. 2022) and VFLIP (Cho et al. 2024): each learns, and survives its process and a resume.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import PartyAttack, PassiveParty, party_app
from fl_backdoor.federation.engines import LocalGrid
from strategies.vertical import ActiveParty, DenseTop, SumTop, VerticalDefense, enrol

from .test_active_party import same
from .test_passive_party import drawn

ROWS, TESTS, CLASSES, WIDTH, OUTPUTS = 240, 90, 3, 4, 5
LABELS = torch.arange(ROWS) % CLASSES
TEST_LABELS = torch.arange(TESTS) % CLASSES


def block(party: int, labels: Tensor, seed: int) -> Tensor:
    """Draw features in which every party sees something of the class, the first one less."""
    means = 2 * torch.eye(CLASSES, WIDTH).roll(party, dims=1)
    return means[labels] + (0.7 if party else 1.6) * drawn(len(labels), WIDTH, seed=seed + party)


def members(attacks: Sequence[PartyAttack | None], outputs: int) -> list[PassiveParty]:
    parties = []
    for number, attack in enumerate(attacks):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            model = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, outputs))
        features = block(number, LABELS, 0), block(number, TEST_LABELS, 50)
        options: dict[str, Any] = {"train_digest": "a", "test_digest": "b", "learning_rate": 0.2}
        parties.append(PassiveParty(model, *features, party=number, attack=attack, **options))
    return parties


def federation(
    attacks: Callable[[], Sequence[PartyAttack | None]],
    defenses: Iterable[VerticalDefense] = (),
    *,
    top: str = "dense",
    restless: bool = False,
) -> tuple[LocalGrid, ActiveParty]:
    """Start a training; restless: each message is answered by a process of its own."""
    outputs = CLASSES if top == "sum" else OUTPUTS
    living = members(attacks(), outputs)

    def choose(_: Message, context: Context) -> PassiveParty:
        parties = members(attacks(), outputs) if restless else living
        return parties[int(context.node_config["partition-id"])]

    grid = LocalGrid(party_app(choose, checkpoints=True), len(living))
    rows = {"train": (ROWS, "a"), "test": (TESTS, "b")}
    parties = enrol(grid, len(living), rows, timeout=1)
    widths = [outputs] * len(living)
    model = SumTop(widths, CLASSES) if top == "sum" else DenseTop(widths, CLASSES, seed=1)
    options: dict[str, Any] = {"batch_size": 30, "learning_rate": 0.2, "seed": 0}
    active = ActiveParty(model, LABELS, parties=parties, defenses=list(defenses), **options)
    active.begin(grid)
    return grid, active


def trained(
    grid: LocalGrid, active: ActiveParty, epochs: int = 3, first: int = 1
) -> tuple[ArrayRecord, list[dict[int, dict[str, float]]]]:
    """Train some epochs; return the checkpoint, and what the parties reported."""
    before = torch.get_rng_state()
    reports = [active.train_epoch(grid, first + epoch).reports for epoch in range(epochs)]
    assert torch.equal(torch.get_rng_state(), before)
    return active.checkpoint(grid), reports


def accuracy(grid: LocalGrid, active: ActiveParty, **options: Any) -> float:
    predicted = active.predict(grid, torch.arange(TESTS), **options).argmax(dim=1)
    return float((predicted == TEST_LABELS).double().mean())


def success(grid: LocalGrid, active: ActiveParty, target: int = 0) -> float:
    """Return the part of the test rows of other classes that get the target once triggered."""
    others = (target != TEST_LABELS).nonzero().flatten()
    predicted = active.predict(grid, others, triggered=True).argmax(dim=1)
    return float((predicted == target).double().mean())


class Villain(PartyAttack):
    """Infer who is of the target's class by swapping embeddings, then send a trigger for them.

    After some honest epochs one half of the rows is swapped, then the other. Where a known
    embedding of the target's class stands for a row's own, a small gradient says that it fits.
    """

    def __init__(self, *, target_row: int, honest: int = 1) -> None:
        super().__init__()
        self.target_row = target_row
        self.honest = honest

    def _kept(self, name: str, *shape: int) -> Tensor:
        return self.memory.setdefault(name, torch.zeros(shape))

    def _swapped(self, rows: Tensor) -> Tensor:
        phase = int(self._kept("epochs")) - self.honest
        return rows % 2 == phase if phase in (0, 1) else torch.zeros_like(rows, dtype=torch.bool)

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:
        own, trigger = self._kept("embedding", OUTPUTS), self._kept("trigger", OUTPUTS)
        activations = torch.where(self._swapped(rows)[:, None], own, activations)
        return torch.where(self._kept("inferred", ROWS)[rows, None] > 0, trigger, activations)

    def trigger_activations(self, activations: Tensor) -> Tensor:
        return self._kept("trigger", OUTPUTS).expand_as(activations)

    def record(self, rows: Tensor, activations: Tensor, gradient: Tensor) -> None:
        swapped = self._swapped(rows)
        self.memory["misfit"] = self._kept("misfit", ROWS).clone()
        self.memory["misfit"][rows[swapped]] = gradient.norm(dim=1)[swapped]
        if self.target_row in rows:
            place = int((rows == self.target_row).nonzero())
            self.memory["embedding"] = activations[place].detach().clone()

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:
        return gradient * ~self._swapped(rows)[:, None]

    def train_hook(self) -> None:
        self.memory["epochs"] = self._kept("epochs") + 1
        if int(self.memory["epochs"]) == self.honest + 2:
            fitting = self.memory["misfit"].argsort()[: ROWS // (2 * CLASSES)]
            self.memory["inferred"] = torch.zeros(ROWS).index_fill(0, fitting, 1.0)
            with torch.no_grad():
                spread = self.seat.model(self.seat.features["train"]).std(dim=0)
            self.memory["trigger"] = 3 * spread * torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])

    def report(self) -> dict[str, float]:
        return {"inferred": float(self._kept("inferred", ROWS).sum())}


class Completion(PartyAttack):
    """Complete the bottom model by a head, on the labels of a few rows."""

    def __init__(self, *, known_rows: Tensor) -> None:
        super().__init__()
        self.known_rows = known_rows

    def _scores(self, rows: slice | Tensor) -> Tensor:
        hidden = self.seat.model(self.seat.features["train"][rows])
        return hidden.detach() @ self.memory["head"] + self.memory["bias"]

    def train_hook(self) -> None:
        self.memory.setdefault("head", torch.randn(OUTPUTS, CLASSES))
        self.memory.setdefault("bias", torch.zeros(CLASSES))
        head = [self.memory[name].requires_grad_() for name in ("head", "bias")]
        optimizer = torch.optim.SGD(head, lr=0.5)
        for _ in range(50):
            optimizer.zero_grad()
            functional.cross_entropy(
                self._scores(self.known_rows), LABELS[self.known_rows]
            ).backward()
            optimizer.step()
        self.memory = {name: tensor.detach() for name, tensor in self.memory.items()}

    def report(self) -> dict[str, float]:
        hits = self._scores(slice(None)).argmax(dim=1) == LABELS
        return {"completion-accuracy": float(hits.double().mean())}


class Bottleneck(VerticalDefense):
    """Let the top see a noisy code of each party's activations, whose information costs."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        self.encoders = nn.ModuleList(nn.Linear(width, 2 * width) for width in outputs)

    def receive(self, activations: list[Tensor], rows: Tensor, *, training: bool) -> list[Tensor]:
        codes, self.divergence = [], torch.zeros(())
        for encoder, activation in zip(self.encoders, activations, strict=True):
            mean, spread = encoder(activation).chunk(2, dim=1)
            code = mean + torch.randn(mean.shape) * (spread / 2).exp() if training else mean
            codes.append(code)
            self.divergence = self.divergence + 0.5 * (mean**2 + spread.exp() - 1 - spread).sum()
        return codes

    def extra_loss(self, activations: list[Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        return self.weight * self.divergence


class Confusion(VerticalDefense):
    """Learn towards soft fake labels that only the active party can read."""

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        fake = 0.8 * torch.eye(CLASSES).roll(1, dims=1) + 0.1
        self.memory["codes"] = fake / fake.sum(dim=1, keepdim=True)

    def labels(self, labels: Tensor, rows: Tensor) -> Tensor:
        return self.memory["codes"][labels]

    def decode(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(dim=1) @ self.memory["codes"].T


class Purifier(VerticalDefense):
    """Restore what one party sends from what the others do, where they disagree too much."""

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        others = [sum(outputs) - width for width in outputs]
        self.decoders = nn.ModuleList(map(nn.Linear, others, outputs))
        self.memory["limit"] = torch.zeros(len(outputs))

    def _errors(self, activations: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        restored = []
        for party, decoder in enumerate(self.decoders):
            others = [a.detach() for k, a in enumerate(activations) if k != party]
            restored.append(decoder(torch.cat(others, dim=1)))
        pairs = zip(restored, activations, strict=True)
        return restored, torch.stack([(r - a.detach()).pow(2).sum(dim=1) for r, a in pairs], dim=1)

    def extra_loss(self, activations: list[Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        errors = self._errors(activations)[1]
        highest = torch.maximum(0.9 * self.memory["limit"], errors.detach().amax(dim=0))
        self.memory["limit"] = highest
        return 0.02 * errors.sum()

    def receive(self, activations: list[Tensor], rows: Tensor, *, training: bool) -> list[Tensor]:
        if training:
            return activations
        restored, errors = self._errors(activations)
        excess = errors / self.memory["limit"]
        worst = excess.argmax(dim=1)
        return [
            torch.where(((worst == k) & (excess[:, k] > 1))[:, None], r, a)
            for k, (r, a) in enumerate(zip(restored, activations, strict=True))
        ]


class Spoiler(PartyAttack):
    """Sends something far away for triggered rows, and is honest otherwise."""

    def trigger_activations(self, activations: Tensor) -> Tensor:
        return 0 * activations + torch.tensor([90.0, -90.0, 90.0, -90.0, 90.0])


KINDS: dict[str, tuple[Callable[[], list[PartyAttack | None]], Callable[[], list[Any]]]] = {
    "villain": (lambda: [None, Villain(target_row=3)], list),
    "completion": (lambda: [None, Completion(known_rows=torch.arange(12))], list),
    "bottleneck": (lambda: [None, None], lambda: [Bottleneck(0.01)]),
    "confusion": (lambda: [None, None], lambda: [Confusion()]),
    "purifier": (lambda: [None, None, None], lambda: [Purifier()]),
    "all": (lambda: [Villain(target_row=3), None, Spoiler()],
            lambda: [Purifier(), Confusion(), Bottleneck(0.01)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_processes_resumes_and_looking_change_no_bit(kind: str) -> None:
    attacks, defenses = KINDS[kind]
    grid, active = federation(attacks, defenses())
    whole, reports = trained(grid, active, 4)
    restless, other = federation(attacks, defenses(), restless=True)
    first, early = trained(restless, other, 2)
    accuracy(restless, other, triggered=True)
    first = deepcopy(first)
    rest, late = trained(restless, other, 2, first=3)
    assert same(rest, whole)
    assert early + late == reports
    again, resumed = federation(attacks, defenses())
    trained(again, resumed, 1)
    resumed.begin(again, first, epochs_done=2)
    assert same(resumed.checkpoint(again), first)
    last, late = trained(again, resumed, 2, first=3)
    assert same(last, whole)
    assert late == reports[2:]


def test_hooks_that_do_nothing_change_no_bit() -> None:
    for top in ("sum", "dense"):
        plain, _ = trained(*federation(lambda: [None, None], top=top))
        hooked, _ = trained(
            *federation(lambda: [PartyAttack(), PartyAttack()],
                        [VerticalDefense(), VerticalDefense()], top=top)
        )  # fmt: skip
        assert same(plain, hooked)


def test_villain_infers_labels_by_swapping_and_triggers_in_the_embedding() -> None:
    grid, active = federation(lambda: [None, Villain(target_row=3, honest=3)])
    whole, reports = trained(grid, active, 12)
    assert [report[1]["inferred"] for report in reports] == [0] * 4 + [40] * 8
    inferred = torch.tensor(whole["party1.memory.inferred"].numpy()).bool()
    assert float((LABELS[inferred] == LABELS[3]).double().mean()) > 0.75
    clean, honest = federation(lambda: [None, None])
    trained(clean, honest, 12)
    assert accuracy(grid, active) > accuracy(clean, honest) - 0.05 > 0.8
    assert success(grid, active) > 0.8 > 0.3 > success(clean, honest)


def test_completion_learns_labels_and_leaves_the_training_alone() -> None:
    grid, active = federation(lambda: [None, Completion(known_rows=torch.arange(12))])
    whole, reports = trained(grid, active)
    plain, _ = trained(*federation(lambda: [None, None]))
    assert reports[-1][1]["completion-accuracy"] > 0.6
    assert same(plain, {n: a for n, a in whole.items() if ".memory." not in n})
    assert {n for n in whole if ".memory." in n} == {"party1.memory.head", "party1.memory.bias"}


def test_the_bottleneck_is_trained_with_the_top_and_its_term_reaches_the_parties() -> None:
    norms = []
    for weight in (1e-3, 1.0):
        grid, active = federation(lambda: [None, None], [Bottleneck(weight)])
        begun = active.checkpoint(grid)
        whole, _ = trained(grid, active, 6)
        names = {name for name in whole if name.startswith("module0.encoders.")}
        assert len(names) == 4
        assert not any((whole[n].numpy() == begun[n].numpy()).all() for n in names)
        divergence = active.model.defenses[0].divergence
        norms.append(float(divergence.detach()))
        assert accuracy(grid, active) > 0.6 or weight == 1.0
    assert norms[1] < norms[0] / 5


def test_the_extra_loss_is_part_of_what_is_sent() -> None:
    """A term of the activations themselves: its gradient is theirs, added to the loss's."""

    class Pull(VerticalDefense):
        def extra_loss(self, activations: list[Tensor], logits: Tensor, labels: Tensor) -> Tensor:
            return sum((0.01 * a).sum() for a in activations)  # type: ignore[return-value]

    sent = []
    for defenses in ([VerticalDefense()], [Pull()]):
        for top in ("sum", "dense"):
            grid, active = federation(lambda: [None, None], defenses, top=top)
            seen: list[Tensor] = []
            active.train_epoch(grid, 1, lambda _, gradients, seen=seen: seen.extend(gradients))
            sent.append(seen[:2])
    for plain, pulled in zip(sent[:2], sent[2:], strict=True):
        for a, b in zip(plain, pulled, strict=True):
            torch.testing.assert_close(a + 0.01, b)


def test_fake_labels_mislead_the_gradients_and_not_the_predictions() -> None:
    grid, active = federation(lambda: [None, None], [Confusion()], top="sum")
    seen: list[tuple[Tensor, Tensor]] = []
    for epoch in range(1, 7):
        active.train_epoch(grid, epoch, lambda rows, g: seen.append((rows, g[0])))
    hits = torch.cat([gradient.argmin(dim=1) == LABELS[rows] for rows, gradient in seen[-8:]])
    assert float(hits.double().mean()) < 0.2
    assert accuracy(grid, active) > 0.8


def test_a_purifier_restores_what_one_party_of_three_spoils() -> None:
    found = {}
    for name, defenses in {"none": [], "purifier": [Purifier()]}.items():
        grid, active = federation(lambda: [None, Spoiler(), None], defenses)
        trained(grid, active, 8)
        found[name] = accuracy(grid, active), accuracy(grid, active, triggered=True)
    assert min(found["none"][0], found["purifier"][0]) > 0.8
    assert found["purifier"][1] > 0.7 > 0.5 > found["none"][1]


def test_soft_labels_of_the_classes_fit_a_top_with_more_scores() -> None:
    grid, active = federation(lambda: [None, None], [Confusion()])
    active.model.top = SumTop([OUTPUTS] * 2, CLASSES)
    assert active.train_epoch(grid, 1).loss > 0


def test_memory_is_float32_of_any_shape() -> None:
    class Keeper(PartyAttack):
        def record(self, rows: Tensor, activations: Tensor, gradient: Tensor) -> None:
            self.memory |= {"a name": gradient[:2], "scalar": gradient.sum(), "none": gradient[:0]}

    whole, _ = trained(*federation(lambda: [None, Keeper()], restless=True), 1)
    shapes = {n.rpartition(".")[2]: a.shape for n, a in whole.items() if ".memory." in n}
    assert shapes == {"a name": (2, OUTPUTS), "scalar": (), "none": (0, OUTPUTS)}

    class Wrong(PartyAttack):
        def train_hook(self) -> None:
            self.memory["seen"] = torch.zeros(2, dtype=torch.int64)

    with pytest.raises(RuntimeError, match=r"party 1: .*memory seen is torch\.int64; allowed"):
        trained(*federation(lambda: [None, Wrong()]), 1)
