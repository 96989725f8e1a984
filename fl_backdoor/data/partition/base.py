"""A partition of the training rows among clients, and what is done about too small shares."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...schema import bounded
from ..base import Data, Indices


@dataclass(kw_only=True)
class Partition(ABC):
    """A way to share out training rows; subclasses are built from ``conf/partition``.

    A subclass draws (`draw`). What it gives is cut to ``max_samples``, and held against
    ``min_samples``: a share that is too small is made larger by `repair`, if the subclass has
    one, or refused.

    Attributes
    ----------
    min_samples : int
        Rows that every client must hold.
    max_samples : int or None
        Rows that a client keeps at most, a random choice of its share; None: all.
    """

    min_samples: int = bounded(1, least=1)
    max_samples: int | None = bounded(None, least=1)

    @property
    def name(self) -> str:
        """What the class is called in ``conf/partition``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def shares(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Share out the training rows; the seed alone decides the draw.

        Returns
        -------
        list of ndarray
            The rows of each client: ascending, disjoint between clients.

        Raises
        ------
        UserError
            If a setting does not fit the data or the number of clients.
        """
        rows = len(data.train)
        if not 1 <= num_clients <= rows:
            raise UserError(
                f"num_clients={num_clients}: allowed is 1 to {rows}, the number of training samples"
            )
        if self.max_samples is not None and self.max_samples < self.min_samples:
            raise UserError(
                f"partition.max_samples={self.max_samples}: allowed is "
                f"partition.min_samples={self.min_samples} or more, or null"
            )
        shares = self.draw(data, num_clients, seed)
        if min(map(len, shares)) < self.min_samples:
            shares = self.repair(shares, np.random.default_rng([seed, 4]))
        return [np.sort(share[: self.max_samples]) for share in shares]

    @abstractmethod
    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw the rows of each client, in random order, disjoint between clients.

        Raises
        ------
        UserError
            If a setting does not fit the data or the number of clients.
        """

    def repair(
        self,
        shares: list[Indices],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> list[Indices]:
        """Do something about shares below ``min_samples``: unless overridden, refuse them."""
        sizes = list(map(len, shares))
        raise UserError(
            f"partition.min_samples={self.min_samples}: client {int(np.argmin(sizes))} has "
            f"{min(sizes)}, and more would break what partition={self.name} promises; "
            "allowed is no more than every client has"
        )


def topped_up(shares: list[Indices], least: int, rng: np.random.Generator) -> list[Indices]:
    """Give clients with fewer than `least` rows some of those who hold the most.

    One row at a time: the client who then holds the most (of equals the first) gives one of its
    rows, drawn by `rng`, until every client has `least`.

    Raises
    ------
    UserError
        If there are too few rows.
    """
    sizes = np.array(list(map(len, shares)))
    if sizes.sum() < least * len(shares):
        raise UserError(
            f"partition.min_samples={least}: {len(shares)} clients share {sizes.sum()} samples, "
            f"allowed is 1 to {sizes.sum() // len(shares)}"
        )
    held: dict[int, list[int]] = {}
    for client in np.flatnonzero(sizes < least).tolist():
        held[client] = list(shares[client])
        while sizes[client] < least:
            giver = int(sizes.argmax())
            rows = held.setdefault(giver, list(shares[giver]))
            held[client].append(rows.pop(int(rng.integers(len(rows)))))
            sizes[giver] -= 1
            sizes[client] += 1
    return [
        np.array(held[client], dtype=np.int64) if client in held else share
        for client, share in enumerate(shares)
    ]


def unused(num_samples: int, shares: Sequence[Indices]) -> Indices:
    """Return the rows, ascending, out of `num_samples` that nobody holds."""
    free = np.ones(num_samples, dtype=bool)
    for share in shares:
        free[share] = False
    return np.flatnonzero(free)


def pool(data: Data, shares: Sequence[Indices], label: int, seed: int) -> Indices:
    """Return the training rows of a class that nobody holds, in seeded order."""
    rows = unused(len(data.train), shares)
    own = rows[data.train.labels.numpy()[rows] == label]
    return np.random.default_rng([seed, 2]).permutation(own)


def class_counts(
    labels: NDArray[Any], shares: Sequence[Indices], num_classes: int
) -> NDArray[np.int64]:
    """Count the rows of each client and class, shape (clients, classes)."""
    return np.array([np.bincount(labels[share], minlength=num_classes) for share in shares])
