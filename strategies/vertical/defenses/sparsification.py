"""Sparsification of the gradients that are sent: Liu, Yi, Chen 2020, section 6.4 and Fig. 7.

After Lin et al. 2017, *Deep Gradient Compression*, https://arxiv.org/abs/1712.01887: what is not
sent is accumulated until it is large enough to be.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ...checks import is_finite_number
from ..defense import VerticalDefense


class GradientSparsification(VerticalDefense):
    """Send the largest elements of a batch's gradient, accumulate the others row by row.

    The gradient is one of activations, so what is accumulated belongs to a row: it is added
    when that row comes up again, an epoch later.

    *Threat model*: a passive party replaces gradients by one that it has recorded. *Assumes* that
    the largest elements are enough to learn from. *Cost*: a selection among a batch's elements, and
    as much memory as the activations of all train rows. *Known weaknesses*: what is not sent is
    only late, and how far it holds differs between seeds (docs/reproduction.md).

    Parameters
    ----------
    drop_rate : float
        s, the part of the elements that is not sent.

    Raises
    ------
    ValueError
        If the rate is outside [0, 1).
    """

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        if not is_finite_number(drop_rate):
            raise ValueError(f"drop_rate = {drop_rate!r} must be a number")
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate = {drop_rate} must be in [0, 1)")
        self.drop_rate = drop_rate

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        """Start with no residual of any row."""
        self._sizes = [(len(labels), width) for width in outputs]

    def send(
        self,
        gradient: Tensor,
        rows: Tensor,
        *,
        party: int,
        generator: Generator,  # noqa: ARG002
    ) -> Tensor:
        """Sparsify, with the residual of these rows added before."""
        residual = self.memory.get(f"residual{party}")
        if residual is None:
            residual = self.memory[f"residual{party}"] = torch.zeros(self._sizes[party])
        whole = gradient + residual[rows]
        sizes = whole.abs().flatten()
        sent = torch.zeros_like(whole).flatten()
        keep = sizes.topk(sizes.numel() - round(self.drop_rate * sizes.numel())).indices
        sent[keep] = whole.flatten()[keep]
        sent = sent.reshape(whole.shape)
        residual[rows] = whole - sent
        return sent
