"""DBA, the distributed backdoor attack [Xie et al., 2020]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacker import Goal
from ..seat import Seat
from ..triggers import Trigger
from .backdoor import Backdoor


def places(trigger: Trigger, inputs: Tensor) -> Tensor:
    """Mark where a trigger changes inputs (n, ..., height, width), or (n, features) of a table.

    Returns
    -------
    Tensor of shape (height, width) or (features,), bool
        What it changes of a black input or of a white one, in any channel.
    """
    changed = torch.zeros_like(inputs[0], dtype=torch.bool)
    for plain in (torch.zeros_like(inputs[:1]), torch.ones_like(inputs[:1])):
        changed |= (trigger(plain) != plain)[0]
    return changed.flatten(end_dim=-3).any(dim=0) if changed.ndim > 2 else changed


def part(places: Tensor, rank: int, attackers: int) -> Tensor:
    """Mark the rank-th of as many parts of some places, in their order and of a size."""
    marked = torch.zeros_like(places).flatten()
    marked[places.flatten().nonzero()[:, 0].tensor_split(attackers)[rank]] = True
    return marked.reshape(places.shape)


@dataclass(kw_only=True)
class DBA(Backdoor):
    """Each attacker trains with its part of the trigger; the model is tested with the whole.

    Xie, Huang, Chen, Li 2020, "DBA: Distributed Backdoor Attacks against Federated Learning": the
    global trigger is divided into P local ones, and attacker k puts ``x + (trigger(x) - x) m_k`` on
    its samples, with m_k the mask of its part: the places that the trigger changes, in rows from
    the upper left, in P runs of equal length (the first ones longer by one, if some are left over).
    The paper's are four bars, in the authors' code for MNIST in rows 0 and 3, columns 0 to 3 and 6
    to 9. Where they attack in one round only they scale what they send (``attack.replacement``),
    which those of FLPoison never do.

    *Knows* its own samples, the trigger and its rank. *Cost*: two passes over the samples. *Known
    weaknesses*: the less of a trigger each one has, the less its update shows; and where a part is
    too faint to be learned, so is the whole.

    Attributes
    ----------
    target, fraction, poisoned_samples, trigger, pattern
        As for `Backdoor`. The trigger must be of images or tables: where a token is inserted, all
        that follows moves.

    Raises
    ------
    ValueError
        As for `Backdoor`, or if the trigger has fewer places than there are attackers.
    """

    def planted(self, inputs: Tensor, seat: Seat) -> Goal:
        """Return the goal with the attacker's part of the trigger."""
        if not inputs.is_floating_point():
            raise ValueError(f"trigger={self.trigger}: allowed are those of images and tables")
        whole = places(self.trigger, inputs)
        if (most := int(whole.sum())) < seat.attackers:
            raise ValueError(
                f"num_attackers={seat.attackers}: allowed are at most {most}, the pixels or "
                f"features of trigger={self.trigger}"
            )
        own = part(whole, seat.rank, seat.attackers)
        return Goal(self.target, stamp=lambda x, _: torch.where(own, self.trigger(x), x))
