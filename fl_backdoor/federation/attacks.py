"""What an experiment's attackers do, and when their attack succeeds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from clients import BackdoorClient, HonestClient, LabelFlippingClient
from clients.attacks.backdoor import BADNETS_PATTERN, stamp

from ..errors import UserError


@dataclass(kw_only=True)
class Attack(ABC):
    """What all attacks have in common: how many clients attack, and which.

    Attributes
    ----------
    num_attackers : int
        P.
    target : int
        T, the digit that the attackers want to be read.
    roster : {"first", "random"}
        Clients 0 to P-1, or a seeded draw.
    allow_over_third : bool
        Permit more attackers than the N/3 of Cao et al. 2019, section II.C.
    """

    num_attackers: int
    target: int
    roster: str = "first"
    allow_over_third: bool = False

    def attackers(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """Draw the roster: the partitions that attack, ascending.

        Raises
        ------
        UserError
            If there are more attackers than allowed, or the way to draw them is unknown.
        """
        most = num_clients if self.allow_over_third else num_clients // 3
        if not 0 <= self.num_attackers <= most:
            raise UserError(
                f"attack.num_attackers={self.num_attackers}: allowed are 0 to {most} of "
                f"{num_clients} clients (attack.allow_over_third={self.allow_over_third})"
            )
        if self.roster == "first":
            return tuple(range(self.num_attackers))
        if self.roster == "random":
            drawn = np.random.default_rng([seed, 1]).permutation(num_clients)
            return tuple(sorted(drawn[: self.num_attackers].tolist()))
        raise UserError(f"attack.roster={self.roster}: allowed are first, random")

    def goal_digits(self) -> dict[str, int]:
        """Return the digits that the goal names, by key."""
        return {"target": self.target}

    def pool_shares(self) -> list[int]:
        """Return how many samples of the unused pool each attacker adds, one by one."""
        return [0] * self.num_attackers

    def pool_digit(self) -> int | None:
        """Return the digit of the samples taken from the pool."""
        return None

    @abstractmethod
    def client(
        self,
        rank: int,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        pool: Tensor,
        digits: list[int],
        **training: Any,
    ) -> HonestClient:
        """Build an attacker.

        Parameters
        ----------
        rank : int
            Its place among the attackers, 0 to P-1.
        model, images, labels
            As for `clients.HonestClient`.
        pool : Tensor
            Its share of the pool, images of the digit `pool_digit`.
        digits : list of int
            The digit that each label stands for.
        **training
            Arguments of `clients.HonestClient`.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words what is attacked, for the first lines of a run."""

    @abstractmethod
    def victims(self, labels: Tensor, digits: list[int]) -> Tensor:
        """Mark the test samples that the attack success rate counts, shape ``(n,)``, bool."""

    @abstractmethod
    def triggered(self, images: Tensor) -> Tensor | None:
        """Return test images with the trigger, or None if the attack works without one."""


@dataclass(kw_only=True)
class LabelFlipping(Attack):
    """Cao et al. 2019, Algorithm 1: samples of the source digit labelled as the target.

    Attributes
    ----------
    source : int
        I, the digit whose samples are mislabelled.
    poisoned_samples : int
        S, contaminated samples over all attackers; with no attacker there are none.
    poisoning : {"add", "replace"}
        Add samples from the pool that no participant holds, or flip labels of own samples.
    uneven_shares : bool
        Permit an S that P does not divide: the first attackers then take one sample more.
    """

    source: int
    poisoned_samples: int
    poisoning: str = "add"
    uneven_shares: bool = False

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        poisoned, attackers = self.poisoned_samples, self.num_attackers
        if self.source == self.target:
            raise UserError(f"attack.target={self.target}: must differ from attack.source")
        if self.poisoning not in ("add", "replace"):
            raise UserError(f"attack.poisoning={self.poisoning}: allowed are add, replace")
        if poisoned < 0:
            raise UserError(f"attack.poisoned_samples={poisoned}: allowed is 0 or more")
        if attackers > 0 and poisoned % attackers and not self.uneven_shares:
            less = poisoned - poisoned % attackers
            raise UserError(
                f"attack.poisoned_samples={poisoned}: not divisible by attack.num_attackers="
                f"{attackers}; allowed are multiples such as {less} and {less + attackers}, or any "
                "number with attack.uneven_shares=true"
            )

    def goal_digits(self) -> dict[str, int]:
        """Return source and target."""
        return {"source": self.source, "target": self.target}

    def shares(self) -> list[int]:
        """Return S/P for each attacker; the first take the remainder."""
        base, rest = divmod(self.poisoned_samples, max(self.num_attackers, 1))
        return [base + (rank < rest) for rank in range(self.num_attackers)]

    def pool_shares(self) -> list[int]:
        """Return S/P where samples are added."""
        return self.shares() if self.poisoning == "add" else super().pool_shares()

    def pool_digit(self) -> int:
        """Return I."""
        return self.source

    def client(
        self,
        rank: int,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        pool: Tensor,
        digits: list[int],
        **training: Any,
    ) -> HonestClient:
        """Build a label-flipping attacker."""
        share = self.shares()[rank]
        own = int((labels == digits.index(self.source)).sum())
        if self.poisoning == "replace" and share > own:
            raise UserError(
                f"attack.poisoned_samples={self.poisoned_samples}: attacker {rank} would flip "
                f"{share} of its own source samples but holds {own}; allowed is less, or "
                "attack.poisoning=add"
            )
        return LabelFlippingClient(
            model,
            images,
            labels,
            source=digits.index(self.source),
            target=digits.index(self.target),
            poisoned_samples=share,
            pool=pool if self.poisoning == "add" else None,
            **training,
        )

    def describe(self) -> str:
        """Name the goal and the samples of each attacker."""
        shares = " + ".join(map(str, self.shares())) or "no"
        return f"{self.source} labelled {self.target}, {shares} samples"

    def victims(self, labels: Tensor, digits: list[int]) -> Tensor:
        """Mark the samples of the source digit (Definition 1)."""
        return labels == digits.index(self.source)

    def triggered(self, images: Tensor) -> None:
        """Label flipping needs no trigger."""


@dataclass(kw_only=True)
class Backdoor(Attack):
    """A pixel trigger; see `clients.BackdoorClient` for the attributes."""

    fraction: float = 0.5
    pattern: list[list[int]] = field(default_factory=lambda: [list(p) for p in BADNETS_PATTERN])
    replacement: float | None = None
    max_norm: float | None = None

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if not 0 < self.fraction <= 1:
            raise UserError(f"attack.fraction={self.fraction}: allowed is more than 0, at most 1")
        for key in ("replacement", "max_norm"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"attack.{key}={value}: allowed is null or a finite number > 0")
        inside = all(len(p) == 2 and min(p) >= 0 and max(p) < 28 for p in self.pattern)
        if not self.pattern or not inside:
            raise UserError(
                f"attack.pattern={self.pattern}: allowed are [row, column] pixels, [0, 0] to "
                "[27, 27], one or more"
            )

    def client(
        self,
        rank: int,  # noqa: ARG002
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        pool: Tensor,  # noqa: ARG002
        digits: list[int],
        **training: Any,
    ) -> HonestClient:
        """Build a backdoor attacker."""
        return BackdoorClient(
            model,
            images,
            labels,
            target=digits.index(self.target),
            fraction=self.fraction,
            pattern=self.pattern,
            replacement=self.replacement,
            max_norm=self.max_norm,
            **training,
        )

    def describe(self) -> str:
        """Name the size of the trigger and the target."""
        return f"trigger of {len(self.pattern)} pixels labelled {self.target}"

    def victims(self, labels: Tensor, digits: list[int]) -> Tensor:
        """Mark the samples whose true label is not the target."""
        return labels != digits.index(self.target)

    def triggered(self, images: Tensor) -> Tensor:
        """Stamp the trigger."""
        return stamp(images, self.pattern)
