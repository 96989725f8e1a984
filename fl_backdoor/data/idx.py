"""Files in the IDX format of MNIST and its kin: magic number, one size for each axis, bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


def read_split(
    folder: Path, split: str, digits: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split: images (n, 1, 28, 28) and labels (n,), only the given digits.

    Raises
    ------
    UserError
        If a file is missing or damaged, or a digit is.
    """
    image_path, images = _read_idx(folder, split, "images-idx3")
    label_path, labels = _read_idx(folder, split, "labels-idx1")
    if images.shape[1:] != (28, 28):
        raise _damaged(image_path, f"images of {images.shape[1:]} pixels, allowed is (28, 28)")
    if len(images) != len(labels):
        raise _damaged(label_path, f"{len(labels)} labels, allowed is {len(images)}, as images")
    if labels.max(initial=0) > 9:
        raise _damaged(label_path, f"label of image {(labels > 9).argmax()}: allowed is 0 to 9")
    missing = set(digits) - set(labels.tolist())
    if missing:
        raise _damaged(label_path, f"no image of digit {min(missing)}, allowed is one or more")
    rows = np.isin(labels, digits)
    return images[rows, None], labels[rows].astype(np.int64)


def _read_idx(folder: Path, split: str, kind: str) -> tuple[Path, NDArray[np.uint8]]:
    """Read a file of bytes in the IDX format: magic number, one size per axis, then the data."""
    official = f"{split}-{kind}-ubyte"
    variant = official.replace("-idx", ".idx")
    names = (official, f"{official}.gz", variant, f"{variant}.gz")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"dataset.root={folder}: {official} is missing, allowed is plain or .gz")
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    axes = int(kind[-1])
    # The magic number's third byte says "unsigned bytes", its last the number of axes.
    magic = 0x0800 + axes
    start = 4 * (1 + axes)
    header = np.frombuffer(data[:start].ljust(start, b"\0"), dtype=">u4")
    if header[0] != magic:
        raise _damaged(path, f"magic number {header[0]}, allowed is {magic}")
    shape = tuple(int(size) for size in header[1:])
    values = np.frombuffer(data[start:], dtype=np.uint8)
    if len(values) != math.prod(shape):
        raise _damaged(path, f"{len(values)} bytes of data, allowed is {math.prod(shape)}")
    return path, values.reshape(shape)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"dataset.root={path.parent}: {path.name}: {what}")
