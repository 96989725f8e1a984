"""Triggers of backdoors, put on inputs."""

from collections.abc import Sequence

from torch import Tensor

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
