"""Distributed label-flipping attack [Cao et al., 2019], section II.C and Algorithm 1."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..honest import HonestClient


class LabelFlippingClient(HonestClient):
    """Train on samples of the source class that are labelled as the target class.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`: D_k before poisoning.
    source, target : int
        I and T: samples of class ``source`` get the label ``target``.
    poisoned_samples : int
        S/P, this attacker's share of the contaminated samples.
    pool : Tensor of shape (m, ...), optional
        Samples of the source class that nobody else holds. With it, ``poisoned_samples`` of
        them are contaminated and added to the data ("over-flipping", Algorithm 1 line 9: S/P
        can exceed what the attacker holds). Without it, the attacker flips labels of its own.
    **training
        Arguments of `HonestClient`.

    Raises
    ------
    ValueError
        If more samples are to be poisoned than the pool, or the attacker, holds.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        source: int,
        target: int,
        poisoned_samples: int,
        pool: Tensor | None = None,
        **training: Any,
    ) -> None:
        if source == target:
            raise ValueError(f"source = {source} and target = {target} must differ")
        self.source = source
        self.target = target
        self.poisoned_samples = poisoned_samples
        self.pool = pool
        super().__init__(model, images, labels, **training)

    def poison_data(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Add contaminated samples from the pool, or flip labels of the own samples."""
        wanted = self.poisoned_samples
        if self.pool is not None:
            if not 0 <= wanted <= len(self.pool):
                raise ValueError(f"poisoned_samples = {wanted} of a pool of {len(self.pool)}")
            contaminated = labels.new_full((wanted,), self.target)
            return torch.cat([images, self.pool[:wanted]]), torch.cat([labels, contaminated])
        own = np.flatnonzero(labels.cpu().numpy() == self.source)
        if not 0 <= wanted <= len(own):
            raise ValueError(f"poisoned_samples = {wanted} of {len(own)} own source samples")
        rng = np.random.default_rng(self.round_seed(0))
        flipped = labels.clone()
        flipped[rng.choice(own, wanted, replace=False)] = self.target
        return images, flipped
