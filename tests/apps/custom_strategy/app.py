"""A strategy of the app's own, with a `start` that calls its base's."""

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from tests.apps.sklearn_logistic.app import client as client

server = ServerApp()


class Halved(FedAvg):
    """Goes half the way to the average."""

    def start(self, *arguments, **options):
        """Remember that it was started."""
        self.started = True
        return super().start(*arguments, **options)

    def configure_train(self, server_round, arrays, config, grid):
        """Remember the model."""
        self.before = arrays.to_numpy_ndarrays()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """Average, and halve the step."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        pairs = zip(self.before, arrays.to_numpy_ndarrays(), strict=True)
        return ArrayRecord([(old + new) / 2 for old, new in pairs]), metrics


@server.main()
def main(grid, context):
    """Train for all rounds."""
    start = ArrayRecord([np.zeros((64, 10)), np.zeros(10)])
    strategy = Halved()
    strategy.start(grid, start, num_rounds=context.run_config["num-server-rounds"])
    assert strategy.started
