"""A file of numpy arrays; nothing in it is unpickled."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import one_line
from ..errors import UserError
from ..schema import bounded
from .arrays import KINDS, Part, assembled
from .base import Data
from .splits import SplitSource

SEPARATE, WHOLE = ("x_train", "y_train", "x_test", "y_test"), ("x", "y")

DAMAGED = (zipfile.BadZipFile, zlib.error)
"""What is raised besides, and `RuntimeError` of members that are encrypted or packed otherwise."""


@dataclass(kw_only=True)
class Npz(SplitSource):
    """Arrays ``x_train y_train x_test y_test`` of an npz file, or ``x y``, which are split here.

    ``owners``, if it is there, has the natural user of each row of ``x_train`` or ``x``.

    Attributes
    ----------
    file : str
        Its path.
    kind, channels
        What inputs are, see `fl_backdoor.data.arrays.assembled`.
    standardize : bool
        Of tables: give columns mean 0 and standard deviation 1, by the training rows.
    vocabulary : int or None
        Of texts: how many tokens there are; None: one more than the largest.
    """

    file: str
    kind: str = bounded("auto", choices=KINDS)
    channels: str = bounded("auto", choices=("auto", "first", "last"))
    standardize: bool = False
    vocabulary: int | None = bounded(None, least=2)

    def settle(self) -> dict[str, Any]:
        """Name the file wherever the run is resumed from."""
        return {"file": str(Path(self.file).absolute())}

    def read(self) -> Data:
        """Read the arrays."""
        arrays = self._arrays()
        options: dict[str, Any] = {
            "kind": self.kind,
            "channels": self.channels,
            "standardized": self.standardize,
            "vocabulary": self.vocabulary,
            "owners": arrays.get("owners"),
            "origin": f"from {Path(self.file).name}",
        }
        name = Path(self.file).stem
        if "x" in arrays:
            return self.divided(name, self._part(arrays, "x", "y"), **options)
        train, test = (self._part(arrays, f"x_{split}", f"y_{split}") for split in SPLITS)
        return assembled(name, train, test, **options)

    def _part(self, arrays: dict[str, NDArray[Any]], inputs: str, labels: str) -> Part:
        return Part(arrays[inputs], arrays[labels], self._place(inputs), self._place(labels))

    def _place(self, array: str) -> str:
        return f"dataset.file={self.file}: {array}"

    def _arrays(self) -> dict[str, NDArray[Any]]:
        allowed = f"allowed is an npz file with {' '.join(SEPARATE)}, or with {' '.join(WHOLE)}"
        try:
            # Opened here: numpy leaves a file open that it cannot read.
            with Path(self.file).open("rb") as stream:
                file = np.load(stream, allow_pickle=False)
                if not isinstance(file, np.lib.npyio.NpzFile):
                    raise ValueError("a single array")
                keys = next((k for k in (SEPARATE, WHOLE) if {*k} <= {*file.files}), None)
                if keys is None:
                    raise UserError(
                        f"dataset.file={self.file}: holds {' '.join(file.files) or 'nothing'}; "
                        f"{allowed}"
                    )
                wanted = [*keys, *({"owners"} & {*file.files})]
                return {key: self._array(file, key) for key in wanted}
        except (OSError, ValueError, EOFError, RuntimeError, *DAMAGED) as error:
            reason = one_line(error)
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            elif isinstance(error, ValueError | EOFError):
                reason = "not one"  # without numpy's advice to unpickle what cannot be read
            raise UserError(
                f"dataset.file={self.file}: cannot be read ({reason}); {allowed}"
            ) from error

    def _array(self, file: Any, key: str) -> NDArray[Any]:
        try:
            array: NDArray[Any] | bytes = file[key]
        except ValueError as error:
            raise UserError(
                f"{self._place(key)}: rows of different shapes or Python objects, which are "
                "pickled and never read; allowed is one array of numbers or texts"
            ) from error
        except MemoryError as error:
            raise UserError(
                f"{self._place(key)}: {one_line(error)}; allowed is what fits into memory"
            ) from error
        if isinstance(array, bytes):  # of a member that numpy did not write
            raise UserError(f"{self._place(key)}: no array; allowed is one that numpy.savez wrote")
        return array


SPLITS = ("train", "test")
