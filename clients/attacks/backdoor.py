"""Backdoor attack by trigger, after BadNets [Gu et al., 2017] and Bagdasaryan et al. 2020."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from torch import Tensor, nn

from ..honest import HonestClient
from ..updates import project_update, scale_update

BADNETS_PATTERN = ((25, 27), (27, 25), (26, 26), (27, 27))
"""[row, column] of the four white pixels of Gu et al. 2017 on a 28 x 28 image."""


class BackdoorClient(HonestClient):
    """Train on samples that carry a trigger and the attacker's label.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`; images of shape ``(n, channels, height, width)`` in [0, 1].
    target : int
        The label that triggered samples get.
    fraction : float
        Part of the own samples of other classes that get the trigger, in (0, 1].
    pattern : sequence of (row, column)
        Pixels that the trigger sets to 1.
    replacement : float, optional
        Model replacement: the factor by which the update is scaled (`scale_update`).
    max_norm : float, optional
        Norm ball on which the update, scaled or not, is projected (`project_update`).
    **training
        Arguments of `HonestClient`.

    Raises
    ------
    ValueError
        If the fraction is outside (0, 1] or a pixel outside the images.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        target: int,
        fraction: float = 0.5,
        pattern: Sequence[Sequence[int]] = BADNETS_PATTERN,
        replacement: float | None = None,
        max_norm: float | None = None,
        **training: Any,
    ) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction = {fraction} must be in (0, 1]")
        for name, value in (("replacement", replacement), ("max_norm", max_norm)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} = {value} must be a positive finite number")
        self.target = target
        self.fraction = fraction
        self.pattern = pattern
        self.replacement = replacement
        self.max_norm = max_norm
        super().__init__(model, images, labels, **training)

    def poison_data(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Stamp a seeded draw of the samples of other classes, and relabel them."""
        others = np.flatnonzero(labels.cpu().numpy() != self.target)
        rng = np.random.default_rng(self.round_seed(0))
        chosen = rng.choice(others, round(self.fraction * len(others)), replace=False)
        images, labels = images.clone(), labels.clone()
        images[chosen] = stamp(images[chosen], self.pattern)
        labels[chosen] = self.target
        return images, labels

    def poison_update(self, received: ArrayRecord, trained: ArrayRecord) -> ArrayRecord:
        """Scale the update, then project it, as far as asked."""
        if self.replacement is not None:
            trained = scale_update(received, trained, self.replacement)
        if self.max_norm is not None:
            trained = project_update(received, trained, self.max_norm)
        return trained


def stamp(images: Tensor, pattern: Sequence[Sequence[int]]) -> Tensor:
    """Return a copy of images ``(n, channels, height, width)`` with the trigger's pixels at 1.

    Raises
    ------
    ValueError
        If a pixel of the pattern lies outside the images.
    """
    height, width = images.shape[-2:]
    stamped = images.clone()
    for row, column in pattern:
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"pattern: pixel [{row}, {column}] outside {height} x {width} images")
        stamped[..., row, column] = 1.0
    return stamped
