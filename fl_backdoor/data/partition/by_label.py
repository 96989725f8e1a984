"""Shares that differ in their classes, drawn by flwr-datasets' partitioners."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from ...schema import bounded
from ..base import Data, Indices
from .base import Partition, topped_up


@dataclass(kw_only=True)
class Dirichlet(Partition):
    """Each class is shared out in proportions drawn from Dirichlet(alpha) (Hsu et al. 2019).

    Drawn anew, up to ten times, while somebody has no row; after that, and where somebody has
    fewer than ``min_samples``, rows are taken from the largest shares (`topped_up`).

    Attributes
    ----------
    alpha : float
        Concentration: the smaller, the more the clients' classes differ.
    """

    alpha: float = bounded(0.5, above=0)

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw by `DirichletPartitioner`."""
        from flwr_datasets.partitioner import DirichletPartitioner

        for least in (1, 0):
            partitioner = DirichletPartitioner(
                num_clients, LABEL, alpha=float(self.alpha), min_partition_size=least, seed=seed
            )
            try:
                return _loaded(partitioner, data, num_clients)
            except ValueError as error:
                failure = error
        raise UserError(f"partition.alpha={self.alpha}: {failure}") from failure

    def repair(self, shares: list[Indices], rng: np.random.Generator) -> list[Indices]:
        """Take from the largest."""
        return topped_up(shares, self.min_samples, rng)


@dataclass(kw_only=True)
class Shards(Partition):
    """The rows sorted by class and cut into shards of equal size (McMahan et al. 2017).

    Attributes
    ----------
    shards : int
        Shards that a client gets at random; the fewer, the fewer classes.
    """

    shards: int = bounded(2, least=1)

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw by `ShardPartitioner`; the rows that fill no shard are left over."""
        from flwr_datasets.partitioner import ShardPartitioner

        rows = len(data.train)
        if self.shards * num_clients > rows:
            raise UserError(
                f"partition.shards={self.shards}: {num_clients} clients share {rows} samples, "
                f"allowed is 1 to {rows // num_clients}"
            )
        partitioner = ShardPartitioner(
            num_clients, LABEL, num_shards_per_partition=self.shards, seed=seed
        )
        return _loaded(partitioner, data, num_clients)


@dataclass(kw_only=True)
class Pathological(Partition):
    """Every client holds so many classes, and no row of another (Li et al. 2022).

    Attributes
    ----------
    classes_per_client : int
        Different classes of each client. The first of client k is class k mod C, so that no
        class is left out where there are as many clients; the others are drawn.
    """

    classes_per_client: int = bounded(2, least=1)

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw by `PathologicalPartitioner`."""
        from flwr_datasets.partitioner import PathologicalPartitioner

        wanted, classes = self.classes_per_client, len(data.classes)
        if wanted > classes:
            raise UserError(
                f"partition.classes_per_client={wanted}: allowed is 1 to {classes}, the classes "
                "of the data"
            )
        partitioner = PathologicalPartitioner(
            num_clients,
            LABEL,
            wanted,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
        try:
            return _loaded(partitioner, data, num_clients)
        except ValueError as error:
            raise UserError(
                f"partition.classes_per_client={wanted}: a class has fewer samples than clients "
                f"among the {num_clients} that need one; allowed is less, or a smaller num_clients"
            ) from error


LABEL = "label"
"""The column by which flwr-datasets shares out."""


def _loaded(partitioner: Any, data: Data, num_clients: int) -> list[Indices]:
    """Return the rows of each partition, in the partitioner's order.

    Raises
    ------
    ValueError
        What the partitioner raises, where the data cannot be shared out so.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = np.arange(len(data.train))
    partitioner.dataset = Dataset.from_dict({LABEL: data.labels, "index": rows})
    # It warns at each new draw and of classes that nobody has, which the figure shows.
    with warnings.catch_warnings(action="ignore"):
        parts = [partitioner.load_partition(client) for client in range(num_clients)]
    # `[:]` first: without it a column is read row by row, which takes seconds.
    return [np.asarray(part.with_format("numpy")[:]["index"], dtype=np.int64) for part in parts]
