"""The run directory: what a run leaves behind, written as it comes and never half-written."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from ..errors import UserError
from ..files import (
    CONFIG,
    DISTANCES,
    ERROR,
    MEMORY,
    METRICS,
    MODEL,
    SUMMARY,
    UNCOMPARED,
    Row,
    Summary,
    add_line,
    finite,
    flatten_config,
    read_json,
    write,
)
from .tensors import load_arrays, save_arrays


class RunDirectory:
    """Results of one run.

    ``config.json`` the resolved configuration, ``metrics.jsonl`` one row a round or epoch,
    ``model.safetensors`` the newest model with its round or epoch, ``summary.json`` once the run
    is complete; horizontally also ``distances.npy``, the pairwise distances of the last round, and
    ``strategy-N.safetensors``, what changed in round N of what the strategy remembers: the newest
    names for each key the round whose file holds it.

    Parameters
    ----------
    path : Path
        The folder; it is made if missing.
    config : mapping
        The resolved configuration.
    resume : bool
        Continue from what the folder holds; without it a folder that holds a run is refused.
    unit : {"round", "epoch"}
        What the rows are; each has its number, counted from 1, under this key.

    Raises
    ------
    UserError
        If the folder holds another run, or one of another configuration, or cannot be written, or
        another process is writing there.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], *, resume: bool, unit: str = "round"
    ) -> None:
        self.path = path
        self.unit = unit
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
            # Held until the process ends, however it ends.
            self._lock = FileLock(path / ".lock", thread_local=False, is_singleton=True)
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"hydra.run.dir={path}: another process is at work there") from error
        except OSError as error:
            raise UserError(f"hydra.run.dir={path}: not writable ({error.strerror})") from error
        self.rows: list[Row] = []
        self.arrays: ArrayRecord | None = None
        self.memory: dict[str, NDArray[Any]] = {}
        self._places: dict[str, int] = {}
        stored = path / CONFIG
        if stored.exists():
            if not resume:
                raise UserError(
                    f"hydra.run.dir={path}: holds a run already; resume=true, beside what it was "
                    "started with, continues it"
                )
            self._check_same(stored, config)
            self._restore()
            if self.complete:  # what was said of another attempt to run it
                (path / ERROR).unlink(missing_ok=True)
        elif any((path / name).exists() for name in (METRICS, MODEL, SUMMARY)):
            raise UserError(f"{stored}: missing, though the folder holds results of a run")
        else:
            write(stored, json.dumps(dict(config), indent=2).encode())

    @property
    def rounds_done(self) -> int:
        """The rounds whose results are safe on disk."""
        return len(self.rows)

    @property
    def complete(self) -> bool:
        """Whether the run has ended."""
        return (self.path / SUMMARY).exists()

    def append(
        self, row: Row, arrays: ArrayRecord, memory: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        """Keep a finished round: at last the model, which makes its row and memory count.

        Parameters
        ----------
        row : dict
            Of the round, with its number.
        arrays : ArrayRecord
            The model after it.
        memory : mapping of str to array, optional
            What the strategy remembers. Values that are those of the round before, the very same
            objects, are not written again.
        """
        row = finite(row)
        add_line(self.path / METRICS, json.dumps(row, allow_nan=False))
        self.rows.append(row)
        number, memory = row[self.unit], dict(memory or {})
        places = {
            key: self._places[key] if self.memory.get(key) is value else number
            for key, value in memory.items()
        }
        if memory:
            changed = {key: memory[key] for key, place in places.items() if place == number}
            save_arrays(self._memory(number), changed, {self.unit: number, "places": places})
        model = {name: array.numpy() for name, array in arrays.items()}
        save_arrays(self.path / MODEL, model, {self.unit: number})
        self.memory, self._places = memory, places
        needed = {self._memory(place) for place in (*places.values(), *[number] * bool(memory))}
        for other in self.path.glob(MEMORY.format("*")):
            if other not in needed:
                other.unlink()

    def save_distances(self, distances: NDArray[np.float64]) -> None:
        """Keep the pairwise distances of the last round."""
        buffer = io.BytesIO()
        np.save(buffer, distances)
        write(self.path / DISTANCES, buffer.getvalue())

    def finish(self, summary: Summary) -> None:
        """Write the summary, which marks the run as complete."""
        (self.path / ERROR).unlink(missing_ok=True)
        write(self.path / SUMMARY, json.dumps(finite(summary), indent=2, allow_nan=False).encode())

    def summary(self) -> Summary:
        """Read the summary of a complete run.

        Raises
        ------
        UserError
            If it is none.
        """
        summary = read_json(self.path / SUMMARY)
        if not {"name", "seed"} <= summary.keys():
            raise UserError(f"{self.path / SUMMARY}: not the summary of a run")
        return summary

    def distances(self) -> NDArray[np.float64] | None:
        """Read the pairwise distances of the last round, if they were measured.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        path = self.path / DISTANCES
        if not path.exists():
            return None
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read") from error

    def _check_same(self, stored: Path, config: Mapping[str, Any]) -> None:
        before = flatten_config(read_json(stored))
        now = flatten_config(json.loads(json.dumps(dict(config))))
        for key in sorted(before.keys() | now.keys()):
            if not key.startswith(UNCOMPARED) and before.get(key) != now.get(key):
                raise UserError(
                    f"{key}={now.get(key)}: the run to resume in {self.path} has {before.get(key)}"
                )

    def _restore(self) -> None:
        """Read the newest model, and the rows up to its round."""
        model, rows = self.path / MODEL, self.path / METRICS
        if not model.exists():
            if self.complete:
                raise UserError(f"{model}: missing, though the run is complete")
            rows.unlink(missing_ok=True)
            return
        arrays, done, _ = self._load(model)
        self.arrays = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        self._restore_memory(done)
        # A row is written before its model: one row too many, or half of one, may be there.
        try:
            lines = rows.read_text().splitlines()[:done]
            self.rows = [dict(json.loads(line)) for line in lines]
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{rows}: cannot be read ({error})") from error
        if [row.get(self.unit) for row in self.rows] != list(range(1, done + 1)):
            raise UserError(f"{rows}: {len(self.rows)} rows, but {model} is of {self.unit} {done}")
        write(rows, "".join(line + "\n" for line in lines).encode())

    def _restore_memory(self, done: int) -> None:
        """Gather what the strategy remembered after a round from the files that hold it."""
        if not self._memory(done).exists():
            return
        _, _, self._places = self._load(self._memory(done), ())
        found: dict[str, NDArray[Any]] = {}
        for place in set(self._places.values()):
            keys = [key for key, where in self._places.items() if where == place]
            found |= self._load(self._memory(place), keys)[0]
        self.memory = {key: found[key] for key in self._places}

    def _memory(self, number: int) -> Path:
        return self.path / MEMORY.format(number)

    def _load(
        self, path: Path, names: Iterable[str] | None = None
    ) -> tuple[dict[str, NDArray[Any]], int, dict[str, int]]:
        """Return arrays, the round or epoch that they are of, and the places."""
        arrays, note = load_arrays(path, names)
        try:
            return arrays, int(note[self.unit]), dict(note.get("places", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
