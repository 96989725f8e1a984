"""A data set made of arrays, whatever they come from: checked, numbered, scaled, described."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UserError
from .base import Data, Indices, Prepare, Split
from .images import as_is, channels_first, scaled
from .labels import as_text, missing, numbered
from .standardize import LARGEST, standardize

KINDS: Final = ("auto", "image", "table", "text")

MAX_VOCABULARY: Final = 2**24
"""More tokens than any tokenizer has: a larger number is no token."""


@dataclass(frozen=True)
class Part:
    """The inputs and labels of a split, and what errors call them: a file and an array in it."""

    inputs: NDArray[Any]
    labels: NDArray[Any]
    inputs_place: str
    labels_place: str
    rows: Indices | None = None
    """Their numbers in that array; None: 0 to n-1."""

    def check(self, owners: NDArray[Any] | None = None) -> None:
        """Refuse what is no rows of numbers with a label each, and an owner each if there are any.

        Raises
        ------
        UserError
            Naming the place, what is there, and what is allowed.
        """
        inputs, place = self.inputs, self.inputs_place
        if inputs.dtype.kind not in "iufb":
            raise UserError(f"{place}: inputs of type {inputs.dtype}, allowed are numbers")
        if not 2 <= inputs.ndim <= 4 or 0 in inputs.shape[1:]:
            raise UserError(
                f"{place}: shape {inputs.shape}, allowed are tables or texts (rows, columns) and "
                "images (rows, height, width), with channels first or last"
            )
        if not len(inputs):
            raise UserError(f"{place}: no rows, allowed is one or more")
        if self.labels.shape[:1] != inputs.shape[:1]:
            raise UserError(
                f"{self.labels_place}: {self.labels.size} labels, allowed is {len(inputs)}, as "
                "inputs"
            )
        if owners is None:
            return
        if owners.shape != inputs.shape[:1] or owners.dtype.kind not in "iubU":
            raise UserError(
                f"{place}: owners of shape {owners.shape} and type {owners.dtype}, allowed are "
                f"{len(inputs)} integers or texts, one a row"
            )
        if owners.dtype.kind == "U" and (bad := missing(owners)).any():
            raise UserError(
                f"{place}: the owner of row {int(bad.argmax())} is empty or nan; allowed is neither"
            )

    def row(self, bad: NDArray[np.bool_]) -> tuple[str, list[int]]:
        """Return the place of the first bad value of the inputs, and where it is in its row."""
        row, *rest = np.argwhere(bad)[0].tolist()
        number = row if self.rows is None else int(self.rows[row])
        return f"{self.inputs_place}, row {number}", rest


def assembled(
    name: str,
    train: Part,
    test: Part,
    *,
    origin: str,
    kind: str = "auto",
    channels: str = "auto",
    standardized: bool = False,
    owners: NDArray[Any] | None = None,
    order: tuple[str, ...] | None = None,
    vocabulary: int | None = None,
) -> Data:
    """Make a data set of arrays.

    Parameters
    ----------
    name : str
        See `Data`.
    train, test : Part
        Inputs as ``kind`` says, and labels, see `fl_backdoor.data.labels.as_text`.
    origin : str
        Ends the description: where the data come from.
    kind : {"auto", "image", "table", "text"}
        ``auto``: three or four axes are images; two axes of integers, unless bytes, are token ids,
        and of other numbers a table.
    channels : {"auto", "first", "last"}
        Of images, see `fl_backdoor.data.images.channels_first`.
    standardized : bool
        Of tables: give columns mean 0 and standard deviation 1, by the training rows.
    owners : array of shape (n,), optional
        The natural user of each training row, a number or a text.
    order : tuple of str, optional
        All classes that there may be, in the order of their numbers; those that no training row
        is of are left out. None: in the order of numbers or of the alphabet.
    vocabulary : int, optional
        Of texts; None: one more than the largest token.

    Raises
    ------
    UserError
        In one line: the place, what is there, and what is allowed.
    """
    for part, users in ((train, owners), (test, None)):
        part.check(users)
        _check_finite(part)
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise UserError(
            f"{test.inputs_place}: rows of shape {test.inputs.shape[1:]}, allowed is "
            f"{train.inputs.shape[1:]}, as of training rows"
        )
    kind = _kind(train, kind)
    if kind != "table" and _scale(train) != _scale(test):
        raise UserError(
            f"{test.inputs_place}: inputs of type {test.inputs.dtype}, allowed are "
            f"{_scale(train)}, as of training rows ({train.inputs.dtype})"
        )
    prepare: Prepare = as_is
    if kind == "image":
        images = [channels_first(p.inputs, p.inputs_place, channels) for p in (train, test)]
        *inputs, prepare, note = scaled(images[0], images[1])
        size = f"{'x'.join(map(str, inputs[0].shape[1:]))} images"
    elif kind == "text":
        tokens = [_tokens(part, vocabulary) for part in (train, test)]
        vocabulary = vocabulary or 1 + max(int(t.max()) for t in tokens)
        inputs = [torch.from_numpy(t) for t in tokens]
        size, note = f"texts of {tokens[0].shape[1]} tokens", f"vocabulary {vocabulary:,}"
    else:
        tables, note = [part.inputs.astype(np.float64) for part in (train, test)], ""
        if standardized:
            standardize(tables[0], tables[1])
            note = "columns of mean 0 and deviation 1 by the training rows"
        inputs = [torch.from_numpy(table.astype(np.float32)) for table in tables]
        size = f"rows of {tables[0].shape[1]} numbers"
    labels, classes = _labels(train, test, order)
    if owners is not None:
        owners = np.unique(owners, return_inverse=True)[1].astype(np.int64)
    counts = f"{len(labels[0]):,} train + {len(labels[1]):,} test {size}, {len(classes)} classes"
    return Data(
        name=name,
        train=Split(inputs[0], torch.from_numpy(labels[0]), prepare),
        test=Split(inputs[1], torch.from_numpy(labels[1]), prepare),
        classes=classes,
        description="; ".join(filter(None, (f"{name}, {counts}", note, origin))),
        owners=owners,
        vocabulary=vocabulary if kind == "text" else None,
    )


def _check_finite(part: Part) -> None:
    inputs = part.inputs
    if inputs.dtype.kind == "f":
        bad = ~(np.abs(inputs) <= min(LARGEST, float(np.finfo(inputs.dtype).max)))
        if bad.any():
            row, rest = part.row(bad)
            column = f"column {rest[0]}" if len(rest) == 1 else f"at {rest}"
            raise UserError(f"{row}, {column}: allowed is a finite number")


def _kind(part: Part, kind: str) -> str:
    """Say what inputs are, and refuse what they cannot be."""
    axes, whole = part.inputs.ndim, part.inputs.dtype.kind in "iu"
    if kind == "auto":
        tokens = whole and part.inputs.dtype != np.uint8
        kind = "image" if axes > 2 else ("text" if tokens else "table")
    if (axes > 2) != (kind == "image") or (kind == "text" and not whole):
        raise UserError(
            f"{part.inputs_place}: {part.inputs.dtype} of shape {part.inputs.shape} as "
            f"dataset.kind={kind}; allowed are images of three or four axes, tables of two, and "
            "texts of two axes of integers"
        )
    return kind


def _scale(part: Part) -> str:
    """Say in what units inputs may be: in different ones they are not the same thing."""
    dtype = part.inputs.dtype
    if dtype == np.uint8:
        return "bytes"
    return "integers" if dtype.kind in "iu" else "floats or switches"


def _tokens(part: Part, vocabulary: int | None) -> NDArray[np.int64]:
    tokens, limit = part.inputs, vocabulary or MAX_VOCABULARY
    bad = (tokens < 0) | (tokens >= limit)
    if bad.any():
        row, (column,) = part.row(bad)
        raise UserError(f"{row}, column {column}: allowed are tokens 0 to {limit - 1}")
    return tokens.astype(np.int64)


def _labels(
    train: Part, test: Part, order: tuple[str, ...] | None
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    texts = [as_text(part.labels, part.labels_place) for part in (train, test)]
    first, second, classes = numbered(texts[0], texts[1], (train.labels_place, test.labels_place))
    if order is None:
        return [first, second], classes
    kept = [name for name in order if name in classes]
    place = np.array([kept.index(name) for name in classes])
    return [place[first], place[second]], tuple(kept)
