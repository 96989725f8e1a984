"""A linear model on digits, with tuples (image, label) for batches."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

client, server = ClientApp(), ServerApp()
DIGITS = load_digits(return_X_y=True)


def model():
    """Return a linear model of 8x8 pixels in 10 classes."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def loaders(context):
    """Return this node's rows: 60 to train on and 20 to test."""
    x, y = DIGITS
    x = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    rows = np.random.default_rng(context.node_config["partition-id"]).permutation(len(y))
    parts = [TensorDataset(x[r], torch.tensor(y[r])) for r in (rows[:60], rows[60:80])]
    return DataLoader(parts[0], 20), DataLoader(parts[1], 20)


@client.train()
def train(message, context):
    """Train for 5 epochs."""
    net, loader = model(), loaders(context)[0]
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(5):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    metrics = MetricRecord({"num-examples": 60})
    content = {"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}
    return Message(RecordDict(content), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    """Return the accuracy."""
    net, loader = model(), loaders(context)[1]
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    hits = sum((net(x).argmax(1) == y).sum().item() for x, y in loader)
    metrics = MetricRecord({"accuracy": hits / 20, "num-examples": 20})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    """Average for all rounds."""
    start = ArrayRecord(model().state_dict())
    FedAvg().start(grid, start, num_rounds=context.run_config["num-server-rounds"])
