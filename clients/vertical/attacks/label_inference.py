"""Backdoor by label inference and direct replacement: Liu, Yi, Chen 2020, section 5.3."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..passive_party import PassiveParty
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


class LabelInferenceParty(PassiveParty):
    """Infer labels from gradients, and train triggered rows towards the target instead.

    Works where activations are only summed, so that gradients are those of class scores.

    Parameters
    ----------
    model, train, test
        As for `PassiveParty`.
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    target : int
        tau, the class that they shall get.
    **options
        Arguments of `PassiveParty`.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Tensor,
        test: Tensor,
        *,
        poisoned_rows: Tensor,
        target: int,
        **options: Any,
    ) -> None:
        super().__init__(model, train, test, **options)
        self.target = target
        self._is_poisoned = mask(poisoned_rows, len(train))

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Replace dl_i/dH_i of poisoned rows by dl^b_i/dH_i: S_j for j != tau, S_tau - 1."""
        classes = gradient.shape[1]
        softmax = gradient + functional.one_hot(infer_labels(gradient), classes)
        aim = functional.one_hot(torch.tensor(self.target), classes)
        return torch.where(self._is_poisoned[rows][:, None], softmax - aim, gradient)
