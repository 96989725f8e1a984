"""Gaussian updates [Blanchard et al., 2017]."""

import math
from dataclasses import dataclass

from ..attacker import Attack
from ..seat import Seat, Update


@dataclass(kw_only=True)
class Gaussian(Attack):
    """Send noise for an update: each coordinate is drawn from N(0, std^2).

    Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
    whose experiments send gradients of standard deviation 200. Untargeted: a sanity check.

    *Knows* nothing. *Cost*: d draws. *Known weaknesses*: it is far from all others, and easily
    seen; a short one averages out.

    Attributes
    ----------
    std : float
        Standard deviation.

    Raises
    ------
    ValueError
        If it is not a finite number above 0.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the standard deviation."""
        if not 0 < self.std < math.inf:
            raise ValueError(f"std={self.std}: allowed is a finite number > 0")

    def craft(self, update: Update, seat: Seat) -> Update:
        """Draw an update that the seat and the round decide."""
        rng = seat.rng()
        return {name: rng.normal(0.0, self.std, array.shape) for name, array in update.items()}
