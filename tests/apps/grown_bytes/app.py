"""A model that is bytes and grows, as XGBoost's does: each client adds a stump to it."""

import json

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from tests.apps.sklearn_logistic.app import load

client, server = ClientApp(), ServerApp()


def read(message):
    """Return the stumps: a column and the more frequent of 0 and 1 where it is dark."""
    return json.loads(bytes(message.content["arrays"].to_numpy_ndarrays()[0]) or b"[]")


def written(stumps):
    """Return them as one array of bytes."""
    return ArrayRecord([np.frombuffer(json.dumps(stumps).encode(), dtype=np.uint8)])


@client.train()
def train(message, context):
    """Add a stump."""
    x, y, _, _ = load(context)
    column = len(read(message)) % x.shape[1]
    stump = [column, int((y[x[:, column] > 0.5] > 4).sum() * 2 > len(y))]
    metrics = MetricRecord({"num-examples": len(y)})
    content = {"arrays": written([*read(message), stump]), "metrics": metrics}
    return Message(RecordDict(content), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    """Return how often the stumps' majority is right."""
    _, _, x, y = load(context)
    votes = sum((2 * side - 1) * (x[:, column] > 0.5) for column, side in read(message))
    metrics = {"accuracy": float(((votes > 0) == (y > 4)).mean()), "num-examples": len(y)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


class Bagging(FedAvg):
    """Puts all new stumps behind each other."""

    def aggregate_train(self, server_round, replies):
        """Concatenate."""
        return written([stump for reply in replies for stump in read(reply)]), None


@server.main()
def main(grid, context):
    """Grow for all rounds."""
    Bagging().start(grid, written([]), num_rounds=context.run_config["num-server-rounds"])
