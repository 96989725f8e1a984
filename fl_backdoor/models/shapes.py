"""What the models check about the inputs that the data give them."""

from collections.abc import Sequence


def image_shape(model: object, input_shape: Sequence[int], *, least: int = 1) -> tuple[int, ...]:
    """Return channels, height and width.

    Raises
    ------
    ValueError
        If inputs are no images, or have a side below ``least`` pixels.
    """
    name, shape = type(model).__name__, tuple(input_shape)
    if len(shape) != 3:
        raise ValueError(
            f"{name} takes images (channels, height, width): the data's inputs are {shape}"
        )
    if min(shape[1:]) < least:
        raise ValueError(
            f"{name} takes images of {least} x {least} pixels or more: the data's are "
            f"{shape[1]} x {shape[2]}"
        )
    return shape


def check_sizes(**values: object) -> None:
    """Refuse lists of sizes of layers that are no integers, or below 1.

    Raises
    ------
    ValueError
        Naming the setting and its value.
    """
    for name, value in values.items():
        sizes = value if isinstance(value, Sequence) else [None]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"{name} = {value!r} must be 1 or more each, integers")
