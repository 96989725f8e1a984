"""Model replacement [Bagdasaryan et al., 2020]."""

import math
from dataclasses import dataclass

from ..attacker import Attack
from ..seat import Seat, Update


@dataclass(kw_only=True)
class ModelReplacement(Attack):
    """Send ``G + gamma * (L - G)``.

    Bagdasaryan et al. 2020, "How To Backdoor Federated Learning": with
    ``gamma = n / (eta P)`` the average of n clients, P of them attackers, becomes the attackers'
    model once the others have converged. eta is what the server multiplies the average by: 1 in
    FedAvg. The paper has one attacker and a sum, G + eta / n sum (L_i - G), whose n / eta that is.

    *Knows* n and P, and what it trained itself. *Cost*: a pass over d parameters. *Known
    weaknesses*: the longer update is what clipping and rules of distances see first; where
    attackers are more in a round than on average, they overshoot.

    Attributes
    ----------
    factor : float, optional
        gamma, the scaling of the update. None: n / P, `Seat.clients_per_attacker`; where the server
        has another eta than 1, or is no average, give the factor.

    Raises
    ------
    ValueError
        If the factor is not a finite number above 0, or not given to one who was not told n / P.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        """Check the factor."""
        if self.factor is not None and not 0 < self.factor < math.inf:
            raise ValueError(f"factor={self.factor}: allowed is a finite number > 0, or null")

    def craft(self, update: Update, seat: Seat) -> Update:
        """Scale the update."""
        factor = seat.clients_per_attacker if self.factor is None else self.factor
        if factor is None:
            raise ValueError("factor=None: allowed is a number where the seat is not told n / P")
        return {name: factor * array for name, array in update.items()}
