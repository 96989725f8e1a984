"""Images as they are given: channels first or last, bytes or numbers of any range."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from .base import Prepare

CHANNELS = (1, 3)


def channels_first(images: NDArray[Any], place: str, channels: str = "auto") -> NDArray[Any]:
    """Return images of shape (n, channels, height, width), without a copy.

    Parameters
    ----------
    images : array
        Shape (n, height, width), (n, channels, height, width) or (n, height, width, channels),
        of 1 or 3 channels.
    place : str
        What errors begin with.
    channels : {"auto", "first", "last"}
        Where the channels stand; ``auto``: where there are 1 or 3 of them.

    Raises
    ------
    UserError
        If that cannot be told.
    """
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
    if channels == "auto":
        if first and last:
            raise UserError(
                f"{place}: images of shape {images.shape[1:]}, of which the first or the last may "
                "be channels; allowed is dataset.channels=first or last"
            )
        channels = "last" if last else "first"
    if not (first if channels == "first" else last):
        raise UserError(
            f"{place}: images of shape {images.shape[1:]} with channels {channels}, allowed are "
            "1 or 3 channels"
        )
    return images if channels == "first" else np.moveaxis(images, 3, 1)


def scaled(train: NDArray[Any], test: NDArray[Any]) -> tuple[Tensor, Tensor, Prepare, str]:
    """Bring grey values into 0 to 1, once.

    Bytes stay bytes until they are taken. Other numbers become float32: those within 0 to 1 stay
    as they are, others are scaled by the smallest and the largest value of the training rows, and
    test values beyond these are cut off.

    Returns
    -------
    train, test : Tensor
    prepare : callable
        What `Split` does to rows as they are taken.
    note : str
        What was done, for the description.
    """
    if train.dtype == test.dtype == np.uint8:
        first, second = (torch.from_numpy(np.ascontiguousarray(part)) for part in (train, test))
        return first, second, grey, "bytes as 0 to 1"
    least, most = float(train.min()), float(train.max())
    note = "numbers from 0 to 1"
    splits = [split.astype(np.float32, order="C") for split in (train, test)]
    if not (least >= 0 and most <= 1):
        note = f"numbers from {least:g} to {most:g} scaled to 0 to 1"
        for split in splits:
            split -= np.float32(least)
            split /= np.float32((most - least) or 1)
    if beyond := np.count_nonzero((splits[1] < 0) | (splits[1] > 1)):
        note += f", {beyond:,} of {splits[1].size:,} test values beyond that cut off"
        np.clip(splits[1], 0, 1, out=splits[1])
    return torch.from_numpy(splits[0]), torch.from_numpy(splits[1]), as_is, note


def grey(images: Tensor) -> Tensor:
    """Bytes as float32 from 0 to 1."""
    return images.float() / 255


def as_is(inputs: Tensor) -> Tensor:
    """Leave inputs as they are stored."""
    return inputs
