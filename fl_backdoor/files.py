"""What the files of a run are called, and how they are written and read."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError

PathLike = str | os.PathLike[str]
"""What names a file or folder."""
Row = dict[str, Any]
"""What is kept of one round or epoch."""
Summary = dict[str, Any]
"""What is kept of a whole run."""

COMMAND = "command.json"
"""Arguments of the command that began the run, if a command did."""
CONFIG, METRICS = "config.json", "metrics.jsonl"
MODEL, SUMMARY = "model.safetensors", "summary.json"
DISTANCES = "distances.npy"
UNCOMPARED = ("resume", "engine", "round_timeout", "dataset.root", "tracker")
"""Keys, or how they begin, that do not change a result: they may differ when a run is resumed."""
FORMAT = 1
"""Of the files of a run, said by its summary; a newer one is not read."""
TWIN = "clean_twin"
"""Folder of a run's clean twin, a run directory of its own."""
MEMORY = "strategy-{}.safetensors"
"""What changed, in the round of this number, of what a strategy remembers."""
ERROR = "error.txt"
"""Why a run of a sweep ended early, in one line."""


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def write(path: Path, content: bytes) -> None:
    """Replace a file by new content, so that readers see the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with named(path):
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def keep_command(path: Path, arguments: Sequence[str]) -> None:
    """Write what a run is started with, from here, beside what will be its results.

    Nothing is written where a run has begun: a start that is refused changes nothing.
    """
    if (path / CONFIG).exists():
        return
    path.mkdir(parents=True, exist_ok=True)
    command = {"directory": str(Path.cwd()), "arguments": [*arguments]}
    write(path / COMMAND, json.dumps(command, indent=2).encode())


def add_line(path: Path, line: str) -> None:
    """Add a line to a file, and see that it is on the disk."""
    with named(path), path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file that cannot be written: a full disk's error does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a run.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def finite(value: Any) -> Any:
    """Replace what JSON has no word for, the NaN of a model that diverged, by None."""
    if isinstance(value, list):
        return [finite(part) for part in value]
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def stored_source(path: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data source that a run to resume was started with, if ``auto`` found it.

    The data may have moved since: a root that is given stands.
    """
    stored = path / CONFIG
    if dataset.get("source") != "auto" or dataset.get("root") or not stored.exists():
        return {}
    before = read_json(stored).get("dataset", {})
    return {key: before[key] for key in ("source", "root") if key in before}
