"""NUS-WIDE in its official files: image features at one party, tags at the other."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import UserError
from ...schema import bounded
from ..standardize import standardize
from . import synthetic_nuswide as synthetic
from .base import Block, Labels, Rows, VerticalData
from .number_files import damaged, read_parts

SOURCES: Final = ("auto", "files", "synthetic")

# Columns of the image features' files, by name of the feature.
IMAGE_FILES: Final = {"CH": 64, "CM55": 225, "CORR": 144, "EDH": 73, "WT": 128}
WIDTHS: Final = (synthetic.IMAGE_FEATURES, synthetic.TAGS)
SPLITS: Final = ("Train", "Test")

# The most rows to keep of each split; None: all.
_Caps = tuple[int | None, int | None]


@dataclass(kw_only=True)
class NusWide(VerticalData):
    """The rows that have exactly one of the chosen classes; party 0 images, party 1 tags.

    The official layout below `root`: ``Groundtruth/TrainTestLabels/Labels_{label}_Train.txt``,
    ``Low_Level_Features/Train_Normalized_{CH,CM55,CORR,EDH,WT}.dat``,
    ``NUS_WID_Tags/Train_Tags1k.dat`` and the same with Test. Which rows are chosen follows from
    the labels, so `block` reads the label files too. A row's id is its number in the files.

    Attributes
    ----------
    source : {"auto", "files", "synthetic"}
        ``auto``: the files in `root`, or else in the folder nuswide under
        ``$FL_BACKDOOR_DATA`` if it has Groundtruth, or else ``synthetic``: the stand-in of
        `fl_backdoor.data.vertical.synthetic_nuswide`.
    root : str or None
        Folder of the official files.
    classes : list of str
        The labels to choose, names of label files.
    standardize : bool
        Give the image features mean 0 and standard deviation 1, fitted on the training rows.
    train_rows, test_rows : int or None
        Rows to keep; by default 60,000 and 40,000, as Table 1 counts them. Of the official files
        these are the first so many of the chosen rows, in file order. That is a cap: where there
        are fewer, all are kept; None: all. The files are read and checked to their end
        all the same. Of the stand-in, so many rows, 5 to 60,000 and 40,000; None: its full size.
    trigger : list of int
        Features in the trigger party's block; negative ones count from its end.
    """

    source: str = "auto"
    root: str | None = None
    classes: list[str] = field(default_factory=lambda: list(synthetic.CLASSES))
    standardize: bool = False
    train_rows: int | None = bounded(synthetic.ROWS["train"], least=1)
    test_rows: int | None = bounded(synthetic.ROWS["test"], least=1)
    trigger: list[Any] = field(default_factory=lambda: [-1])

    def __post_init__(self) -> None:
        """Check the keys that need no file."""
        super().__post_init__()
        if self.source not in SOURCES:
            raise UserError(f"dataset.source={self.source}: allowed is {', '.join(SOURCES)}")
        if self.root is not None and self.source == "synthetic":
            raise UserError(
                f"dataset.root={self.root}: allowed is null with dataset.source=synthetic"
            )
        if len(set(self.classes)) < len(self.classes) or len(self.classes) < 2:
            raise UserError(
                f"dataset.classes={self.classes}: allowed are two or more different labels"
            )

    def settle(self) -> dict[str, Any]:
        """Decide between the official files and the stand-in."""
        source, root = self._resolved()
        return {"source": source, "root": root}

    def _resolved(self) -> tuple[str, str | None]:
        if self.root is not None:
            return "files", str(Path(self.root).absolute())
        data = os.environ.get("FL_BACKDOOR_DATA")
        folder = Path(data, "nuswide") if data else None
        if self.source != "synthetic" and folder and (folder / "Groundtruth").is_dir():
            return "files", str(folder.absolute())
        if self.source == "files":
            raise UserError(
                "dataset.source=files: needs dataset.root, the folder of the official NUS-WIDE "
                "files, or the folder nuswide under $FL_BACKDOOR_DATA"
            )
        if tuple(self.classes) != synthetic.CLASSES:
            raise UserError(
                f"dataset.classes={self.classes}: allowed with the synthetic stand-in is "
                f"{list(synthetic.CLASSES)}"
            )
        for split, value in (("train", self.train_rows), ("test", self.test_rows)):
            least, most = len(synthetic.CLASSES), synthetic.ROWS[split]
            if value is not None and not least <= value <= most:
                raise UserError(
                    f"dataset.{split}_rows={value}: allowed with the synthetic stand-in are "
                    f"{least} to {most}, or null"
                )
        return "synthetic", None

    @property
    def num_parties(self) -> int:
        """Two: the image features and the tags."""
        return len(WIDTHS)

    def block(self, party: int) -> Block:
        """Load the image features (party 0) or the tags (party 1)."""
        scaled = self.standardize and party == 0
        source, root = self._resolved()
        if source == "synthetic":
            return _synthetic_block(party, scaled, *self._synthetic_rows())
        assert root is not None
        caps = self.train_rows, self.test_rows
        return _block(root, tuple(self.classes), caps, party, scaled)

    def labels(self) -> Labels:
        """Load the labels of the chosen rows."""
        source, root = self._resolved()
        if source == "synthetic":
            return _synthetic_labels(*self._synthetic_rows())
        assert root is not None
        caps = self.train_rows, self.test_rows
        train, test = _both_chosen(root, tuple(self.classes), caps)
        return Labels(
            torch.from_numpy(train.labels),
            torch.from_numpy(test.labels),
            tuple(self.classes),
            Rows.of(train.rows),
            Rows.of(test.rows),
        )

    def _synthetic_rows(self) -> tuple[int, int]:
        return self.train_rows or synthetic.ROWS["train"], self.test_rows or synthetic.ROWS["test"]

    @property
    def description(self) -> str:
        """Name the origin of the rows and count them."""
        source, root = self._resolved()
        labels = self.labels()
        counts = f"{len(labels.train):,} train + {len(labels.test):,} test rows"
        if source == "synthetic":
            return f"synthetic NUS-WIDE stand-in, {counts}, invented features (not NUS-WIDE)"
        return f"NUS-WIDE, one of {' '.join(self.classes)}, {counts}, from {root}"

    def trigger_columns(self) -> list[int]:
        """Return the trigger's columns, from 0."""
        width = WIDTHS[self.trigger_party]
        for index in self.trigger:
            if type(index) is not int or not -width <= index < width:
                raise UserError(
                    f"dataset.trigger={self.trigger}: {index} is no feature of party "
                    f"{self.trigger_party}; allowed are {-width} to {width - 1}"
                )
        return [index % width for index in self.trigger]


