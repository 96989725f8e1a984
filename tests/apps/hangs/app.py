"""Its clients wait for what never comes."""

from threading import Event

from flwr.clientapp import ClientApp

from tests.apps.sklearn_logistic.app import server as server

client = ClientApp()


@client.train()
def train(message, context):
    """Wait."""
    Event().wait()
