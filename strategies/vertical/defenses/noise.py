"""Noise on the gradients that are sent: Liu, Yi, Chen 2020, section 6.3 and Fig. 6."""

import math

import torch
from torch import Generator, Tensor

from ...checks import check_positive
from ..defense import VerticalDefense

DISTRIBUTIONS = ("gaussian", "laplacian")


class GradientNoise(VerticalDefense):
    """Add noise of mean 0 to every element of every gradient.

    *Threat model*: a passive party replaces gradients, or reads labels from them. *Assumes* a
    variance that fits the gradients. *Cost*: a draw for each element that is sent. *Known
    weaknesses*: as in the paper (Fig. 6), what stops the backdoor costs main accuracy.

    Parameters
    ----------
    variance : float
        sigma^2. A Laplacian distribution of this variance has the scale sqrt(sigma^2 / 2).
    distribution : {"gaussian", "laplacian"}
        Its shape.

    Raises
    ------
    ValueError
        If the variance is not a positive number or the distribution is unknown.
    """

    def __init__(self, variance: float, distribution: str = "gaussian") -> None:
        super().__init__()
        check_positive(variance=variance)
        self.variance = variance
        if distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"distribution = {distribution!r} must be one of {', '.join(DISTRIBUTIONS)}"
            )
        self.distribution = distribution

    def send(
        self,
        gradient: Tensor,
        rows: Tensor,  # noqa: ARG002
        *,
        party: int,  # noqa: ARG002
        generator: Generator,
    ) -> Tensor:
        """Add noise."""
        if self.distribution == "gaussian":
            noise = torch.randn(gradient.shape, generator=generator) * math.sqrt(self.variance)
        else:
            # The difference of two exponential draws is Laplacian, without a logarithm of 0.
            draws = torch.empty(2, *gradient.shape).exponential_(generator=generator)
            noise = (draws[0] - draws[1]) * math.sqrt(self.variance / 2)
        return gradient + noise
