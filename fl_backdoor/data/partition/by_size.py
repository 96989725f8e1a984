"""Shares of the shuffled rows: equal ones, or ones that grow with the number of the client."""

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from ...errors import UserError
from ..base import Data, Indices
from .base import Partition, topped_up

MAX_EXPONENT: Final = 700
"""exp(709) is the largest that float64 holds."""


@dataclass(kw_only=True)
class Iid(Partition):
    """Equal shares of the shuffled rows; sizes differ by one row at most.

    These are the shares of flwr-datasets' `IidPartitioner` after a shuffle, without the seconds
    that its import takes.
    """

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Cut the shuffled rows."""
        shuffled = np.random.default_rng(seed).permutation(len(data.train))
        return np.array_split(shuffled, num_clients)

    def repair(self, shares: list[Indices], rng: np.random.Generator) -> list[Indices]:
        """Take from the largest, which here means that there are too few rows."""
        return topped_up(shares, self.min_samples, rng)


@dataclass(kw_only=True)
class Linear(Iid):
    """Client k, counted from 1, gets k parts of the shuffled rows (`LinearPartitioner`)."""

    partitioner: ClassVar[str] = "LinearPartitioner"

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Cut the shuffled rows at the sizes of flwr-datasets."""
        from datasets import Dataset
        from flwr_datasets import partitioner as flower

        shuffled = np.random.default_rng(seed).permutation(len(data.train))
        sizer = getattr(flower, self.partitioner)(num_clients)
        sizer.dataset = Dataset.from_dict({"index": shuffled})
        with suppress(ValueError):  # of shares without a row, which are repaired here
            _ = sizer.num_partitions  # makes it decide
        sizes = [sizer.partition_id_to_size[client] for client in range(num_clients)]
        return np.split(shuffled, np.cumsum(sizes)[:-1])


@dataclass(kw_only=True)
class Square(Linear):
    """Client k, counted from 1, gets k^2 parts of the shuffled rows (`SquarePartitioner`)."""

    partitioner: ClassVar[str] = "SquarePartitioner"


@dataclass(kw_only=True)
class Exponential(Linear):
    """Client k gets e^k parts of the shuffled rows (`ExponentialPartitioner`)."""

    partitioner: ClassVar[str] = "ExponentialPartitioner"

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Cut the shuffled rows at the sizes of flwr-datasets."""
        if num_clients > MAX_EXPONENT:
            raise UserError(
                f"num_clients={num_clients}: allowed with partition=exponential is 1 to "
                f"{MAX_EXPONENT}"
            )
        return super().draw(data, num_clients, seed)
