"""What all trackers of experiments have in common: they take the numbers of a round."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from ..checks import is_finite_number
from ..record import RoundRecord


class Tracker:
    """Takes the numbers of each round: of a strategy, as its ``on_round``, or of anybody's rows.

    One that tracks overrides `open`, `log` and `close`; this one does nothing.

    Attributes
    ----------
    settings : mapping of str to Any
        What the run was started with, for trackers that keep it.
    """

    _is_open = False
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        """Take no settings: a key that is given all the same is then named."""

    def open(self, number: int) -> None:
        """Begin, with the round of this number."""

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a round."""

    def close(self) -> None:
        """End."""

    def write(self, number: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a round; begin, if it is the first."""
        self.begin(number)
        self.log(number, values)

    def begin(self, number: int) -> None:
        """Begin with the round of this number, if nothing has."""
        if not self._is_open:
            self.open(number)
            self._is_open = True

    def __call__(self, record: RoundRecord) -> None:
        """Take the numbers of a strategy's round: its metrics, and the norms of the updates."""
        self.write(record.number, numbers(row(record)))


def row(record: RoundRecord) -> dict[str, Any]:
    """Return what a record has in numbers."""
    norms: dict[str, float] = {}
    if record.norms:
        least, middle, most = np.percentile(record.norms, [0, 50, 100])
        norms = {"norm-min": least, "norm-median": middle, "norm-max": most}
    answers = {"asked": record.asked, "valid": len(record.nodes)}
    return {**record.metrics, **answers, **norms, "stayed": int(record.stayed)}


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of a row by names that every tracker takes.

    Lists of whole numbers are lists of clients, of whom the count is taken; text and lists of
    other things are left out.
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./-]", "_", str(key))[:200]
        if isinstance(value, Mapping):
            found |= numbers(value, f"{name}.")
        elif isinstance(value, list) and all(type(entry) is int for entry in value):
            found[name] = float(len(value))
        elif isinstance(value, bool) or is_finite_number(value):
            found[name] = float(value)
    return found


@contextmanager
def needed(who: str, packages: str) -> Iterator[None]:
    """Say what to install, where a package that only some need is missing.

    Raises
    ------
    ImportError
        In one line.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{who} needs another package: pip install {packages}") from error
