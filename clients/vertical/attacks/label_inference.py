"""Backdoor by label inference and direct replacement: Liu, Yi, Chen 2020, section 5.3."""

import torch
from torch import Tensor
from torch.nn import functional

from ..attack import PartyAttack, PartySeat
from .gradient_replacement import mask


def infer_labels(gradient: Tensor) -> Tensor:
    """Read labels from the gradients of softmax and cross-entropy at the summed activations.

    The y-th element of dl_i/dH_i is S_y - 1, the only negative one; so the smallest is taken.

    Parameters
    ----------
    gradient : Tensor of shape (b, C)
        dl_i/dH_i of each row.

    Returns
    -------
    Tensor of shape (b,), int64
    """
    return gradient.argmin(dim=1)


class LabelInference(PartyAttack):
    """Infer labels from gradients, and train triggered rows towards the target instead.

    Works where activations are only summed, so that gradients are those of class scores.

    *Knows* no label, but which rows carry the trigger, and that the loss is cross-entropy after a
    softmax. *Cost*: one pass over a batch's gradients. *Known weaknesses*: any layer between the
    activations and the scores ends it; noise on gradients makes it read wrong labels.

    Parameters
    ----------
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    target : int
        tau, the class that they shall get.
    """

    needs_scores = True

    def __init__(self, *, poisoned_rows: Tensor, target: int) -> None:
        super().__init__()
        self.poisoned_rows = poisoned_rows
        self.target = target

    def describe(self) -> str:
        """Name the attack."""
        return "infers labels and replaces gradients directly"

    def join(self, seat: PartySeat) -> None:
        """Mark the rows among all of them."""
        super().join(seat)
        self._is_poisoned = mask(self.poisoned_rows, seat)

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Replace dl_i/dH_i of poisoned rows by dl^b_i/dH_i: S_j for j != tau, S_tau - 1."""
        classes = gradient.shape[1]
        softmax = gradient + functional.one_hot(infer_labels(gradient), classes)
        aim = functional.one_hot(torch.tensor(self.target), classes)
        return torch.where(self._is_poisoned[rows][:, None], softmax - aim, gradient)
