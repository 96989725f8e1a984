"""Sniper's aggregation of 100 clients of the Table I network, against their training.

The replies are real Flower messages; the aggregation is everything that `aggregate_train`
does: checks, distances, clique, average. One client's training of one round is measured and
multiplied, as training 100 clients takes minutes.

    python -m benchmarks.sniper [--clients 100] [--workers 2]
"""

import argparse
import time
from statistics import median

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp

from benchmarks.rounds import configure
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.federation.horizontal import Federation
from strategies import FedAvg, Sniper


def replies(initial: ArrayRecord, clients: int) -> list[Message]:
    """Build replies as far from one another as trained models are: about 0.2, attackers 0.6."""
    rng = np.random.default_rng(0)
    size = sum(array.numpy().size for array in initial.values())
    messages = []
    for node in range(clients):
        spread = (0.45 if node < clients // 3 else 0.14) / np.sqrt(size)
        arrays = ArrayRecord()
        for name, array in initial.items():
            values = array.numpy()
            noise = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(spread)
            arrays[name] = Array(values + noise)
        metrics = MetricRecord({"num-examples": 500, "train-loss": 0.1})
        metadata = Metadata(1, "", node, 0, "", "", 1.0, 10.0, "train")
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        messages.append(Message(content=content, metadata=metadata))
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    federation = Federation(configure(1, options.workers))
    initial = ArrayRecord(federation.initial_state())

    torch.set_num_threads(1)
    client = federation.client(9)
    client.fit(1)
    training = []
    for _ in range(3):
        started = time.perf_counter()
        client.fit(1)
        training.append(time.perf_counter() - started)
    whole = median(training) * options.clients / options.workers

    messages = replies(initial, options.clients)
    for strategy in (Sniper(), FedAvg()):
        seconds = []
        for _ in range(3):
            # The strategy checks replies against the model that it sent.
            grid = LocalGrid(ClientApp(), options.clients)
            list(strategy.configure_train(1, initial, ConfigRecord(), grid))
            started = time.perf_counter()
            _, metrics = strategy.aggregate_train(1, messages)
            seconds.append(time.perf_counter() - started)
        kept = len((metrics or {}).get("kept-nodes", messages))  # type: ignore[arg-type]
        print(
            f"{type(strategy).__name__}: {options.clients} clients, {kept} kept, aggregation / "
            f"training of the round = {median(seconds) / whole:.2%}"
        )


if __name__ == "__main__":
    main()
