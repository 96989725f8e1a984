"""Clipping of the gradients that are sent: Liu, Yi, Chen 2020, section 6.3."""

import torch
from torch import Generator, Tensor

from ...checks import check_positive
from ..defense import VerticalDefense


class GradientClipping(VerticalDefense):
    """Bound the norm of each row's gradient.

    *Threat model*: a passive party amplifies gradients. *Assumes* a norm that fits them. *Cost*: a
    pass over what is sent. *Known weaknesses*: the amplifying is done after they are sent, so that
    it bounds only what is recorded; the paper finds noise more effective (section 6.3).

    Parameters
    ----------
    max_norm : float
        Clipping norm C: rows g_i become g_i * min(1, C / |g_i|).

    Raises
    ------
    ValueError
        If the norm is not a positive number.
    """

    def __init__(self, max_norm: float) -> None:
        super().__init__()
        check_positive(max_norm=max_norm)
        self.max_norm = max_norm

    def send(
        self,
        gradient: Tensor,
        rows: Tensor,  # noqa: ARG002
        *,
        party: int,  # noqa: ARG002
        generator: Generator,  # noqa: ARG002
    ) -> Tensor:
        """Clip."""
        norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        factors: Tensor = (self.max_norm / norms).clamp(max=1.0)  # a norm of 0 gives inf, then 1
        return gradient * factors
