"""The suite from a program or a notebook: what the commands do, with results and exceptions.

``from fl_backdoor import run, run_sweep, load_results, compare_runs, write_report``
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .compare import as_frame
from .compose import carried_sweep, check_keys, combinations, new_directory, setting, word
from .config import short
from .errors import UserError
from .files import CONFIG, PathLike, Summary, as_paths, keep_command
from .loop import loop
from .loop.directory import RunDirectory
from .loop.display import Display
from .measure.runs import EARLY, collect, ended, failed, find
from .measure.settings import distinct
from .papers.plan import Job
from .papers.pool import missing, train, work
from .report import write_report
from .results import Results, RunResult
from .screen import Screen, warnings_shown

logging.getLogger("hydra").addHandler(logging.NullHandler())  # what it raises says it all

__all__ = ["compare_runs", "load_results", "run", "run_sweep", "write_report"]


class Lines(Display):
    """What a person sees of a run while it goes on; its tables are those of the result."""

    def result(self, summary: Summary, directory: RunDirectory) -> None:
        """Draw the figures, and say where the results are."""
        self.draw(summary, directory)
        self.line(f"Results: {directory.path}")


def run(
    experiment: str = "",
    *,
    output: PathLike | None = None,
    config_dir: PathLike | None = None,
    **keys: Any,
) -> RunResult:
    """Run an experiment as ``fl-backdoor simulate`` does, to the same bits.

    >>> result = run("sniper_goal1", num_rounds=3, strategy="flame",
    ...              **{"attack.num_attackers": 2})
    >>> result["attack_success_rate"]

    Parameters
    ----------
    experiment : str
        Of ``fl-backdoor list experiments``; "": none, what is not given has its default.
    output : path, optional
        The run directory. None: a new one in ``outputs``.
    config_dir : path, optional
        A folder of configurations of one's own, beside those of the suite; see
        ``docs/extending.md``.
    **keys
        Keys of the configuration and their values, as ``fl-backdoor simulate --help`` lists them;
        a group takes the name of its choice. ``resume=True``, beside the output of an interrupted
        run and what it was started with, continues it.

    Returns
    -------
    RunResult
        Reads like the dict of the summary, prints like the table.

    Raises
    ------
    UserError
        Naming the key, its value and what is allowed, before any training; or what ended the run.
    OSError
        If results cannot be written.
    """
    parts = [f"{key}={word(key, value)}" for key, value in keys.items()]
    check_keys(parts)
    parts += _search_path(config_dir)
    config = setting(experiment, parts, "of which run does one setting; choose one, or run_sweep")
    path = new_directory("outputs", config.name) if output is None else Path(output).absolute()
    with _set_up() as console:
        keep_command(path, [f"+experiment={experiment}"] * bool(experiment) + parts)
        try:
            loop.run(config, path, Lines(console))
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"the same call with output={str(path)!r}, resume=True goes on")
            raise
    return RunResult(path)


def run_sweep(
    experiment: str = "",
    *,
    output: PathLike | None = None,
    config_dir: PathLike | None = None,
    jobs: int = 1,
    **keys: Any,
) -> Results:
    """Run every combination of some values, as ``fl-backdoor sweep`` does.

    >>> run_sweep("sniper_goal1", strategy=["fedavg", "sniper"], seed=range(3))

    Parameters
    ----------
    experiment : str
        As `run` takes it; if it is a sweep, the keys stand above its own.
    output : path, optional
        The folder of the runs: what is there is kept, and gone on with. None: a new one in
        ``multirun``.
    config_dir : path, optional
        As `run` takes it.
    jobs : int (default: 1)
        Processes. With more than one, a script must stand under ``if __name__ == "__main__":``,
        since each process imports it.
    **keys
        As `run` takes them. The values of a list, a tuple, a range or an array are tried in turn;
        so a value that is a list itself stands in a list: ``[[2, 6]]``.

    Returns
    -------
    Results
        A sequence of results, which prints like their comparison. A run that an error ends does
        not keep the others from running: ``notes`` says what ended it.

    Raises
    ------
    UserError
        If a combination does not exist, before any training; if no run came to an end.
    """
    if jobs < 1:
        raise UserError(f"jobs={jobs}: allowed is 1 or more")
    own = _search_path(config_dir)
    name, carried = carried_sweep(experiment, *own)
    given = {key: _choices(key, value) for key, value in keys.items() if key != "resume"}
    out = new_directory("multirun") if output is None else Path(output).absolute()
    runs: list[Job] = []
    for chosen in combinations({**carried, **given}):
        parts = [f"{key}={value}" for key, value in chosen.items()]
        check_keys(parts)
        setting(experiment, [*parts, *own], "")
        command = (*[f"+experiment={experiment}"] * bool(experiment), *parts, *own)
        runs.append(Job(experiment, command, out / name / short(",".join(sorted(parts))), 1.0))
    with _set_up() as console:
        left = missing(runs)
        if jobs > 1 and left:
            work(left, min(jobs, len(left)), console)
        else:
            _one_by_one(left, console)
    paths = [job.path for job in runs]
    early = {path: reason for path, reason in failed([out]) if path in paths}
    begun = [path for path in paths if (path / CONFIG).exists()]
    if not begun:
        raise UserError(f"{out}: no run began; the first {EARLY}: {early[paths[0]]}")
    return Results(begun, [f"{path} {EARLY}: {reason}" for path, reason in early.items()])


def load_results(runs: PathLike | Sequence[PathLike]) -> Results:
    """Read the runs in and below some folders.

    Parameters
    ----------
    runs : path, or sequence of paths
        Directories of runs and of sweeps.

    Returns
    -------
    Results
        A sequence of results, which prints like their comparison.

    Raises
    ------
    UserError
        If a folder has no run that has ended, or one cannot be read.
    """
    return Results(*ended(as_paths(runs)))


def compare_runs(runs: PathLike | Sequence[PathLike]) -> pd.DataFrame:
    """Compare runs: those that differ in nothing but the seed make one row.

    Parameters
    ----------
    runs : path, or sequence of paths
        Directories of runs and of sweeps, or results.

    Returns
    -------
    DataFrame
        The keys in which settings differ, the number of seeds, and of each measure its mean and
        standard deviation over them.

    Raises
    ------
    UserError
        If a folder has no run that has ended, or one cannot be read.
    """
    return as_frame(distinct(collect(find(as_paths(runs))[0])))


@contextmanager
def _set_up() -> Iterator[Screen]:
    """Set threads and warnings as the command line does, and give both back as they were."""
    console, threads = Screen(), torch.get_num_threads()
    torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
    try:
        with warnings_shown(console):
            yield console
    finally:
        torch.set_num_threads(threads)


def _search_path(config_dir: PathLike | None) -> list[str]:
    """Return the override that adds a folder of configurations, if there is one."""
    if config_dir is None:
        return []
    path = Path(config_dir).absolute()
    if not path.is_dir():
        raise UserError(f"config_dir={config_dir}: not a folder")
    return [f"hydra.searchpath=[{word('config_dir', f'file://{path}')}]"]


def _one_by_one(runs: Sequence[Job], console: Screen) -> None:
    alike = set.intersection(*(set(job.overrides) for job in runs)) if len(runs) > 1 else set()
    for number, job in enumerate(runs, start=1):
        own = " ".join(part for part in job.overrides if part not in alike)
        console.print(f"{number}/{len(runs)} {own}", soft_wrap=True)
        error = train(job)
        if error:
            console.print(f"error: {error}", soft_wrap=True)


def _choices(key: str, value: Any) -> str:
    """Write a value, or the values of a sweep, in Hydra's words."""
    if not isinstance(value, list | tuple | range | np.ndarray):
        return word(key, value)
    if not len(value):
        raise UserError(f"{key}={value}: allowed are one value or more")
    return ",".join(word(key, part) for part in value)
