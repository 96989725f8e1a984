"""The run directory: what a run leaves behind, written as it comes and never half-written."""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UserError

Row = dict[str, Any]

COMMAND = "command.json"
"""Arguments of the command that began the run, if a command did."""
CONFIG, METRICS = "config.json", "metrics.jsonl"
MODEL, SUMMARY = "model.safetensors", "summary.json"
DISTANCES = "distances.npy"
TWIN = "clean_twin"
"""Folder of a run's clean twin, a run directory of its own."""
MEMORY = "strategy-{}.safetensors"
"""What a strategy remembers after the round of this number."""
ERROR = "error.txt"
"""Why a run of a sweep ended early, in one line."""

UNCOMPARED = ("resume", "engine", "round_timeout", "dataset.root")
"""Keys that may differ when a run is resumed: they do not change its result."""


class RunDirectory:
    """Results of one run.

    ``config.json`` the resolved configuration, ``metrics.jsonl`` one row a round or epoch,
    ``model.safetensors`` the newest model with its round or epoch, ``summary.json`` once the run
    is complete; horizontally also ``distances.npy``, the pairwise distances of the last round, and
    ``strategy-N.safetensors``, what the strategy remembers after round N, if anything.

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
        self.memory = ArrayRecord()
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

    def append(self, row: Row, arrays: ArrayRecord, memory: ArrayRecord | None = None) -> None:
        """Keep a finished round: at last the model, which makes its row and memory count."""
        row = {key: _finite(value) for key, value in row.items()}
        rows = self.path / METRICS
        with _named(rows), rows.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        number = row[self.unit]
        remembered = self._memory(number)
        if memory:
            self._save(remembered, memory, number)
        self._save(self.path / MODEL, arrays, number)
        for other in self.path.glob(MEMORY.format("*")):
            if not memory or other != remembered:
                other.unlink()

    def save_distances(self, distances: NDArray[np.float64]) -> None:
        """Keep the pairwise distances of the last round."""
        buffer = io.BytesIO()
        np.save(buffer, distances)
        write(self.path / DISTANCES, buffer.getvalue())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, which marks the run as complete."""
        (self.path / ERROR).unlink(missing_ok=True)
        write(self.path / SUMMARY, json.dumps(dict(summary), indent=2, allow_nan=False).encode())

    def summary(self) -> dict[str, Any]:
        """Read the summary of a complete run.

        Raises
        ------
        UserError
            If it is none.
        """
        summary = _read_json(self.path / SUMMARY)
        if not {"name", "seed"} <= summary.keys():
            raise UserError(f"{self.path / SUMMARY}: not the summary of a run")
        return summary

    def distances(self) -> NDArray[np.float64]:
        """Read the pairwise distances of the last round.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        path = self.path / DISTANCES
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read") from error

    def _check_same(self, stored: Path, config: Mapping[str, Any]) -> None:
        before = flatten_config(_read_json(stored))
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
        self.arrays, done = self._load(model)
        if self._memory(done).exists():
            self.memory, _ = self._load(self._memory(done))
        # A row is written before its model: one row too many, or half of one, may be there.
        try:
            lines = rows.read_text().splitlines()[:done]
            self.rows = [dict(json.loads(line)) for line in lines]
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{rows}: cannot be read ({error})") from error
        if [row.get(self.unit) for row in self.rows] != list(range(1, done + 1)):
            raise UserError(f"{rows}: {len(self.rows)} rows, but {model} is of {self.unit} {done}")
        write(rows, "".join(line + "\n" for line in lines).encode())

    def _memory(self, number: int) -> Path:
        return self.path / MEMORY.format(number)

    def _save(self, path: Path, arrays: ArrayRecord, number: int) -> None:
        # safetensors stores memory as it lies, and sorts the names: both must be put right.
        tensors = {name: np.asarray(array.numpy(), order="C") for name, array in arrays.items()}
        # One entry of metadata: safetensors writes several in random order, other bytes each time.
        note = json.dumps({self.unit: number, "order": list(tensors)})
        write(path, save(tensors, metadata={"fl-backdoor": note}))

    def _load(self, path: Path) -> tuple[ArrayRecord, int]:
        """Return arrays in their order, and the round or epoch that they are of."""
        try:
            with safe_open(path, framework="numpy") as file:
                note = json.loads(file.metadata()["fl-backdoor"])
                tensors = {name: file.get_tensor(name) for name in note["order"]}
                number = int(note[self.unit])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        return ArrayRecord({name: Array(tensor) for name, tensor in tensors.items()}), number


def stored_source(path: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data source that a run to resume was started with, if ``auto`` found it.

    The data may have moved since: a root that is given stands.
    """
    stored = path / CONFIG
    if dataset.get("source") != "auto" or dataset.get("root") or not stored.exists():
        return {}
    before = _read_json(stored).get("dataset", {})
    return {key: before[key] for key in ("source", "root") if key in before}


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for, the NaN of a model that diverged, by None."""
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, content: bytes) -> None:
    """Replace a file by new content, so that readers see the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with _named(path):
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that cannot be written: a full disk's error does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a file of a run directory.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
