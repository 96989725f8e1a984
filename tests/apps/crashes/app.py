"""Its clients cannot train."""

from flwr.clientapp import ClientApp

from tests.apps.sklearn_logistic.app import server as server

client = ClientApp()


@client.train()
def train(message, context):
    """Look for data that are not there."""
    raise FileNotFoundError("data/train.csv")
