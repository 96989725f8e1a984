"""Runs of a grid over the cores: each process trains one after the other."""

import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait as wait_for

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ..compose import composed
from ..config import load, one_line
from ..errors import UserError
from ..files import CONFIG, ERROR, METRICS, SUMMARY, keep_command
from ..screen import Screen, in_words, show_warnings
from .plan import Job

EVERY = 1.0
"""Seconds between looks at how far the runs are."""


def train(job: Job) -> str:
    """Do a job in this process, or go on with what its directory holds; return what went wrong."""
    import torch

    from ..loop.display import Display
    from ..loop.loop import run
    from ..loop.machine import forget

    torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
    forget()
    try:
        config = load(composed(*job.overrides, "resume=true"))
        keep_command(job.path, job.overrides)
        display = Display(Console(quiet=True), "grid", figures=False)
        run(config, job.path, display, twins=job.twins)
    except Exception as error:
        if not isinstance(error, UserError | OSError):  # a fault of the suite: show it whole
            traceback.print_exc()
        with suppress(OSError):
            job.path.mkdir(parents=True, exist_ok=True)
            (job.path / ERROR).write_text(one_line(error) + "\n")
        return one_line(error)
    return ""


def missing(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that are not done."""
    return [job for job in jobs if not (job.path / SUMMARY).exists()]


def work(jobs: Sequence[Job], processes: int, console: Console) -> list[str]:
    """Do jobs over some processes, and show how far they are.

    Returns
    -------
    list of str
        What went wrong, in a line each with the run's directory.

    Raises
    ------
    UserError
        If the system ends a process, of which memory is the usual cause.
    """
    failed: list[str] = []
    total, started = sum(job.minutes for job in jobs), time.monotonic()
    context = multiprocessing.get_context("spawn")  # torch and forks do not go together
    with ProcessPoolExecutor(processes, context, _begin) as pool, _bar(console) as bar:
        task = bar.add_task("", total=total, left=in_words(total / processes))
        try:
            with _held():
                futures: dict[Future[str], Job] = {pool.submit(train, job): job for job in jobs}
            open_ = set(futures)
            while open_:
                ended, open_ = wait(open_, EVERY, FIRST_COMPLETED)
                failed += _errors(futures, ended, bar.console)
                done = total - sum(futures[f].minutes * (1 - _part(futures[f])) for f in open_)
                left = in_words(_left(total, done, (time.monotonic() - started) / 60, processes))
                said = f"{len(jobs) - len(open_)}/{len(jobs)} runs"
                bar.update(task, description=said, completed=done, left=left)
                if ended and not console.is_terminal:
                    console.print(f"{said}, about {left} left")
        except BrokenProcessPool as error:
            raise UserError("a process was killed, maybe for memory: fewer --jobs") from error
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


def _left(total: float, done: float, elapsed: float, processes: int) -> float:
    """Return the minutes that are left: as guessed at first, then at the pace so far."""
    return (total - done) * (elapsed / done if done > 0 else 1 / processes)


def _errors(
    futures: dict[Future[str], Job], ended: set[Future[str]], console: Console
) -> list[str]:
    lines = [f"{futures[future].path}: {error}" for future in ended if (error := future.result())]
    for line in lines:
        console.print(f"error: {line}", soft_wrap=True)
    return lines


def _part(job: Job) -> float:
    """Return which part of a run is done, by the rows that it has written."""
    try:
        rows = (job.path / METRICS).read_bytes().count(b"\n")
        config = json.loads((job.path / CONFIG).read_bytes())
    except (OSError, ValueError):
        return 0.0
    return min(rows / int(config.get("num_rounds") or config["num_epochs"]), 1.0)


def _begin() -> None:
    """Let a process show warnings only, and end with an interrupt or its parent without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    show_warnings(Screen())


@contextmanager
def _held() -> Iterator[None]:
    """Hold interrupts back meanwhile, and in processes that are started until they have begun."""
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _end_with_the_parent() -> None:
    """End this process when its parent is gone, however: a killed one ends nobody."""
    if (parent := multiprocessing.parent_process()) is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("about {task.fields[left]} left"),
        console=console,
        expand=True,
        disable=not console.is_terminal,
    )
