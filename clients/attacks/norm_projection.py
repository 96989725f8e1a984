"""Projection on a norm ball [Sun et al., 2019]."""

from dataclasses import dataclass

from ..attacker import Attack
from ..seat import Seat, Update
from ..updates import norm


@dataclass(kw_only=True)
class NormProjection(Attack):
    """Project the update on the Euclidean ball of a radius around the model received.

    Sun et al. 2019, "Can You Really Backdoor Federated Learning?": what an attacker does that
    knows of, or expects, norm clipping.

    *Knows* what it trained itself, and guesses the radius. *Cost*: two passes over d parameters.
    *Known weaknesses*: a shortened update has learned less; see `PGD`.

    Attributes
    ----------
    max_norm : float
        The radius.

    Raises
    ------
    ValueError
        If the radius is not a number above 0.
    """

    max_norm: float

    def __post_init__(self) -> None:
        """Check the radius."""
        if not self.max_norm > 0:
            raise ValueError(f"max_norm={self.max_norm}: allowed is a number > 0")

    def craft(self, update: Update, seat: Seat) -> Update:  # noqa: ARG002
        """Shorten an update that is too long."""
        length = norm(update)
        if length <= self.max_norm:
            return update
        return {name: self.max_norm / length * array for name, array in update.items()}