@dataclass(frozen=True)
class _Chosen:
    """The rows of a split that have exactly one of the classes, up to the cap."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    total: int
    """Rows in the files."""


def _both_chosen(root: str, classes: tuple[str, ...], caps: _Caps) -> list[_Chosen]:
    return [_chosen(root, split, classes, cap) for split, cap in zip(SPLITS, caps, strict=True)]


@lru_cache(maxsize=4)
def _chosen(root: str, split: str, classes: tuple[str, ...], cap: int | None) -> _Chosen:
    folder = Path(root)
    columns: list[NDArray[np.int64]] = []
    for name in classes:
        path = folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt"
        parts = list(read_parts(folder, path, 1, np.int64))
        column = np.concatenate(parts)[:, 0] if parts else np.empty(0, np.int64)
        if columns and len(column) != len(columns[0]):
            raise damaged(
                folder,
                path,
                f"{len(column)} rows, allowed is {len(columns[0])}, as for {classes[0]}",
            )
        columns.append(column)
    table = np.stack(columns, axis=1)
    rows = np.flatnonzero(table.sum(axis=1) == 1)[:cap]
    if not len(rows):
        raise damaged(
            folder,
            folder / "Groundtruth" / "TrainTestLabels",
            f"no {split} row has exactly one of {' '.join(classes)}, allowed is one or more",
        )
    return _Chosen(rows, table[rows].argmax(axis=1), len(table))


@lru_cache(maxsize=4)
def _block(root: str, classes: tuple[str, ...], caps: _Caps, party: int, scaled: bool) -> Block:
    chosen = _both_chosen(root, classes, caps)
    train, test = (
        _features(Path(root), split, party, part)
        for split, part in zip(SPLITS, chosen, strict=True)
    )
    if scaled:
        standardize(train, test)
    rows = (Rows.of(part.rows) for part in chosen)
    return Block(torch.from_numpy(train), torch.from_numpy(test), *rows)


def _features(folder: Path, split: str, party: int, chosen: _Chosen) -> NDArray[np.float32]:
    """Read the party's files side by side, keeping the chosen rows."""
    files: dict[Path, tuple[int, type[np.generic]]]
    if party == 0:
        names = {name: f"{split}_Normalized_{name}.dat" for name in IMAGE_FILES}
        files = {
            folder / "Low_Level_Features" / names[name]: (width, np.float64)
            for name, width in IMAGE_FILES.items()
        }
    else:
        files = {folder / "NUS_WID_Tags" / f"{split}_Tags1k.dat": (WIDTHS[1], np.int64)}
    features = np.empty((len(chosen.rows), WIDTHS[party]), np.float32)
    column = 0
    for path, (width, kind) in files.items():
        start = 0
        for part in read_parts(folder, path, width, kind):
            # The chosen rows of this part, as rows of the files and of the features.
            first, last = np.searchsorted(chosen.rows, [start, start + len(part)])
            features[first:last, column : column + width] = part[chosen.rows[first:last] - start]
            start += len(part)
        if start != chosen.total:
            raise damaged(
                folder, path, f"{start} rows, allowed is {chosen.total}, as in the {split} labels"
            )
        column += width
    return features


@lru_cache(maxsize=4)
def _synthetic_block(party: int, scaled: bool, train_rows: int, test_rows: int) -> Block:
    draw = (synthetic.images, synthetic.tags)[party]
    train, test = draw("train", train_rows), draw("test", test_rows)
    if scaled:
        standardize(train, test)
    rows = Rows.of(range(train_rows)), Rows.of(range(test_rows))
    return Block(torch.from_numpy(train), torch.from_numpy(test), *rows)


@lru_cache(maxsize=2)
def _synthetic_labels(train_rows: int, test_rows: int) -> Labels:
    return Labels(
        torch.from_numpy(synthetic.labels("train", train_rows)),
        torch.from_numpy(synthetic.labels("test", test_rows)),
        synthetic.CLASSES,
        Rows.of(range(train_rows)),
        Rows.of(range(test_rows)),
    )
