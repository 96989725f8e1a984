"""Steps per second of a whole run on Ray, against a bare multi-process PyTorch loop.

Both do the same work on the same data: the rounds of ``fedavg_goal1`` (Cao et al. 2019,
Table I, 10 clients) with the same minibatch steps, the average and the evaluation on the
test set. The bare loop knows nothing of Flower, strategies, metrics or files.

    python -m benchmarks.rounds [--rounds 3] [--workers 2] [--repeats 3]
"""

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from fl_backdoor.config import conf_directory, load
from fl_backdoor.data.base import Source
from fl_backdoor.federation.horizontal import Federation
from fl_backdoor.federation.node import settle_data
from fl_backdoor.files import Row
from fl_backdoor.loop.display import Display
from fl_backdoor.loop.loop import run
from fl_backdoor.schema import Config

State = dict[str, Tensor]


def configure(rounds: int, workers: int, *more: str) -> Config:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        overrides = [f"num_rounds={rounds}", f"engine.num_workers={workers}", "floor=false", *more]
        config = load(compose("config", ["+experiment=fedavg_goal1", *overrides]))
        assert isinstance(config, Config)
        return settle_data(config, Source)


worker: dict[str, Any] = {}


def prepare(config: Config) -> None:
    torch.set_num_threads(1)
    federation = Federation(config)
    clients = [federation.client(k) for k in range(config.num_clients)]
    worker["data"] = [(client.images, client.labels) for client in clients]
    worker["model"] = federation.model
    worker["training"] = config.training


def train(task: tuple[int, int, State]) -> State:
    client, number, state = task
    images, labels = worker["data"][client]
    model, training = worker["model"], worker["training"]
    model.load_state_dict(state)
    model.train()
    rate = training.learning_rate * math.exp(-training.decay * number)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=training.weight_decay)
    for batch in torch.split(torch.randperm(len(labels)), training.batch_size):
        loss = functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def bare_loop(config: Config, workers: int) -> tuple[float, int]:
    """Return seconds for all rounds, start-up apart, and minibatch steps."""
    federation = Federation(config)
    images, labels = federation.test_set()
    model, state = federation.model, federation.initial_state()
    sizes = [len(federation.client(k).labels) for k in range(config.num_clients)]
    steps = config.num_rounds * sum(math.ceil(n / config.training.batch_size) for n in sizes)
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, prepare, [config]) as pool:
        pool.map(len, ["warm", "up"] * workers, chunksize=1)
        started = time.perf_counter()
        for number in range(config.num_rounds):
            tasks = [(client, number, state) for client in range(config.num_clients)]
            states = list(pool.imap_unordered(train, tasks))
            state = {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in state}
            model.load_state_dict(state)
            model.eval()
            with torch.inference_mode():
                torch.cat([model(part) for part in torch.split(images, 250)]).argmax(dim=1).eq(
                    labels
                )
        return time.perf_counter() - started, steps


class Stopwatch(Display):
    """Times from the first round's start to the last round's end, files included."""

    def begin(self, name: str, unit: str, total: int, rows: list[Row]) -> None:
        super().begin(name, unit, total, rows)
        self.seconds = -time.perf_counter()

    def end(self) -> None:
        self.seconds += time.perf_counter()
        super().end()


def suite(config: Config) -> tuple[float, float]:
    """Return seconds for all rounds, and for everything before and after them."""
    stopwatch = Stopwatch(Console(quiet=True))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(config, Path(folder) / "run", stopwatch)
        return stopwatch.seconds, time.perf_counter() - started - stopwatch.seconds


def main(arguments: Sequence[str]) -> float:
    """Print and return the median ratio of steps per second, suite / bare loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    config = configure(options.rounds, options.workers, *options.overrides)
    ratios, around = [], []
    for _ in range(options.repeats):
        bare, steps = bare_loop(config, options.workers)
        ours, rest = suite(config)
        ratios.append(bare / ours)
        around.append(rest)
        print(f"{steps} steps: suite / bare loop, steps per second: {ratios[-1]:.3f}")
    print(f"median {median(ratios):.3f}")
    print(f"start-up and reports around the rounds: median {median(around):.1f} s")
    return median(ratios)


if __name__ == "__main__":
    main(sys.argv[1:])
