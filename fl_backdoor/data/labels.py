"""Labels as they are given: integers with gaps, texts, switches; and the classes they make."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


def in_order(names: Iterable[str]) -> list[str]:
    """Sort as numbers if all are numbers, else as text."""
    names = set(names)
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        numbers = {}
    if numbers and all(map(math.isfinite, numbers.values())):
        return sorted(names, key=lambda name: (numbers[name], name))
    return sorted(names)


def missing(texts: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Tell which texts stand for nothing: blanks, and what a NaN is written as."""
    bare = np.char.lower(np.char.strip(texts))
    nothing: NDArray[np.bool_] = (bare == "") | (bare == "nan")
    return nothing


def as_text(labels: NDArray[Any], place: str) -> NDArray[np.str_]:
    """Return labels by their names, shape (n,).

    Parameters
    ----------
    labels : array of shape (n,) or (n, 1)
        Integers, whole floats, texts or switches.
    place : str
        What errors begin with: file and array.

    Raises
    ------
    UserError
        Naming the first label that is none.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{place}: shape {labels.shape}, allowed is (rows,), one label a row")
    if labels.dtype.kind == "f":
        bad = ~(np.isfinite(labels) & (labels == np.trunc(labels)) & (np.abs(labels) < 2**53))
        if bad.any():
            raise UserError(
                f"{place}, row {int(bad.argmax())}: allowed is a class: an integer, a text or a "
                "switch"
            )
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        raise UserError(
            f"{place}: labels of type {labels.dtype}, allowed are integers, texts and switches"
        )
    names = labels.astype(np.str_)
    if labels.dtype.kind == "U" and (bad := missing(names)).any():
        raise UserError(
            f"{place}, row {int(bad.argmax())}: allowed is a text that is not empty, and not nan"
        )
    return names


def by_name(labels: NDArray[Any], names: Sequence[str] | None, place: str) -> NDArray[np.str_]:
    """Return labels that number ``names``, or stand for themselves, by name.

    Raises
    ------
    UserError
        Naming the first label that is none.
    """
    if names is None:
        return as_text(labels, place)
    if labels.dtype.kind not in "iu":
        texts = as_text(labels, place)
        strange = ~np.isin(texts, names)
        if strange.any():
            raise UserError(
                f"{place}, row {int(strange.argmax())}: allowed are the classes "
                f"{', '.join(names)}, or their numbers from 0 as integers"
            )
        return texts
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        raise UserError(
            f"{place}, row {int(outside.argmax())}: allowed are labels 0 to {len(names) - 1}"
        )
    named: NDArray[np.str_] = np.array(names)[labels]
    return named


def numbered(
    train: NDArray[np.str_], test: NDArray[np.str_], places: tuple[str, str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Give the labels numbers, 0 to C-1, in the order of `in_order` of the training rows' labels.

    Returns
    -------
    train, test : arrays of shape (n,) and (m,), int64
    classes : tuple of str

    Raises
    ------
    UserError
        If the training rows have one class only, or a test row one that they lack.
    """
    found, numbers = np.unique(train, return_inverse=True)
    classes = in_order(found.tolist())
    if len(classes) < 2:
        raise UserError(
            f"{places[0]}: every training row is of one class, {classes[0]}; allowed are two "
            "classes or more"
        )
    place = np.array([classes.index(name) for name in found.tolist()])
    position = np.searchsorted(found, test).clip(max=len(found) - 1)
    strange = found[position] != test
    if strange.any():
        row = int(strange.argmax())
        raise UserError(
            f"{places[1]}, row {row}: a label of no training row, allowed are the {len(classes)} "
            "of training rows"
        )
    return place[numbers], place[position], tuple(classes)
