"""Any data set of the Hugging Face hub: images, texts or columns of a table."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..schema import bounded
from .arrays import Part, assembled
from .base import Data, Indices
from .hub import HubError, UnfitError, cache_home, fetch
from .labels import by_name
from .splits import SplitSource
from .table import Cells, encoded
from .text import tokens

KINDS: Final = ("image", "text", "table")

# Arguments, as JSON: see `HuggingFace._request`. Writes of each split inputs (an array of images,
# a list of texts, or a CSV table), labels, owners, and the names of the classes.
_CHILD: Final = """
import json
import numpy as np
asked = json.loads(sys.argv[5])
from datasets import Image
from flwr_datasets import FederatedDataset
dataset = FederatedDataset(
    dataset=sys.argv[4], subset=asked["subset"] or None, partitioners={}, shuffle=False,
    revision=asked["revision"],
)

def fail(text):
    print(text, file=sys.stderr)
    raise SystemExit(3)

def load(key):
    try:
        return dataset.load_split(asked[key])
    except ValueError as error:
        if "is not present" not in str(error):
            raise
        fail(f"dataset.{key}={asked[key]}: {error}")

splits = {"train": load("train_split")}
if asked["test_split"]:
    splits["test"] = load("test_split")
timer.cancel()

names = None
given = {"input_columns": asked["columns"]}
given |= {key: [asked[key]] if asked[key] else [] for key in ("label_column", "owner_column")}
for split, rows in splits.items():
    if not len(rows):
        fail(f"dataset.{split}_split={asked[split + '_split']}: no rows, allowed is one or more")
    for key, columns in given.items():
        for column in columns:
            if column not in rows.column_names:
                allowed = ", ".join(rows.column_names)
                fail(f"dataset.{key}={column}: no column of {split}; allowed are {allowed}")
    names = getattr(rows.features[asked["label_column"]], "names", names)
    folder, first = Path(sys.argv[1]), asked["columns"][0]
    for what in ("label", "owner"):
        column = asked[f"{what}_column"]
        values = np.array(rows[column][:]) if column else np.empty(0)
        if values.dtype == object:
            fail(f"dataset.{what}_column={column}: {split} has rows without a value, or with "
                 "several; allowed is one in each")
        np.save(folder / f"{split}_{what}s.npy", values)
    if asked["kind"] == "image":
        if not isinstance(rows.features[first], Image):
            fail(f"dataset.input_columns={first}: {rows.features[first]}; allowed with "
                 "dataset.kind=image is a column of images")
        images, mode, shape = None, None, None
        for row, image in enumerate(rows[first]):
            if mode is None:
                mode = "L" if image.mode in ("1", "L", "I", "F", "I;16") else "RGB"
            pixels = np.asarray(image.convert(mode), dtype=np.uint8)
            if images is None:
                shape, images = pixels.shape, np.empty((len(rows), *pixels.shape), np.uint8)
            if pixels.shape != shape:
                fail(f"dataset.name={sys.argv[4]}: {split}, row {row}: {pixels.shape} pixels, "
                     f"allowed is {shape}, as in row 0")
            images[row] = pixels
        np.save(folder / f"{split}.npy", images)
    elif asked["kind"] == "text":
        (folder / f"{split}.json").write_text(json.dumps([str(text) for text in rows[first]]))
    else:
        table = rows.select_columns(asked["columns"])
        table.to_pandas().to_csv(folder / f"{split}.csv", index=False)
