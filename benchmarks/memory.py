"""Peak memory of the server's side of a round, for every rule; and what a large crowd costs.

A rule gets the replies of a cohort that trained ResNet-18, in a process of its own, from messages
to the new model, with the measures that the suite takes. A crowd is a run in one process on
invented rows, of which as many clients take part in each round however large it is.

    python -m benchmarks.memory [--clients 100] [--cohort 10] [--width 64] [--rules a,b]
        [--crowds 100,1000,10000] [--owners 3400] [--rounds 5]
"""

import argparse
import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from rich.console import Console

from fl_backdoor.config import conf_directory, load
from fl_backdoor.federation.strategy import new_strategy
from fl_backdoor.files import Row
from fl_backdoor.loop.display import Display
from fl_backdoor.loop.loop import run
from fl_backdoor.models import ResNet18
from fl_backdoor.schema import Config

from .rules import one_round, replies

BOUND = 2.25
"""Times the replies' bytes: themselves, one matrix of their size, and a quarter."""

MODELS = 1.5
"""Times the model's bytes, beside them."""

Result = TypeVar("Result")


class Held(NamedTuple):
    """What the server's side of a round takes at most, in bytes.

    Attributes
    ----------
    peak : int
        In the process, beyond what it had before the replies came.
    replies, model, remembered : int
        Of the arrays in the replies, of the global model, and of what the rule remembers.
    """

    peak: int
    replies: int
    model: int
    remembered: int

    @property
    def bound(self) -> float:
        """What it may take."""
        return BOUND * self.replies + MODELS * self.model + self.remembered


class Crowd(NamedTuple):
    """What a run takes: seconds before the first round and of one (the median), bytes at most."""

    setup: float
    round: float
    peak: int


class Clock(Display):
    """Keeps the times of a run, and draws nothing."""

    def __init__(self) -> None:
        super().__init__(Console(file=StringIO()), figures=False)
        self.started, self.begun = time.perf_counter(), 0.0
        self.rounds: list[float] = []

    def begin(self, name: str, unit: str, total: int, rows: list[Row]) -> None:
        self.begun = time.perf_counter()
        super().begin(name, unit, total, rows)

    def round(self, row: Row) -> None:
        self.rounds.append(row["seconds_round"])


def peak_bytes() -> int:
    """Return what this process has taken at most."""
    status = Path("/proc/self/status")
    if status.exists():  # a child's getrusage begins at what its parent had
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", list(overrides)))
    assert isinstance(config, Config)
    return config


class Means:
    """What some rules need of an app, of next to no memory but the server's own update."""

    def run_model(self, _: ArrayRecord, inputs: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.random.default_rng(0).random((len(inputs), 10))

    def noise(self, count: int, rng: np.random.Generator) -> NDArray[np.floating]:
        return rng.random((count, 1))

    def root_update(self, _: int, arrays: ArrayRecord) -> ArrayRecord:
        values = {name: np.array(array.numpy() * 2) for name, array in arrays.items()}
        return ArrayRecord({name: Array(value) for name, value in values.items()})


def server(rule: str, clients: int, cohort: int, width: int) -> Held:
    """Play the server's side of one round."""
    config = composed(
        f"strategy={rule}", f"num_clients={clients}", f"cohort.clients_per_round={cohort}",
        "root=held_out",
    )  # fmt: skip
    strategy = new_strategy(config, Means())
    small = ArrayRecord(ResNet18(10, width=1).state_dict())
    one_round(strategy, small, replies(small, cohort), distances=True)()  # loads libraries
    strategy = new_strategy(config, Means())
    initial = ArrayRecord(ResNet18(10, width=width).state_dict())
    size = sum(array.numpy().nbytes for array in initial.values())
    before = peak_bytes()
    one_round(strategy, initial, replies(initial, cohort), distances=True)()
    remembered = sum(array.nbytes for array in strategy.remember().values())
    return Held(peak_bytes() - before, cohort * size, size, remembered)


def crowd(clients: int, cohort: int, rounds: int, *data: str) -> Crowd:
    """Train a small network in a crowd."""
    config = composed(
        # As many rows for a client of any crowd.
        "dataset=synthetic", "dataset.train_rows=40000", "partition.max_samples=4",
        "model=mlp", "attack=none", "engine=local", f"num_rounds={rounds}",
        f"num_clients={clients}", f"cohort.clients_per_round={cohort}", *data,
    )  # fmt: skip
    clock = Clock()
    with TemporaryDirectory() as folder:
        run(config, Path(folder), clock)
    return Crowd(clock.begun - clock.started, median(clock.rounds), peak_bytes())


def alone(work: Callable[[], Result]) -> Result:
    """Return what a piece of work returns in a process of its own."""
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, start, logging.disable, (logging.INFO,)) as process:
        return process.submit(work).result()


def main(arguments: Sequence[str]) -> dict[str, float]:
    """Print everything; return of each rule the peak as a part of its bound."""
    rules = sorted(path.stem for path in (conf_directory() / "strategy").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--cohort", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rules", default=",".join(rules))
    parser.add_argument("--crowds", default="100,1000,10000")
    parser.add_argument("--owners", type=int, default=3400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    used = {}
    for rule in options.rules.split(","):
        held = alone(partial(server, rule, options.clients, options.cohort, options.width))
        used[rule] = held.peak / held.bound
        print(
            f"{rule:15} {held.peak / held.replies:.2f} times the {held.replies / 2**20:,.0f} MiB "
            f"of replies, {used[rule]:.2f} of the bound"
        )
    few, *more = map(int, options.crowds.split(","))
    first = alone(partial(crowd, few, options.cohort, options.rounds))
    for clients in more:
        whole = alone(partial(crowd, clients, options.cohort, options.rounds))
        print(
            f"{clients:,} clients / {few:,}: a round {whole.round / first.round:.2f}, set-up "
            f"{whole.setup / first.setup:.2f}, peak memory {whole.peak / first.peak:.2f}"
        )
    natural = ("partition=natural", f"dataset.owners={options.owners}")
    some, every = (
        alone(partial(crowd, clients, options.cohort, options.rounds, *natural))
        for clients in (options.owners // 10, options.owners)
    )
    print(
        f"{options.owners:,} natural users / a tenth: set-up {every.setup / some.setup:.2f} "
        f"({every.setup:.1f} s), peak memory {every.peak / some.peak:.2f}"
    )
    return used


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    main(sys.argv[1:])
