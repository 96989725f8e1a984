"""Nobody but the server evaluates, on test data of its own."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from tests.apps.torch_tuples.app import loaders, model, train

client, server = ClientApp(), ServerApp()
client.train()(train)


def evaluate(server_round, arrays):
    """Return the accuracy."""
    net = model()
    net.load_state_dict(arrays.to_torch_state_dict())
    nobodys = Context(0, 0, {"partition-id": 1000}, RecordDict(), {})
    hits = [(net(x).argmax(1) == y) for x, y in loaders(nobodys)[0]]
    return MetricRecord({"accuracy": torch.cat(hits).float().mean().item()})


@server.main()
def main(grid, context):
    """Average for all rounds."""
    start, rounds = ArrayRecord(model().state_dict()), context.run_config["num-server-rounds"]
    FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=rounds, evaluate_fn=evaluate)
