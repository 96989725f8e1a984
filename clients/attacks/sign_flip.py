"""Sign flipping, as in Li et al. 2019."""

import math
from dataclasses import dataclass

from ..attacker import Attack
from ..seat import Seat, Update


@dataclass(kw_only=True)
class SignFlip(Attack):
    """Send the own update with its sign turned around, and scaled.

    Li et al. 2019, "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning
    from Heterogeneous Datasets", experiments. Untargeted: a sanity check.

    *Knows* what it trained itself. *Cost*: one pass over d parameters. *Known weaknesses*: its
    direction is against everybody's, and easily seen.

    Attributes
    ----------
    factor : float
        The update sent is -factor times the one trained.

    Raises
    ------
    ValueError
        If the factor is not a finite number above 0.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the factor."""
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor={self.factor}: allowed is a finite number > 0")

    def craft(self, update: Update, seat: Seat) -> Update:  # noqa: ARG002
        """Turn the update around."""
        return {name: -self.factor * array for name, array in update.items()}
