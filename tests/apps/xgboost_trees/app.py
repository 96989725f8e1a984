"""Boosted trees on digits, in the manner of Flower's quickstart-xgboost: real bytes of XGBoost."""

import numpy as np
import xgboost as xgb
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedXgbBagging
from sklearn.datasets import load_digits

client, server = ClientApp(), ServerApp()
DIGITS = load_digits(return_X_y=True)
PARAMS = {"objective": "multi:softmax", "num_class": 10, "max_depth": 2, "nthread": 1}


def load(context):
    """Return this node's rows: 100 to train on and 40 to test."""
    x, y = DIGITS
    rows = np.random.default_rng(context.node_config["partition-id"]).permutation(len(y))[:140]
    return xgb.DMatrix(x[rows[:100]], y[rows[:100]]), xgb.DMatrix(x[rows[100:]], y[rows[100:]])


def grown(message):
    """Return the booster of a message, or None before the first round."""
    sent = message.content["arrays"]["0"].numpy().tobytes()
    if not sent:
        return None
    booster = xgb.Booster(params=PARAMS)
    booster.load_model(bytearray(sent))
    return booster


@client.train()
def train(message, context):
    """Grow one tree a class, and send the new trees."""
    rows, _ = load(context)
    before = grown(message)
    booster = xgb.train(PARAMS, rows, num_boost_round=1, xgb_model=before)
    new = booster[booster.num_boosted_rounds() - 1 :]
    arrays = ArrayRecord([np.frombuffer(new.save_raw("json"), dtype=np.uint8)])
    metrics = MetricRecord({"num-examples": rows.num_row()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    """Return the accuracy."""
    _, rows = load(context)
    hits = (grown(message).predict(rows) == rows.get_label()).mean()
    metrics = MetricRecord({"accuracy": float(hits), "num-examples": rows.num_row()})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    """Bag for all rounds."""
    start = ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])
    FedXgbBagging().start(grid, start, num_rounds=context.run_config["num-server-rounds"])
