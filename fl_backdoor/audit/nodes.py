"""The app's nodes, and how many of them its server asks at a time."""

from collections.abc import Iterable

from flwr.app import Message

from ..federation.engines import LocalGrid


class Nodes(LocalGrid):
    """A federation inside this process.

    Attributes
    ----------
    asked : int or None
        The fewest nodes that were asked to train at a time; None before any was.
    """

    asked: int | None = None

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages."""
        messages = list(messages)
        number = sum(m.metadata.message_type.partition(".")[0] == "train" for m in messages)
        if number:
            self.asked = min(number, self.asked or number)
        return super().push_messages(messages)