(Path(sys.argv[1]) / "names.json").write_text(json.dumps(names))
"""


@dataclass(kw_only=True)
class HuggingFace(SplitSource):
    """A data set of the hub by its name, through flwr-datasets; kept in files once it is here.

    Attributes
    ----------
    name : str
        Its name on the hub, or a folder of one's own that `datasets.load_dataset` reads.
    subset, revision : str or None
        Its configuration and its version (a commit), if it has several.
    kind : {"image", "text", "table"}
        What the inputs are.
    input_columns : list of str
        The column of images or texts, or the columns of a table, see `encoded`.
    label_column : str
        The classes.
    owner_column : str or None
        The natural user of each row.
    train_split, test_split : str, str or None
        The splits' names; without one of test rows, ``test_fraction`` of the rows.
    vocabulary, length : int
        Of texts, see `fl_backdoor.data.text.tokens`.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    kind: str = bounded("image", choices=KINDS)
    input_columns: list[str] = field(default_factory=lambda: ["image"])
    label_column: str = "label"
    owner_column: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    vocabulary: int = bounded(10_000, least=3)
    length: int = bounded(64, least=1)

    def __post_init__(self) -> None:
        """Check that there is a name, and that the columns go with the kind."""
        super().__post_init__()
        if not self.name:  # the folder one is in, to `Path` and to `datasets`
            raise UserError("dataset.name=: allowed is a name on the hub, or a folder")
        if not self.input_columns or (self.kind != "table" and len(self.input_columns) != 1):
            raise UserError(
                f"dataset.input_columns={self.input_columns}: allowed with dataset.kind="
                f"{self.kind} is {'one or more' if self.kind == 'table' else 'one'}"
            )

    def _request(self) -> str:
        keys = ("subset", "revision", "kind", "label_column", "owner_column", "train_split")
        asked = {key: getattr(self, key) for key in (*keys, "test_split")}
        return json.dumps(asked | {"columns": self.input_columns})

    def folder(self) -> Path:
        """Return where the data are kept, by what was asked for."""
        found = sorted(Path(self.name).rglob("*")) if Path(self.name).is_dir() else []
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        digest = hashlib.sha256(f"{self.name} {self._request()} {files}".encode()).hexdigest()[:12]
        stem = self.name.strip("/").replace("/", "--")[-60:]
        return cache_home() / "fl-backdoor" / "hub" / f"{stem}-{digest}"

    def settle(self) -> dict[str, Any]:
        """Fetch the data set, so that no worker waits for the hub."""
        folder = self.folder()
        try:
            fetch(self.name, folder, _CHILD, [self._request()])
        except UnfitError as error:
            raise UserError(str(error)) from error
        except HubError as error:
            raise UserError(
                f"dataset.name={self.name}: cannot be had ({error}); allowed without a network "
                f"are a folder of its files as dataset.name, and {folder} from a machine on which "
                "the same command has run"
            ) from error
        return {"name": str(Path(self.name).absolute())} if Path(self.name).is_dir() else {}

    def read(self) -> Data:
        """Read the files, fetching them first if need be."""
        self.settle()
        folder, place = self.folder(), f"dataset.name={self.name}"
        names = json.loads((folder / "names.json").read_text())
        train = self._labels(folder, "train", names)
        owners = np.load(folder / "train_owners.npy", allow_pickle=False)
        users = owners if self.owner_column else None
        origin = f"from the Hugging Face hub ({self.name})"
        if Path(self.name).is_dir():
            origin = f"from the files in {self.name}"
        if self.kind == "table":
            origin = f"numbers standardised by the training rows; {origin}"
        rows: tuple[Indices, Indices] | None = None
        if self.test_split is None:
            rows = self.split(train, f"{place}: {self.label_column}")
            train, test = train[rows[0]], train[rows[1]]
            users = None if users is None else users[rows[0]]
            origin += f"; {self.test_fraction:.0%} test rows by split_seed {self.split_seed}"
        else:
            test = self._labels(folder, "test", names)
        inputs = self._inputs(folder, rows)
        places = [f"{place}: {split}" for split in ("train", "test")]
        parts = [
            Part(values, labels, where, f"{where} {self.label_column}")
            for values, labels, where in zip(inputs, (train, test), places, strict=True)
        ]
        return assembled(
            self.name,
            parts[0],
            parts[1],
            origin=origin,
            kind=self.kind,
            channels="last",
            owners=users,
            order=tuple(names) if names else None,
            vocabulary=self.vocabulary if self.kind == "text" else None,
        )

    def _labels(self, folder: Path, split: str, names: list[str] | None) -> NDArray[np.str_]:
        """Return the labels of a split by name."""
        labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
        place = f"dataset.name={self.name}: {split} {self.label_column}"
        return by_name(labels, names, place)

    def _inputs(self, folder: Path, rows: tuple[Indices, Indices] | None) -> list[NDArray[Any]]:
        """Return the inputs of both splits, made numbers of by what the training rows hold."""
        splits = ("train", "test") if rows is None else ("train", "train")
        if self.kind == "image":
            images = [np.load(folder / f"{split}.npy", allow_pickle=False) for split in splits]
            return images if rows is None else [images[0][rows[0]], images[0][rows[1]]]
        if self.kind == "text":
            texts = [json.loads((folder / f"{split}.json").read_text()) for split in splits]
            if rows is not None:
                texts = [[texts[0][row] for row in part] for part in rows]
            return list(tokens(texts[0], texts[1], self.vocabulary, self.length))
        cells = []
        for number, split in enumerate(splits):
            table = pd.read_csv(folder / f"{split}.csv", dtype=str, keep_default_na=False)
            part = np.arange(len(table)) if rows is None else rows[number]
            place = f"dataset.name={self.name}: {split}"
            cells.append(Cells(table.iloc[part], part, place))
        return list(encoded(cells[0], cells[1], self.input_columns, [], True))
