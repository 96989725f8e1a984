"""Many small clients: 100 of 20 rows and a network of 784-64-10, where plumbing would show.

In one process against a bare PyTorch loop of the same steps; on Ray against Flower's own
simulation of a plain app that does them.

    python -m benchmarks.small_clients [--clients 100] [--rounds 3] [--repeats 5] [--ray]
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from statistics import median

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from torch import Tensor, nn
from torch.nn import functional

from clients import HonestClient
from fl_backdoor.federation.engines import LocalGrid, launch
from fl_backdoor.schema import EngineConfig
from strategies import FedAvg

from . import seconds

ROWS, BATCH, RATE = 20, 10, 0.08


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def samples(client: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(client)
    inputs = torch.rand(ROWS, 784, generator=generator)
    return inputs, torch.randint(10, (ROWS,), generator=generator)


def bare_loop(clients: int, rounds: int) -> Callable[[], object]:
    """Return the rounds as any PyTorch user would write them."""
    model = network()
    data = [samples(client) for client in range(clients)]

    def loop() -> None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for _ in range(rounds):
            states = []
            for inputs, labels in data:
                model.load_state_dict(state)
                states.append(trained(model, inputs, labels))
            state = {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in state}

    return loop


def trained(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, weight_decay=0.01)
    model.train()
    for batch in torch.split(torch.randperm(len(labels)), BATCH):
        loss = functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def our_app() -> ClientApp:
    """Return an app of our clients, each kept by the process that has it."""
    app, kept = ClientApp(), dict[int, HonestClient]()
    model = network()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        number = int(context.node_config["partition-id"])
        if number not in kept:
            kept[number] = HonestClient(model, *samples(number), partition=number)
        return kept[number].train(message, context)

    return app


def plain_app() -> ClientApp:
    """Return an app as Flower's quickstart writes it."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        model = network()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        inputs, labels = samples(int(context.node_config["partition-id"]))
        arrays = ArrayRecord(trained(model, inputs, labels))
        metrics = MetricRecord({"num-examples": ROWS})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def play(strategy: FlowerFedAvg | FedAvg, grid: Grid, rounds: int) -> None:
    """Play the training rounds of a strategy."""
    arrays = ArrayRecord(network().state_dict())
    for number in range(1, rounds + 1):
        messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        replies = grid.send_and_receive(list(messages))
        arrays = strategy.aggregate_train(number, replies)[0] or arrays


def on_ray(clients: int, rounds: int) -> float:
    """Return the seconds of a round of ours on Ray, the first left out."""
    engine = EngineConfig(
        kind="ray", num_workers=None, cpus_per_client=1.0, gpus_per_client=0.0, address=None
    )
    taken = list[float]()

    def server(grid: Grid, workers: int) -> None:  # noqa: ARG001
        play(FedAvg(), grid, 1)
        taken.append(seconds(lambda: play(FedAvg(), grid, rounds)) / rounds)

    launch(engine, our_app(), clients, server)
    return taken[0]


def in_flower(clients: int, rounds: int) -> float:
    """Return the seconds of a round in Flower's own simulation, the first left out."""
    from flwr.simulation import run_simulation

    server_app, taken = ServerApp(), list[float]()

    @server_app.main()
    def server(grid: Grid, context: Context) -> None:  # noqa: ARG001
        play(FlowerFedAvg(), grid, 1)
        taken.append(seconds(lambda: play(FlowerFedAvg(), grid, rounds)) / rounds)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        server_app,
        plain_app(),
        num_supernodes=clients,
        backend_config={"client_resources": resources},  # type: ignore[dict-item]
    )
    return taken[0]


def main(arguments: Sequence[str]) -> dict[str, float]:
    """Print and return the median ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="also in Flower's simulation on Ray")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bare = bare_loop(options.clients, options.rounds)
    grid = LocalGrid(our_app(), options.clients)
    play(FedAvg(), grid, 1)
    ratios = {"local": [], "ray": []}  # type: dict[str, list[float]]
    for _ in range(options.repeats):
        own = seconds(lambda: play(FedAvg(), grid, options.rounds))
        ratios["local"].append(own / seconds(bare))
        if options.ray:
            ours = on_ray(options.clients, options.rounds)
            ratios["ray"].append(ours / in_flower(options.clients, options.rounds))
    medians = {name: median(values) for name, values in ratios.items() if values}
    print(f"{options.clients} clients of {ROWS} rows, medians of {options.repeats}")
    print(f"one process / bare loop: {medians['local']:.2f}")
    if options.ray:
        print(f"on Ray, the suite / a plain Flower app: {medians['ray']:.2f}")
    return medians


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    main(sys.argv[1:])
