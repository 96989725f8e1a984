"""Distributed label-flipping attack [Cao et al., 2019], section II.C and Algorithm 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..attacker import Attack, Goal, Seat
from ..malicious import MaliciousClient

READINGS = ("add", "replace", "fill", "copy")
"""Of Algorithm 1, line 9."""

KINDS = {"pair": ("source", "target"), "all_to_one": ("target",), "inverse": ()}
"""Of flipping, and the classes that each is told."""


@dataclass(kw_only=True)
class LabelFlipping(Attack):
    """Samples get the label of another class, and nothing else about them changes.

    - ``pair``: those of the source class I that of the target class T (Cao et al. 2019,
      Definition 1). Measured is how often I is read as T.
    - ``all_to_one``: those of all other classes that of T. Measured is how often they are read
      as T.
    - ``inverse``: of C classes, y becomes C - 1 - y (as Fang et al. 2020 flip all labels).
      Untargeted: measured is the accuracy that it costs.

    An attacker knows its own samples, and those of the pool.

    Attributes
    ----------
    kind : {"pair", "all_to_one", "inverse"}
        Which labels become which.
    source, target : int, optional
        I and T, as far as the kind has them.
    poisoned_samples : int, optional
        S, contaminated samples over all attackers. None: all that an attacker holds.
    poisoning : {"add", "replace", "fill", "copy"}
        What "poisoning D_k with S/P contaminated data (over-flipping)" is, Algorithm 1 line 9.
        ``add`` samples that no participant holds; ``replace`` own samples, whose labels are
        flipped; ``fill``: flip own ones first, and add the rest; ``copy``: keep own samples beside
        copies with the other label. S/P can exceed what an attacker holds: then there is no
        ``replace`` and no ``copy``. ``add`` and ``fill`` are of pairs.
    uneven_shares : bool
        Permit an S that P does not divide: the first attackers then take one sample more.
    num_classes : int
        C, which ``inverse`` needs.

    Raises
    ------
    ValueError
        If source and target are the same, the settings do not fit the kind, or S samples cannot be
        had or shared so.
    """

    kind: str = "pair"
    source: int | None = None
    target: int | None = None
    poisoned_samples: int | None = None
    poisoning: str = "add"
    uneven_shares: bool = False
    num_classes: int = 0

    classes: ClassVar = ("source", "target")

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind}: allowed are {', '.join(KINDS)}")
        for name in self.classes:
            told, needed = getattr(self, name), name in KINDS[self.kind]
            if (told is None) == needed:
                allowed = "a class" if needed else "null"
                raise ValueError(f"{name}={told}: allowed with kind={self.kind} is {allowed}")
        if self.target is not None and self.source == self.target:
            raise ValueError(f"target={self.target}: must differ from source={self.source}")
        if self.kind == "inverse" and self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}: allowed with inverse is 2 or more")
        number = self.poisoned_samples
        from_pool = self.kind == "pair" and number is not None
        readings = READINGS if from_pool else ("replace", "copy")
        if self.poisoning not in readings:
            of = "" if from_pool else f" with kind={self.kind}, poisoned_samples={number}"
            raise ValueError(f"poisoning={self.poisoning}: allowed{of} are {', '.join(readings)}")
        if number is not None and number < 0:
            raise ValueError(f"poisoned_samples={number}: allowed is 0 or more")

    @property
    def goal(self) -> Goal | None:
        """Samples of the source class, or of all others, read as the target; None of inverse."""
        return None if self.target is None else Goal(self.target, self.source)

    def flipped(self, labels: Tensor) -> Tensor:
        """Return the label that the attack has for each sample; the same where it has none."""
        if (goal := self.goal) is None:
            return self.num_classes - 1 - labels
        return labels.masked_fill(goal.victims(labels), goal.target)

    def part(self, samples: int, seat: Seat) -> range:
        """Return which of S samples are an attacker's; the first take the remainder of S/P."""
        base, rest = divmod(samples, seat.attackers)
        if rest and not self.uneven_shares:
            less = samples - rest
            raise ValueError(
                f"poisoned_samples={samples}: not divisible by num_attackers="
                f"{seat.attackers}; allowed are multiples such as {less} and "
                f"{less + seat.attackers}, or any number with uneven_shares=true"
            )
        start = seat.rank * base + min(seat.rank, rest)
        return range(start, start + base + (seat.rank < rest))

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Add contaminated samples, or flip labels of own ones, or both."""
        flipped, number = self.flipped(labels), self.poisoned_samples
        own = np.flatnonzero((flipped != labels).cpu().numpy())
        part = range(len(own)) if number is None else self.part(number, seat)
        taken = {"add": 0, "fill": min(len(part), len(own))}.get(self.poisoning, len(part))
        if taken > len(own):
            of, instead = ("source ", ", or poisoning=add") if self.kind == "pair" else ("", "")
            raise ValueError(
                f"poisoned_samples={number}: attacker {seat.rank} would flip {len(part)} of its "
                f"own {of}samples but holds {len(own)}; allowed is less{instead}"
            )
        chosen = seat.rng().choice(own, taken, replace=False)
        if self.poisoning == "copy":
            return torch.cat([inputs, inputs[chosen]]), torch.cat([labels, flipped[chosen]])
        labels = labels.clone()
        labels[chosen] = flipped[chosen]
        if taken == len(part):
            return inputs, labels
        assert self.source is not None  # pairs alone add
        pool = self._pool(inputs, seat, self.source, number or 0)
        more = pool[part.start :][: len(part) - taken]
        added = self.flipped(labels.new_full((len(more),), self.source))
        return torch.cat([inputs, more]), torch.cat([labels, added])

    def _pool(self, inputs: Tensor, seat: Seat, source: int, samples: int) -> Tensor:
        """Return the source's samples that nobody holds: enough for all attackers to add S."""
        pool = inputs[:0] if seat.spare is None else seat.spare(source).to(inputs)
        if samples > len(pool):
            raise ValueError(
                f"poisoned_samples={samples}: allowed are 0 to {len(pool)}, the samples of the "
                "source that no participant holds; with poisoning=replace attackers flip their own"
            )
        return pool


class LabelFlippingClient(MaliciousClient):
    """A client that trains on flipped labels, alone in any Flower ``ClientApp``.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`: D_k before poisoning.
    source, target : int
        I and T: samples of class ``source`` get the label ``target``.
    poisoned_samples : int
        S/P, this attacker's share of the contaminated samples.
    pool : Tensor of shape (m, ...), optional
        Samples of the source class that nobody else holds: ``poisoned_samples`` of them are
        contaminated and added. Without it, the attacker flips labels of its own.
    **training
        Arguments of `HonestClient`.

    Raises
    ------
    ValueError
        If more samples are to be poisoned than the pool, or the attacker, holds.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        source: int,
        target: int,
        poisoned_samples: int,
        pool: Tensor | None = None,
        **training: Any,
    ) -> None:
        attack = LabelFlipping(
            source=source,
            target=target,
            poisoned_samples=poisoned_samples,
            poisoning="replace" if pool is None else "add",
        )
        spare = None if pool is None else lambda _: pool
        super().__init__(model, images, labels, attack=attack, spare=spare, **training)
