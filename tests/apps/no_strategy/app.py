"""A server that averages by itself, without a Strategy."""

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

from tests.apps.sklearn_logistic.app import client as client

server = ServerApp()


@server.main()
def main(grid, context):
    """Send the model, average, and test it."""
    model = [np.zeros((64, 10)), np.zeros(10)]
    for _ in range(context.run_config["num-server-rounds"]):
        for kind in ("train", "evaluate"):
            content = RecordDict({"arrays": ArrayRecord(model)})
            messages = [Message(content, node, kind) for node in grid.get_node_ids()]
            replies = list(grid.send_and_receive(messages))
            if kind == "train":
                models = [reply.content["arrays"].to_numpy_ndarrays() for reply in replies]
                model = [np.mean(arrays, axis=0) for arrays in zip(*models, strict=True)]
