"""Clients that are the natural users of the data."""

from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ..base import Data, Indices
from .base import Partition


@dataclass(kw_only=True)
class Natural(Partition):
    """Every client is a user, drawn at random among those with ``min_samples`` rows or more."""

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw the users; sort the rows by user once, not once a user."""
        if data.owners is None:
            raise UserError("partition=natural: allowed where the data has natural users (owners)")
        by_user = np.argsort(data.owners, kind="stable")
        _, starts = np.unique(data.owners[by_user], return_index=True)
        rows = np.split(by_user, starts[1:])
        users = np.array([user for user, own in enumerate(rows) if len(own) >= self.min_samples])
        if not len(users):
            raise UserError(
                f"partition.min_samples={self.min_samples}: allowed are 1 to "
                f"{max(map(len, rows))}, the most rows of a user"
            )
        if num_clients > len(users):
            raise UserError(
                f"num_clients={num_clients}: allowed is 1 to {len(users)}, the users with "
                f"partition.min_samples={self.min_samples} or more"
            )
        rng = np.random.default_rng(seed)
        return [rng.permutation(rows[user]) for user in rng.permutation(users)[:num_clients]]
