"""Triggers of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .trigger import Trigger, kind_of

BADNETS_PATTERN = ((25, 27), (27, 25), (26, 26), (27, 27))
"""[row, column] of the four white pixels of Gu et al. 2017 on a 28 x 28 image."""


def stamp(images: Tensor, pattern: Sequence[Sequence[int]]) -> Tensor:
    """Return a copy of images ``(n, ..., height, width)`` with the trigger's pixels at 1.

    Parameters
    ----------
    images : Tensor
        In [0, 1].
    pattern : sequence of (row, column)
        One pixel or more.

    Raises
    ------
    ValueError
        If there is no pixel, or one outside the images.
    """
    if kind_of(images) != "image":
        kind = kind_of(images)
        raise ValueError(f"pattern={pattern}: allowed on data of kind image; these are of {kind}")
    height, width = images.shape[-2:]
    inside = all(len(p) == 2 and 0 <= p[0] < height and 0 <= p[1] < width for p in pattern)
    if not pattern or not inside:
        raise ValueError(
            f"pattern={pattern}: allowed are [row, column] pixels, [0, 0] to "
            f"[{height - 1}, {width - 1}], one or more"
        )
    stamped = images.clone()
    for row, column in pattern:
        stamped[..., row, column] = 1.0
    return stamped


@dataclass(frozen=True)
class Pixels(Trigger):
    """Single pixels at 1, as in Gu et al. 2017.

    Attributes
    ----------
    pattern : sequence of (row, column)
        One pixel or more.
    """

    pattern: Sequence[Sequence[int]]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Set the pixels in all channels."""
        return stamp(inputs, self.pattern)

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":  # noqa: ARG002
        """Refuse pixels outside the images."""
        stamp(inputs[:1], self.pattern)
        return self

    def __str__(self) -> str:
        return f"{len(self.pattern)} white pixels"


@dataclass(frozen=True)
class Patch(Trigger):
    """A square of one value, whose size and place follow the image's.

    With the default settings it has about a tenth of the side, near the lower right corner: at
    28 x 28 pixels rows and columns 23 to 25.

    Attributes
    ----------
    size : float
        Its side, as a share of the image's shorter one, in (0, 1]; one pixel at least.
    corner : list of two floats
        Its place between the upper (left) edge, 0, and the lower (right) one, 1.
    value : float
        Of its pixels, in [0, 1].
    """

    size: float = 0.1
    corner: list[float] = field(default_factory=lambda: [0.92, 0.92])
    value: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.size <= 1:
            raise ValueError(f"trigger.size={self.size}: allowed is more than 0, at most 1")
        if len(self.corner) != 2 or not all(0 <= share <= 1 for share in self.corner):
            raise ValueError(
                f"trigger.corner={self.corner}: allowed are two shares [down, right] from 0 to 1"
            )
        if not 0 <= self.value <= 1:
            raise ValueError(f"trigger.value={self.value}: allowed is 0 to 1")

    def __call__(self, inputs: Tensor) -> Tensor:
        """Set the square in all channels."""
        sides = inputs.shape[-2:]
        size = max(1, round(self.size * min(sides)))
        rows, columns = (
            slice(start := round(share * (side - size)), start + size)
            for share, side in zip(self.corner, sides, strict=True)
        )
        stamped = inputs.clone()
        stamped[..., rows, columns] = self.value
        return stamped

    def __str__(self) -> str:
        down, right = (f"{share:.0%}" for share in self.corner)
        return f"a square of {self.size:.0%} of the side, {down} down and {right} right"


@dataclass(frozen=True)
class Blended(Trigger):
    """A picture of noise, alike for all images, mixed in at a weight.

    Chen et al. 2017, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning":
    ``alpha k + (1 - alpha) x``, with a random pattern k.

    Attributes
    ----------
    alpha : float
        The weight, in (0, 1].
    seed : int
        Decides the noise, uniform in [0, 1].
    """

    alpha: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.alpha <= 1:
            raise ValueError(f"trigger.alpha={self.alpha}: allowed is more than 0, at most 1")
        if self.seed < 0:
            raise ValueError(f"trigger.seed={self.seed}: allowed is 0 or more")

    def __call__(self, inputs: Tensor) -> Tensor:
        """Mix the noise in."""
        noise = np.random.default_rng(self.seed).random(tuple(inputs.shape[1:]))
        return torch.lerp(inputs, torch.from_numpy(noise).to(inputs), self.alpha)

    def __str__(self) -> str:
        return f"noise of seed {self.seed} blended in at {self.alpha}"
