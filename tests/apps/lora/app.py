"""Adapters of rank 8 beside a frozen layer: only they travel; batches are dictionaries."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

client, server = ClientApp(), ServerApp()
DIGITS = load_digits(return_X_y=True)
FROZEN = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) / 8


def loaders(context):
    """Return this node's rows as dictionaries: 60 to train on and 20 to test."""
    x, y = DIGITS
    rows = np.random.default_rng(context.node_config["partition-id"]).permutation(len(y))[:80]
    data = [{"pixels": torch.tensor(x[i] / 16, dtype=torch.float32), "label": y[i]} for i in rows]
    return DataLoader(data[:60], 20), DataLoader(data[60:], 20)


def scores(pixels, parts):
    """Return x (W + A B)."""
    return pixels @ (FROZEN + parts["lora_a"] @ parts["lora_b"])


@client.train()
def train(message, context):
    """Train the adapters for 5 epochs."""
    parts = message.content["arrays"].to_torch_state_dict()
    optimizer = torch.optim.SGD([p.requires_grad_() for p in parts.values()], lr=0.3)
    loader = loaders(context)[0]
    for _ in range(5):
        for batch in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(scores(batch["pixels"], parts), batch["label"])
            loss.backward()
            optimizer.step()
    arrays = ArrayRecord({name: part.detach() for name, part in parts.items()})
    content = {"arrays": arrays, "metrics": MetricRecord({"num-examples": 60})}
    return Message(RecordDict(content), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    """Return the accuracy."""
    parts = message.content["arrays"].to_torch_state_dict()
    tested = [(scores(b["pixels"], parts).argmax(1) == b["label"]) for b in loaders(context)[1]]
    metrics = {"accuracy": torch.cat(tested).float().mean().item(), "num-examples": 20}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@server.main()
def main(grid, context):
    """Average the adapters for all rounds."""
    start = {"lora_a": torch.randn(64, 8) / 8, "lora_b": torch.zeros(8, 10)}
    FedAvg().start(grid, ArrayRecord(start), num_rounds=context.run_config["num-server-rounds"])
