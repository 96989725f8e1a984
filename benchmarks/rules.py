"""A round of each strategy, against a plain numpy mean of the same replies.

Both read the same Flower messages; the mean reads, stacks and averages them and does nothing
else. The strategies screen, read, measure the updates' norms, aggregate and make the new model.

Then the rules alone, on a matrix of models, over the least that each must do (`bounds`).

    python -m benchmarks.rules [--clients 100] [--repeats 5] [--channels 16,32,64,128]
        [--sizes 10,100,1000,100x11000000] [--width 270000]

A size may have a width of its own. ``--clients 0`` leaves out the rounds. All have one thread.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.models import Cao2019CNN
from strategies import (
    Bulyan,
    FedAvg,
    GaussianNoise,
    Krum,
    Median,
    NormClipping,
    Robust,
    Round,
    Sniper,
    TrimmedMean,
)

from . import seconds
from .bounds import table


def replies(initial: ArrayRecord, clients: int) -> list[Message]:
    """Build replies as far from one another as trained models are: about 0.2, attackers 0.6."""
    rng = np.random.default_rng(0)
    size = sum(array.numpy().size for array in initial.values())
    messages = []
    for node in range(1, clients + 1):
        spread = (0.45 if node <= clients // 3 else 0.14) / np.sqrt(size)
        arrays = ArrayRecord()
        for name, array in initial.items():
            values = array.numpy()
            noise = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(spread)
            arrays[name] = Array(np.asarray(values + noise, values.dtype))  # a counter stays one
        metrics = MetricRecord({"num-examples": 500, "train-loss": 0.1})
        metadata = Metadata(1, "", node, 0, "", "", 1.0, 10.0, "train")
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        reply: Message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
        messages.append(reply)
    return messages


def read(messages: list[Message]) -> NDArray[np.float32]:
    """Read and stack the models as anybody would."""
    records = [message.content.array_records["arrays"] for message in messages]
    return np.stack([np.concatenate([a.numpy().ravel() for a in r.values()]) for r in records])


def one_round(
    strategy: Robust, initial: ArrayRecord, messages: list[Message], *, distances: bool
) -> Callable[[], object]:
    """Return a function that plays the server's side of a round."""

    def observe(round: Round) -> None:
        _ = round.updates.norms
        if distances:
            _ = round.distances.matrix

    strategy.observers = [observe]
    grid = LocalGrid(ClientApp(), len(messages))
    list(strategy.configure_train(1, initial, ConfigRecord(), grid))
    return lambda: strategy.aggregate_train(1, messages)


def rounds(clients: int, channels: list[int], repeats: int) -> dict[str, float]:
    """Print and return the median ratio of each strategy's round to the plain mean."""
    initial = ArrayRecord(Cao2019CNN(2, channels=channels).state_dict())
    messages = replies(initial, clients)
    models = read(messages)
    print(f"{clients} clients, d = {models.shape[1]:,}")
    few = (clients - 3) // 4
    strategies: dict[str, tuple[Robust, bool]] = {
        "FedAvg": (FedAvg(), False),
        "FedAvg, distances measured": (FedAvg(), True),
        "Sniper": (Sniper(), False),
        "Sniper, distances measured": (Sniper(), True),
        "NormClipping(FedAvg)": (NormClipping(FedAvg(), "median"), False),
        "GaussianNoise(NormClipping(FedAvg))": (
            GaussianNoise(NormClipping(FedAvg(), "median"), 0.001),
            False,
        ),
        "Krum": (Krum(few), False),
        "Bulyan": (Bulyan(few), False),
        "Median": (Median(), False),
        "TrimmedMean": (TrimmedMean(0.2), False),
    }
    works = {"plain mean": lambda: np.mean(read(messages), axis=0)}
    works["one Gram product"] = lambda: models @ models.T
    works |= {
        name: one_round(strategy, initial, messages, distances=distances)
        for name, (strategy, distances) in strategies.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            taken[name].append(seconds(work))
    ratios = {
        name: median(a / b for a, b in zip(own, taken["plain mean"], strict=True))
        for name, own in taken.items()
    }
    for name, ratio in ratios.items():
        print(f"{name:38} {ratio:5.2f} times the plain mean")
    return ratios


def main(arguments: Sequence[str]) -> dict[str, float]:
    """Print both tables; return the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--channels", default="16,32,64,128")
    parser.add_argument("--sizes", default="10,100,1000")
    parser.add_argument("--width", type=int, default=270_000)
    options = parser.parse_args(arguments)
    channels = [int(channel) for channel in options.channels.split(",")]
    sizes = [size.split("x") for size in options.sizes.split(",") if size]
    # Threads of a product wait for one another, on shared cores for seconds.
    with threadpool_limits(1):
        ratios = rounds(options.clients, channels, options.repeats) if options.clients else {}
        table([(int(n), int(*d or [options.width])) for n, *d in sizes], options.repeats)
    return ratios


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    main(sys.argv[1:])
