"""What a grid runs: experiments with the sweeps that they carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..compose import carried_sweep, combinations
from ..config import short

cached_sweep = cache(carried_sweep)


@dataclass(frozen=True)
class Part:
    """An experiment, and what of it is run.

    Attributes
    ----------
    experiment : str
        Of ``conf/experiment``; its own sweep is run.
    overrides : mapping of str to str
        Keys and values in Hydra's words, which may be sweeps themselves; they replace those of the
        experiment's.
    quick : mapping of str to str, optional
        The same for a quick run. None: it is left out of it.
    minutes : float
        That a run takes on one core, roughly: what the estimate begins with.
    """

    experiment: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, str] | None = None
    minutes: float = 1.5


@dataclass(frozen=True)
class Plan:
    """A name, and parts in the order in which they are run."""

    name: str
    title: str
    parts: tuple[Part, ...]
    quick_data: str
    """What a quick run is on, for the plan that is printed."""


@dataclass(frozen=True)
class Job:
    """One run: the overrides of its command, its directory, and minutes that it may take.

    ``twins`` is where runs share their clean twins, if they do.
    """

    part: str
    overrides: tuple[str, ...]
    path: Path
    minutes: float
    twins: Path | None = None


def jobs(plan: Plan, out: Path, *, quick: bool = False, seeds: int | None = None) -> list[Job]:
    """List the runs of a plan, each once, with the first seed of every part before the second.

    Parameters
    ----------
    plan : Plan
        What to run.
    out : Path
        The folder of the runs.
    quick : bool
        Run the quick part of it.
    seeds : int, optional
        Seeds 0 to seeds - 1 instead of those of the experiments.
    """
    found: dict[Path, tuple[int, Job]] = {}
    for part in plan.parts:
        if quick and part.quick is None:
            continue
        given = {**part.overrides, **(part.quick if quick and part.quick else {})}
        if seeds is not None:
            given["seed"] = f"range({seeds})"
        name, swept = cached_sweep(part.experiment)
        minutes = QUICK_MINUTES if quick else part.minutes
        for chosen in combinations({**swept, **given}):
            settings = tuple(f"{key}={value}" for key, value in chosen.items())
            path = out / name / short(",".join(sorted(settings)))
            overrides = (f"+experiment={part.experiment}", *settings)
            job = Job(part.experiment, overrides, path, minutes, out.with_name("twins"))
            found.setdefault(path, (int(chosen.get("seed", "0")), job))
    return [job for _, job in sorted(found.values(), key=lambda pair: pair[0])]


QUICK_MINUTES = 0.35
"""That a quick run takes on one core, roughly."""
