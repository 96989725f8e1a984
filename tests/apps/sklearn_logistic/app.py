"""Logistic regression on digits, in the manner of Flower's sklearn examples: arrays by number."""

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits

client, server = ClientApp(), ServerApp()
DIGITS = load_digits(return_X_y=True)


def load(context):
    """Return this node's rows: 50 to train on and 20 to test."""
    x, y = DIGITS
    rows = np.random.default_rng(context.node_config["partition-id"]).permutation(len(y))[:70]
    return x[rows[:50]] / 16, y[rows[:50]], x[rows[50:]] / 16, y[rows[50:]]


def probabilities(x, w, b):
    """Return the softmax of the scores."""
    scores = x @ w + b
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@client.train()
def train(message, context):
    """Descend for 20 steps."""
    w, b = message.content["arrays"].to_numpy_ndarrays()
    x, y, _, _ = load(context)
    for _ in range(20):
        wrong = probabilities(x, w, b) - np.eye(10)[y]
        w, b = w - 0.5 * x.T @ wrong / len(y), b - 0.5 * wrong.mean(axis=0)
    content = {"arrays": ArrayRecord([w, b]), "metrics": MetricRecord({"num-examples": len(y)})}
    return Message(RecordDict(content), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    """Return the accuracy."""
    w, b = message.content["arrays"].to_numpy_ndarrays()
    _, _, x, y = load(context)
    hits = (probabilities(x, w, b).argmax(axis=1) == y).mean()
    metrics = MetricRecord({"accuracy": float(hits), "num-examples": len(y)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    """Average for all rounds."""
    start = ArrayRecord([np.zeros((64, 10)), np.zeros(10)])
    FedAvg().start(grid, start, num_rounds=context.run_config["num-server-rounds"])
