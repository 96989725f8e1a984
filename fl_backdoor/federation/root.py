"""Clean training samples that the server holds, and no client."""

from collections.abc import Sequence

import numpy as np

from ..data.base import Indices
from ..errors import UserError


def draw_root(rows: int, samples: int, seed: int) -> Indices:
    """Draw the rows of the server out of all training rows, ascending.

    Raises
    ------
    UserError
        If nothing would be left.
    """
    if samples >= rows:
        raise UserError(
            f"root.samples={samples}: allowed is 0 to {rows - 1}, of {rows} training samples"
        )
    return np.sort(np.random.default_rng([seed, 5]).choice(rows, samples, replace=False))


def without(shares: Sequence[Indices], root: Indices, least: int) -> list[Indices]:
    """Take the rows of the server out of the clients' shares.

    Raises
    ------
    UserError
        If a client is left with fewer than it must hold.
    """
    left = [np.setdiff1d(share, root, assume_unique=True) for share in shares]
    sizes = list(map(len, left))
    if min(sizes) < least:
        raise UserError(
            f"root.samples={len(root)}: client {int(np.argmin(sizes))} would have {min(sizes)} of "
            f"partition.min_samples={least} left; allowed are fewer root samples"
        )
    return left
