"""Neurotoxin [Zhang et al., 2022]."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import to_numpy
from ..attacker import Attack
from ..seat import Memory, Seat

LAST = "neurotoxin."
"""How the names of the last global model begin in a seat's memory."""


def heavy_hitters(change: Memory, ratio: float) -> dict[str, NDArray[np.bool_]]:
    """Mark the share of all coordinates that moved most, the paper's top_k(g)."""
    sizes = np.abs(np.concatenate([array.ravel() for array in change.values()]))
    mask = np.zeros(len(sizes), dtype=bool)
    if count := round(ratio * len(sizes)):
        mask[np.argpartition(sizes, -count)[-count:]] = True
    ends = np.cumsum([array.size for array in change.values()])[:-1]
    parts = zip(change.items(), np.split(mask, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


@dataclass(kw_only=True)
class Neurotoxin(Attack):
    """Leave the coordinates alone that honest clients move most, so that the backdoor lasts.

    Zhang et al. 2022, "Neurotoxin: Durable Backdoors in Federated Learning": the gradient is
    projected on the coordinates that are not among the top k% of the last global update, by size
    and over all layers. In its first round an attacker has seen one global model only: there, and
    where the model has not moved, it says so and trains as it would without. As in the paper, and
    unlike in the authors' code, which takes a gradient of clean data, what honest clients do is
    read from the last two global models that this attacker received.

    *Knows* these models and its own samples. *Cost*: a selection among d coordinates a round, and
    two passes over them a step. *Known weaknesses*: nothing hides the update from the round's rule;
    what is left alone may be what the backdoor needs.

    Attributes
    ----------
    ratio : float
        k%, the share of coordinates that is left alone, in (0, 1).

    Raises
    ------
    ValueError
        If the ratio is out of range.
    """

    ratio: float = 0.05

    def __post_init__(self) -> None:
        """Check the ratio."""
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio={self.ratio}: allowed is more than 0, less than 1")

    def project(self, gradients: dict[str, Tensor], seat: Seat) -> None:
        """Step along the other coordinates only."""
        for name, mask in self._heavy(gradients, seat).items():
            gradients[name] = gradients[name].masked_fill(mask, 0)

    def constrain(self, parameters: dict[str, Tensor], seat: Seat) -> None:
        """Take back what the L2 regularization, which is no part of the gradient, moved."""
        for name, mask in self._heavy(parameters, seat).items():
            parameters[name].copy_(torch.where(mask, seat.received[name], parameters[name]))

    def _heavy(self, names: Iterable[str], seat: Seat) -> dict[str, Tensor]:
        if "heavy" not in seat.scratch:
            seat.scratch["heavy"] = {}
            now = {name: to_numpy(seat.received[name]) for name in names}
            known = all(LAST + name in seat.memory for name in now)
            change = {n: a - seat.memory[LAST + n] for n, a in now.items()} if known else {}
            if any(array.any() for array in change.values()):
                for name, mask in heavy_hitters(change, self.ratio).items():
                    tensor = torch.from_numpy(mask).to(seat.received[name].device)
                    seat.scratch["heavy"][name] = tensor
            else:
                seat.refuse(self, "it has not seen the global model move")
            seat.memory |= {LAST + name: array for name, array in now.items()}
        heavy: dict[str, Tensor] = seat.scratch["heavy"]
        return heavy
