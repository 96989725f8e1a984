"""Run a whole grid over the cores, and report it: ``python -m fl_backdoor.reproduce``."""

import argparse
import os
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from rich.console import Console

from .arguments import Parser
from .config import ending
from .papers.grids import PLANS
from .papers.plan import Job, Plan, jobs
from .papers.pool import missing, work
from .screen import Screen, counted, in_words

WIDTH = 80


def reproduce(plan: Plan, arguments: argparse.Namespace, console: Console) -> list[str]:
    """Print a plan, run what of it is missing, and report all of it.

    Returns
    -------
    list of str
        A line for each run that failed.
    """
    every = jobs(plan, arguments.out / "runs", quick=arguments.quick, seeds=arguments.seeds)
    left = missing(every)
    _show(plan, every, left, arguments, console)
    started = time.monotonic()
    failed = work(left, min(arguments.jobs, len(left)), console) if left else []
    if left:
        console.print(f"Trained in {in_words((time.monotonic() - started) / 60)}.")
    _report(plan, arguments.out, console, quick=arguments.quick)
    return failed


def main() -> None:
    """Reproduce from the command line; bad input is one line on stderr and exit status 2."""
    parser = Parser("reproduce", __doc__, "cao2019 --quick")
    parser.add_argument("plan", choices=sorted(PLANS), help="whose grid: %(choices)s")
    parser.add_argument("--quick", action="store_true", help="minutes, on stand-in data")
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help="0 to N - 1 (default: as the paper)",
    )
    parser.add_argument("--jobs", type=_positive, metavar="J", help="processes (default: cores)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: reproduction/PLAN")
    arguments = parser.parse_args()
    if arguments.jobs is None:
        arguments.jobs = len(os.sched_getaffinity(0))
    if arguments.out is None:
        end = "-quick" if arguments.quick else ""
        arguments.out = Path("reproduction") / (arguments.plan + end)
    console = Screen()
    again = "interrupted; the same command goes on from the last round of each run"
    with ending(console.on_broken_pipe, again):
        failed = reproduce(PLANS[arguments.plan], arguments, console)
    if failed:
        print(f"error: {counted(len(failed), 'run')} failed:", *failed, sep="\n", file=sys.stderr)
        raise SystemExit(2)


def _show(
    plan: Plan,
    every: list[Job],
    left: list[Job],
    arguments: argparse.Namespace,
    console: Console,
) -> None:
    """Say what is about to run, on which data, and about how long it takes."""
    console.print(f"{plan.title}", width=WIDTH)
    if arguments.quick:
        console.print(f"Quick: a part of the grid on {plan.quick_data}.", width=WIDTH)
    of = Counter(job.part for job in every)
    todo = Counter(job.part for job in left)
    for name, number in of.items():
        there = number - todo[name]
        console.print(f"  {name:<28} {number:>5} runs" + (f", {there} there" if there else ""))
    guess = in_words(sum(job.minutes for job in left) / arguments.jobs)
    console.print(
        f"{counted(len(left), 'run')} to train, {arguments.jobs} at a time: about {guess}. "
        f"Runs go to {arguments.out}; what is there is kept, and the same command goes on.",
        width=WIDTH,
    )


def _report(plan: Plan, out: Path, console: Console, *, quick: bool) -> None:
    """End with the report of the runs, and with what of the paper they show."""
    from .papers.page import PAPERS, parts
    from .papers.tidy import tidy
    from .report import write_report

    say = partial(console.print, soft_wrap=True)
    write_report([out / "runs"], out / "report", say)
    if plan.name not in PAPERS:
        return
    if quick:
        say("Stand-in data show nothing of the paper: no verdicts.")
    else:
        claims = out / "claims.md"
        claims.write_text("\n\n".join(parts(plan.name, tidy([out / "runs"])).values()) + "\n")
        say(f"What of the paper they show: {claims}")


def _positive(text: str) -> int:
    """Read a number that is 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: allowed is a number from 1")
    return int(text)


if __name__ == "__main__":
    main()
