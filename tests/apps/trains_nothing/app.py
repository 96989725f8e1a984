"""Its server asks for a number, and trains no model."""

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()


@client.query()
def query(message, context):
    """Answer."""
    return Message(RecordDict({"answer": ConfigRecord({"rows": 5})}), reply_to=message)


@server.main()
def main(grid, context):
    """Ask all nodes."""
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    grid.send_and_receive(messages)
