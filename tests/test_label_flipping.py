"""Tests of `clients.label_flipping`: what is poisoned, by how much, and that nothing else is."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients import HonestClient, LabelFlippingClient
from clients.attacks.label_flipping import READINGS, LabelFlipping
from clients.seat import Seat
from fl_backdoor.errors import UserError

from .test_contract_attacks import CLASSES, build_attack, composed

SOURCE, TARGET = 2, 0
IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3  # ten of each class
POOL = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(model[1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[1].bias)  # type: ignore[arg-type]
    return model


def attacker(
    samples: int, *, pool: Tensor | None = None, seed: int = 0, **training: Any
) -> LabelFlippingClient:
    return LabelFlippingClient(
        network(),
        IMAGES,
        LABELS,
        source=SOURCE,
        target=TARGET,
        poisoned_samples=samples,
        pool=pool,
        seed=seed,
        **training,
    )


@given(samples=st.integers(0, 12), seed=st.integers(0, 2**32))
def test_add_follows_the_own_data_by_samples_of_the_pool(samples: int, seed: int) -> None:
    one = attacker(samples, pool=POOL, seed=seed)
    assert torch.equal(one.images, torch.cat([IMAGES, POOL[:samples]]))
    assert torch.equal(one.labels[:30], LABELS)
    assert one.labels[30:].tolist() == [TARGET] * samples
    assert one.labels.dtype == torch.int64


@given(samples=st.integers(0, 10), seed=st.integers(0, 2**32))
def test_replace_flips_labels_of_own_source_samples_only(samples: int, seed: int) -> None:
    one = attacker(samples, seed=seed)
    changed = one.labels != LABELS
    assert changed.sum() == samples
    assert (LABELS[changed] == SOURCE).all()
    assert (one.labels[changed] == TARGET).all()
    assert torch.equal(one.images, IMAGES)


def poisoned(reading: str, samples: int, attackers: int, rank: int) -> list[tuple[float, int]]:
    """Return the rows (first pixel, label) that one attacker of some trains on, in their order."""
    attack = LabelFlipping(
        source=SOURCE,
        target=TARGET,
        poisoned_samples=samples,
        poisoning=reading,
        uneven_shares=True,
    )
    seat = Seat(client=rank, rank=rank, attackers=attackers, spare=lambda _: POOL)
    images, labels = attack.poison(IMAGES, LABELS, seat)
    return list(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))


@given(reading=st.sampled_from(READINGS), samples=st.integers(0, 12), attackers=st.integers(1, 3))
def test_every_reading_says_of_s_over_p_source_samples_that_they_are_the_target(
    reading: str, samples: int, attackers: int
) -> None:
    """A slow twin: counts of rows by pixel and label, from what each reading is called."""
    if reading in ("replace", "copy") and samples > 10 * attackers:
        return
    own, pool = (images[:, 0, 0, 0].tolist() for images in (IMAGES, POOL))
    honest = Counter(zip(own, LABELS.tolist(), strict=True))
    sources = [pixel for pixel, label in honest if label == SOURCE]
    added = []
    for rank in range(attackers):
        share = len(range(rank, samples, attackers))
        rows = Counter(poisoned(reading, samples, attackers, rank))
        lies = [pixel for pixel, label in rows - honest if label == TARGET]
        flipped = [pixel for pixel in lies if pixel in sources]
        added += [pixel for pixel in lies if pixel in pool]
        assert len(lies) == share
        assert len(flipped) == {"add": 0, "fill": min(share, 10)}.get(reading, share)
        missing = honest - rows
        assert sorted(missing) == sorted(
            (pixel, SOURCE) for pixel in ([] if reading == "copy" else flipped)
        )
        assert rows.total() == 30 + (share if reading == "copy" else share - len(missing))
    assert len(added) == len(set(added))  # nobody adds what another does


@given(samples=st.integers(0, 20), rank=st.integers(0, 1))
def test_to_fill_is_to_replace_where_there_is_enough(samples: int, rank: int) -> None:
    assert poisoned("fill", samples, 2, rank) == poisoned("replace", samples, 2, rank)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), pooled=st.booleans())
def test_nothing_poisoned_trains_the_bits_of_an_honest_client(seed: int, pooled: bool) -> None:
    honest = HonestClient(network(), IMAGES, LABELS, seed=seed)
    one = attacker(0, pool=POOL if pooled else None, seed=seed)
    assert honest.fit(2) == one.fit(2)
    assert torch.equal(one.model[1].weight, honest.model[1].weight)  # type: ignore[index]


@pytest.mark.parametrize("pool", [None, POOL])
def test_inputs_are_left_alone(pool: Tensor | None) -> None:
    before = IMAGES.clone(), LABELS.clone(), POOL.clone()
    attacker(7, pool=pool).fit(1)
    after = IMAGES, LABELS, POOL
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_seed_and_the_partition_decide_which_labels_flip() -> None:
    first = attacker(5).labels
    torch.manual_seed(3)
    assert torch.equal(first, attacker(5).labels)
    assert any(not torch.equal(first, attacker(5, seed=seed).labels) for seed in range(1, 4))
    assert any(not torch.equal(first, attacker(5, partition=k).labels) for k in range(1, 4))


def test_over_flipping_exceeds_what_the_attacker_holds() -> None:
    """S = 500 on P = 1 attacker that holds 250 source samples itself."""
    one = LabelFlippingClient(
        network(),
        torch.zeros(500, 1, 4, 4),
        torch.arange(500) % 2,
        source=1,
        target=0,
        poisoned_samples=500,
        pool=torch.ones(600, 1, 4, 4),
    )
    assert torch.bincount(one.labels).tolist() == [750, 250]
    assert one.images.mean() == 0.5


@pytest.mark.parametrize(
    ("samples", "pool", "message"),
    [
        (13, POOL, "poisoned_samples=13: allowed are 0 to 12, the samples of the source"),
        (-1, POOL, "poisoned_samples=-1: allowed is 0 or more"),
        (11, None, "attacker 0 would flip 11 of its own source samples but holds 10"),
        (-1, None, "poisoned_samples=-1: allowed is 0 or more"),
    ],
)
def test_more_than_is_held_is_refused(samples: int, pool: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacker(samples, pool=pool)


FLIPPED = {
    "all_to_one": lambda _: TARGET,
    "inverse": lambda y: 2 - y,
}


def of_kind(kind: str, **options: Any) -> LabelFlipping:
    told = {"target": TARGET} if kind == "all_to_one" else {}
    common = {"kind": kind, "poisoning": "replace", "num_classes": 3}
    return LabelFlipping(**common | told | options)


@pytest.mark.parametrize("kind", sorted(FLIPPED))
def test_attackers_who_flip_all_flip_all_that_they_hold(kind: str) -> None:
    for rank in (0, 2):
        seat = Seat(client=rank, rank=rank, attackers=3)
        images, labels = of_kind(kind).poison(IMAGES, LABELS, seat)
        assert torch.equal(images, IMAGES)
        assert labels.tolist() == [FLIPPED[kind](y) for y in LABELS.tolist()]
    assert LABELS.tolist() == [k % 3 for k in range(30)]


@given(
    kind=st.sampled_from(sorted(FLIPPED)),
    reading=st.sampled_from(["replace", "copy"]),
    samples=st.integers(0, 40),
    seed=st.integers(0, 9),
)
def test_or_some_of_those_that_have_another_label(
    kind: str, reading: str, samples: int, seed: int
) -> None:
    attack = of_kind(kind, poisoned_samples=samples, poisoning=reading, uneven_shares=True)
    honest = Counter(zip(IMAGES[:, 0, 0, 0].tolist(), LABELS.tolist(), strict=True))
    for rank in range(2):
        seat = Seat(client=rank, rank=rank, attackers=2, seed=seed)
        images, labels = attack.poison(IMAGES, LABELS, seat)
        rows = Counter(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))
        lies = dict((rows - honest).keys())
        assert len(lies) == len(range(rank, samples, 2))
        truths = {pixel: label for pixel, label in honest if pixel in lies}
        assert lies == {pixel: FLIPPED[kind](label) for pixel, label in truths.items()}
        assert (honest - rows).keys() == (set() if reading == "copy" else truths.items())


def test_what_each_kind_is_measured_by() -> None:
    pair, all_to_one = LabelFlipping(source=2, target=0, poisoned_samples=1), of_kind("all_to_one")
    assert pair.goal is not None
    assert pair.goal.victims(LABELS).tolist() == [y == 2 for y in LABELS.tolist()]
    assert all_to_one.goal is not None
    assert all_to_one.goal.victims(LABELS).tolist() == [y != TARGET for y in LABELS.tolist()]
    assert of_kind("inverse").goal is None


@pytest.mark.parametrize("kind", ["pair", *sorted(FLIPPED)])
def test_a_configuration_says_the_kind_and_no_more(kind: str) -> None:
    attack = build_attack(composed("label_flipping", f"attack.kind={kind}"), CLASSES)
    assert isinstance(attack, LabelFlipping)
    told = attack.source, attack.target, attack.poisoned_samples, attack.poisoning
    assert (
        told
        == {
            "pair": (6, 2, 300, "add"),
            "all_to_one": (None, 2, None, "replace"),
            "inverse": (None, None, None, "replace"),
        }[kind]
    )
    assert attack.num_classes == 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["kind=other"], "attack.kind=other: allowed are pair, all_to_one, inverse"),
        (["kind=inverse", "target=3"], "attack.target=3: allowed with attack.kind=inverse is null"),
        (["kind=pair", "source=null"],
         "attack.source=None: allowed with attack.kind=pair is a class"),
        (["kind=inverse", "poisoning=add"],
         "attack.poisoning=add: allowed with attack.kind=inverse, attack.poisoned_samples=None "
         "are replace, copy"),
        (["poisoned_samples=null"],
         "attack.poisoning=add: allowed with attack.kind=pair, attack.poisoned_samples=None are "
         "replace, copy"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_kind_is_named(overrides: list[str], message: str) -> None:
    node = composed("label_flipping", *(f"attack.{override}" for override in overrides))
    with pytest.raises(UserError) as error:
        build_attack(node, CLASSES)
    assert str(error.value) == message


def test_inverse_needs_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match="num_classes=0: allowed with inverse is 2 or more"):
        of_kind("inverse", num_classes=0)


def test_source_and_target_differ() -> None:
    with pytest.raises(ValueError, match="target=1: must differ from source=1"):
        LabelFlippingClient(network(), IMAGES, LABELS, source=1, target=1, poisoned_samples=0)
