"""Central differential privacy around FedAvg."""

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Private
from flwr.serverapp.strategy import FedAvg

from tests.apps.sklearn_logistic.app import client as client

server = ServerApp()


@server.main()
def main(grid, context):
    """Train for all rounds."""
    start = ArrayRecord([np.zeros((64, 10)), np.zeros(10)])
    strategy = Private(FedAvg(), noise_multiplier=0.01, clipping_norm=5, num_sampled_clients=10)
    strategy.start(grid, start, num_rounds=context.run_config["num-server-rounds"])
