"""Clean twins that runs share: trained once, and asked for the goal of each attack."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from ..federation.roster import ROSTER
from ..files import UNCOMPARED, Row, Summary, finite, flatten_config, named
from ..measure.measures import measures
from ..schema import Config
from .directory import RunDirectory
from .machine import versions
from .tensors import load_arrays, save_arrays
from .tested import Tested

if TYPE_CHECKING:
    from .round import Rounds


def key(config: Config) -> str:
    """Name what a clean twin is decided by: all but what its attackers would have done.

    Who attacks stays, since a strategy may assume their number.
    """
    whole = flatten_config(json.loads(json.dumps(asdict(config))))
    beside = ("name", "floor", *UNCOMPARED)
    kept = {
        name: value
        for name, value in whole.items()
        if not name.startswith(beside) and (not name.startswith("attack.") or name[7:] in ROSTER)
    }
    said = json.dumps([kept, versions()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


class SharedTwin:
    """A clean twin's training that takes its rounds from another run's, where there are any.

    Parameters
    ----------
    rounds : Rounds
        The training.
    folder : Path
        Of the rounds of this twin, a file each; see `key`.
    """

    def __init__(self, rounds: "Rounds", folder: Path) -> None:
        self.name = rounds.name
        self.total = rounds.total
        self._rounds = rounds
        self._folder = folder
        self._trained = False

    def begin(self, directory: RunDirectory) -> None:
        """Take all rounds or none: a training that began cannot be gone on with from here."""
        self._rounds.begin(directory)
        self._trained = all(self._file(number).exists() for number in range(1, self.total + 1))

    def step(
        self, number: int, twin: Row | None
    ) -> tuple[Row, ArrayRecord, Mapping[str, NDArray[Any]]]:
        """Do a round, or measure the one that is there with the goal of this run's attack."""
        if not self._trained:
            row, arrays, memory = self._rounds.step(number, twin)
            self._keep(number, row, arrays)
            return row, arrays, memory
        row, arrays = self._kept(number)
        self._rounds.model = arrays
        tested = Tested(self._rounds.federation, self._rounds.experiment.test_set)
        test = tested.answers(arrays, {}, clean=True)
        for measure in measures("round"):
            if measure.needs == ("test",):
                row |= measure.columns({"test": test})
        return row, arrays, {}

    def summary(self, rows: list[Row]) -> Summary:
        """Say what was run."""
        return self._rounds.summary(rows)

    def _file(self, number: int) -> Path:
        return self._folder / f"round-{number}.safetensors"

    def _keep(self, number: int, row: Row, arrays: ArrayRecord) -> None:
        file = self._file(number)
        with named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")  # another run may train the same twin meanwhile
        model = {name: array.numpy() for name, array in arrays.items()}
        save_arrays(own, model, {"row": finite(row)})
        own.replace(file)

    def _kept(self, number: int) -> tuple[Row, ArrayRecord]:
        arrays, note = load_arrays(self._file(number))
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        return dict(note["row"]), record
