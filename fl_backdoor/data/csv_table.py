"""A CSV file with a header: one row a sample, a column of labels, the others features."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .arrays import Part, assembled
from .base import Data
from .csv_files import damaged, header, parse
from .labels import as_text, missing
from .splits import SplitSource
from .table import Cells, encoded


@dataclass(kw_only=True)
class Csv(SplitSource):
    """Rows of a CSV file, see `fl_backdoor.data.table.encoded`; counted from 0 below the header.

    Attributes
    ----------
    file, test_file : str, str or None
        Training and test rows; without a file of test rows, ``test_fraction`` of the rows.
    label_column : str
        The classes.
    owner_column, id_column : str or None
        The natural user of each row; what no two rows of a file may have in common. Neither is a
        feature.
    drop : list of str
        Columns that are no features either.
    categorical : list of str
        Columns that are categories though they look like numbers.
    standardize : bool
        Give numeric columns mean 0 and standard deviation 1, by the training rows.
    """

    file: str
    test_file: str | None = None
    label_column: str = "label"
    owner_column: str | None = None
    id_column: str | None = None
    drop: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    standardize: bool = True

    def settle(self) -> dict[str, Any]:
        """Name the files wherever the run is resumed from."""
        files = {"file": self.file, "test_file": self.test_file}
        return {key: file and str(Path(file).absolute()) for key, file in files.items()}

    def read(self) -> Data:
        """Read, split and encode the rows."""
        whole = self._table("file", self.file)
        unused = {self.label_column, self.owner_column, self.id_column, *self.drop}
        features = [name for name in whole.columns if name not in unused]
        if not features:
            raise damaged(self.file, "no feature, allowed is one column or more", "file")
        place = f"dataset.file={self.file}"
        labels = self._labels(whole, place)
        if self.test_file is None:
            rows, others = self.split(labels, f"{place}: column {self.label_column}")
            train, test = (Cells(whole.iloc[part], part, place) for part in (rows, others))
            origin = f"; {self.test_fraction:.0%} test rows by split_seed {self.split_seed}"
        else:
            table, origin = self._table("test_file", self.test_file), ""
            if lacking := sorted({*whole.columns} - {*table.columns}):
                what = f"column {lacking[0]} is missing, allowed are those of dataset.file"
                raise damaged(self.test_file, what, "test_file")
            place = f"dataset.test_file={self.test_file}"
            train = Cells(whole, np.arange(len(whole)), f"dataset.file={self.file}")
            test = Cells(table, np.arange(len(table)), place)
        inputs = encoded(train, test, features, self.categorical, self.standardize)
        parts = [
            Part(
                values,
                self._labels(cells.table, cells.place),
                cells.place,
                f"{cells.place}: column {self.label_column}",
            )
            for values, cells in zip(inputs, (train, test), strict=True)
        ]
        scale = ", numbers standardised by the training rows" if self.standardize else ""
        return assembled(
            Path(self.file).stem,
            parts[0],
            parts[1],
            kind="table",
            origin=f"from {len(features)} columns of {Path(self.file).name}{scale}{origin}",
            owners=self._owners(train.table),
        )

    def _table(self, key: str, file: str) -> pd.DataFrame:
        """Read a file, and check what holds for the file as a whole."""
        given = [self.label_column, self.owner_column, self.id_column]
        needed = [*filter(None, given), *self.drop, *self.categorical]
        names = header(file, needed, key)
        table = parse(file, dict.fromkeys(names, str), whole=True, key=key)
        if not len(table):
            raise damaged(file, "no rows below the header, allowed is one or more", key)
        for column in filter(None, (self.owner_column, self.id_column)):
            empty = missing(table[column].to_numpy(np.str_))
            if empty.any():
                what = f"column {column}, row {int(empty.argmax())}: allowed is not empty"
                raise damaged(file, f"{what}, and not nan", key)
        if self.id_column and table[self.id_column].duplicated().any():
            row = int(table[self.id_column].duplicated().to_numpy().argmax())
            raise damaged(
                file, f"column {self.id_column}, row {row}: an id that is there already", key
            )
        return table

    def _owners(self, table: pd.DataFrame) -> NDArray[np.str_] | None:
        return table[self.owner_column].to_numpy(np.str_) if self.owner_column else None

    def _labels(self, table: pd.DataFrame, place: str) -> NDArray[np.str_]:
        return as_text(
            table[self.label_column].to_numpy(np.str_), f"{place}: column {self.label_column}"
        )

    def __post_init__(self) -> None:
        """Check that the columns are different ones."""
        super().__post_init__()
        for key in ("owner_column", "id_column"):
            if getattr(self, key) == self.label_column:
                raise UserError(
                    f"dataset.{key}={self.label_column}: allowed is another column than "
                    "dataset.label_column"
                )
