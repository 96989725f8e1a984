"""Projected gradient descent [Sun et al., 2019; Wang et al., 2020]."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils import get_total_norm

from ..attacker import Attack
from ..seat import Seat


def project_on_ball(
    parameters: dict[str, Tensor], center: dict[str, Tensor], radius: float
) -> None:
    """Move parameters, in place, to the nearest point of a Euclidean ball around others."""
    moved = {name: parameter - center[name] for name, parameter in parameters.items()}
    length = get_total_norm(moved.values())
    if length > radius:
        for name, step in moved.items():
            parameters[name].copy_(center[name] + step * (radius / length))


@dataclass(kw_only=True)
class PGD(Attack):
    """Train within a Euclidean ball around the model received.

    Sun et al. 2019, "Can You Really Backdoor Federated Learning?" (the norm-bounded backdoor),
    and Wang et al. 2020, "Attack of the Tails" (the PGD attack): minimize the loss of the
    poisoned data such that ||w - w_t|| <= delta, by a projection after each step of the descent.
    So it passes a norm clipping of that radius and, unlike `NormProjection`, which shortens the
    finished update, the descent goes on from the ball. Running statistics are no part of it.

    *Knows* its own samples, and guesses the radius. *Cost*: two passes over d parameters a step.
    *Known weaknesses*: rules of angles or signs see it all the same; a small ball takes many
    rounds.

    Attributes
    ----------
    max_norm : float
        delta, the radius.

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

    def constrain(self, parameters: dict[str, Tensor], seat: Seat) -> None:
        """Project the model after a step."""
        project_on_ball(parameters, seat.received, self.max_norm)
