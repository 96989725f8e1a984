"""Model replacement [Bagdasaryan et al., 2020]."""

import math
from dataclasses import dataclass

from ..attacker import Attack, Seat, Update


@dataclass(kw_only=True)
class ModelReplacement(Attack):
    """Send ``G + factor * (L - G)``.

    Bagdasaryan et al. 2020, "How To Backdoor Federated Learning", section 4.2, Eq. 3: with
    ``factor = N / P`` the average of N clients, P of them attackers, becomes the attackers'
    model once the others have converged.

    Attributes
    ----------
    factor : float
        gamma, the scaling of the update.

    Raises
    ------
    ValueError
        If the factor is not a finite number above 0.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor={self.factor}: allowed is a finite number > 0")

    def craft(self, update: Update, seat: Seat) -> Update:  # noqa: ARG002
        """Scale the update."""
        return {name: self.factor * array for name, array in update.items()}
