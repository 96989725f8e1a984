"""The partition of Cao et al. 2019: so many rows of each class, for everybody."""

from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ...schema import bounded
from ..base import Data, Indices
from .base import Partition


@dataclass(kw_only=True)
class PerClass(Partition):
    """Every client draws as many rows of each class (Cao et al. 2019, section III.B).

    Attributes
    ----------
    samples_per_class : int
        Rows of each class that a client holds.
    """

    samples_per_class: int = bounded(250, least=1)

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw without replacement, so that no two clients share a row."""
        labels = data.labels
        classes, counts = np.unique(labels, return_counts=True)
        wanted, largest = self.samples_per_class, int(counts.min()) // num_clients
        if wanted > largest:
            allowed = f"1 to {largest}" if largest else "none: lower num_clients"
            raise UserError(
                f"partition.samples_per_class={wanted}: class {classes[counts.argmin()]} has "
                f"{counts.min()} samples for {num_clients} participants, allowed is {allowed}"
            )
        rng = np.random.default_rng(seed)
        drawn = [
            rng.permutation(np.flatnonzero(labels == name))[: num_clients * wanted]
            for name in classes
        ]
        by_client = [rows.reshape(num_clients, wanted) for rows in drawn]
        return [np.concatenate(rows) for rows in zip(*by_client, strict=True)]
