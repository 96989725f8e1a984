"""Clients mask their updates by Flower's SecAgg+ mod."""

from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp

from tests.apps.sklearn_logistic.app import evaluate, train
from tests.apps.sklearn_logistic.app import server as server

client = ClientApp(mods=[secaggplus_mod])
client.train()(train)
client.evaluate()(evaluate)
