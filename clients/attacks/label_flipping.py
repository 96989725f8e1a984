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


@dataclass(kw_only=True)
class LabelFlipping(Attack):
    """Samples of the source class are labelled as the target class.

    Attributes
    ----------
    source, target : int
        I and T.
    poisoned_samples : int
        S, contaminated samples over all attackers.
    poisoning : {"add", "replace", "fill", "copy"}
        What "poisoning D_k with S/P contaminated data (over-flipping)" is, Algorithm 1 line 9.
        ``add`` samples that no participant holds; ``replace`` own samples, whose labels are
        flipped; ``fill``: flip own ones first, and add the rest; ``copy``: keep own samples beside
        copies with the other label. S/P can exceed what an attacker holds: then there is no
        ``replace`` and no ``copy``.
    uneven_shares : bool
        Permit an S that P does not divide: the first attackers then take one sample more.

    Raises
    ------
    ValueError
        If source and target are the same, or S samples cannot be had or shared so.
    """

    source: int
    target: int
    poisoned_samples: int
    poisoning: str = "add"
    uneven_shares: bool = False

    classes: ClassVar = ("source", "target")

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if self.source == self.target:
            raise ValueError(f"target={self.target}: must differ from source={self.source}")
        if self.poisoning not in READINGS:
            raise ValueError(f"poisoning={self.poisoning}: allowed are {', '.join(READINGS)}")
        if self.poisoned_samples < 0:
            raise ValueError(f"poisoned_samples={self.poisoned_samples}: allowed is 0 or more")

    @property
    def goal(self) -> Goal:
        """Samples of the source class read as the target (Definition 1)."""
        return Goal(self.target, self.source)

    def shares(self, attackers: int) -> list[int]:
        """Return S/P for each attacker; the first take the remainder."""
        base, rest = divmod(self.poisoned_samples, attackers)
        if rest and not self.uneven_shares:
            less = self.poisoned_samples - rest
            raise ValueError(
                f"poisoned_samples={self.poisoned_samples}: not divisible by num_attackers="
                f"{attackers}; allowed are multiples such as {less} and {less + attackers}, or any "
                "number with uneven_shares=true"
            )
        return [base + (rank < rest) for rank in range(attackers)]

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Add contaminated samples, or flip labels of own ones, or both."""
        shares = self.shares(seat.attackers)
        share, before = shares[seat.rank], sum(shares[: seat.rank])
        own = np.flatnonzero(labels.cpu().numpy() == self.source)
        taken = {"add": 0, "fill": min(share, len(own))}.get(self.poisoning, share)
        if taken > len(own):
            raise ValueError(
                f"poisoned_samples={self.poisoned_samples}: attacker {seat.rank} would flip "
                f"{share} of its own source samples but holds {len(own)}; allowed is less, or "
                "poisoning=add"
            )
        chosen = seat.rng().choice(own, taken, replace=False)
        more = inputs[:0]
        if self.poisoning == "copy":
            more = inputs[chosen]
        else:
            labels = labels.clone()
            labels[chosen] = self.target
            if share > taken:
                more = self._pool(inputs, seat)[before:][: share - taken]
        added = labels.new_full((len(more),), self.target)
        return torch.cat([inputs, more]), torch.cat([labels, added])

    def _pool(self, inputs: Tensor, seat: Seat) -> Tensor:
        """Return the source's samples that nobody holds: enough for all attackers to add S."""
        pool = inputs[:0] if seat.spare is None else seat.spare(self.source).to(inputs)
        if self.poisoned_samples > len(pool):
            raise ValueError(
                f"poisoned_samples={self.poisoned_samples}: allowed are 0 to {len(pool)}, the "
                "samples of the source that no participant holds"
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
