"""The API before messages."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.server import ServerAppComponents, ServerConfig
from flwr.serverapp import ServerApp

client = ClientApp(client_fn=lambda _: NumPyClient().to_client())
server = ServerApp(server_fn=lambda _: ServerAppComponents(config=ServerConfig(num_rounds=1)))
