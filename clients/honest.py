"""The client that trains as it is asked to; every attacker is one that lies in two places."""

import math
import time

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor, nn
from torch.nn import functional


class HonestClient:
    """Train the model that arrives on the client's own data, and send the result back.

    The training of Cao et al. 2019, sections II.A (Eq. 2) and III.A. An attacker overrides
    `poison_data`, which runs once before any training, or `poison_update`, which runs after
    each round's training; the training itself is the same for all.

    Parameters
    ----------
    model : torch.nn.Module
        Architecture; its parameters are replaced by those of each message.
    images : Tensor of shape (n, ...)
        Training inputs, D_k.
    labels : Tensor of shape (n,)
        Class numbers, int64.
    seed : int (default: 0)
        With ``partition`` and the round it decides every draw: no global state is used.
    partition : int (default: 0)
        k, this client's number.
    batch_size : int (default: 10)
        B, samples in a minibatch.
    epochs : int (default: 1)
        Local epochs a round.
    learning_rate : float (default: 0.08)
        eta in the first round.
    decay : float (default: 0.098)
        In round t, counted from 0, the learning rate is ``learning_rate * exp(-decay * t)``.
    weight_decay : float (default: 0.01)
        lambda of the L2 regularization.
    device : str (default: "cpu")
        Torch device to train on.

    Examples
    --------
    Alone in any Flower ``ClientApp``::

        app = ClientApp()
        app.train()(HonestClient(model, images, labels).train)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        partition: int = 0,
        batch_size: int = 10,
        epochs: int = 1,
        learning_rate: float = 0.08,
        decay: float = 0.098,
        weight_decay: float = 0.01,
        device: str = "cpu",
    ) -> None:
        self.seed = seed
        self.partition = partition
        self.batch_size = batch_size
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.decay = decay
        self.weight_decay = weight_decay
        self.device = torch.device(device)
        self.model = model.to(self.device)
        images, labels = self.poison_data(images, labels)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device)

    def poison_data(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data to train on: honest clients keep theirs."""
        return images, labels

    def poison_update(self, received: ArrayRecord, trained: ArrayRecord) -> ArrayRecord:  # noqa: ARG002
        """Return the model to send: honest clients send what they trained."""
        return trained

    def train(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Answer a train message with the trained model and ``num-examples``.

        Metrics: ``train-loss``, the mean over the last epoch's batches, and
        ``train-seconds``.
        """
        started = time.perf_counter()
        received = _received(message)
        server_round = _server_round(message)
        self.model.load_state_dict(received.to_torch_state_dict())
        loss = self.fit(server_round)
        arrays = self.poison_update(received, ArrayRecord(self.model.state_dict()))
        metrics = MetricRecord(
            {
                "num-examples": len(self.labels),
                "train-loss": loss,
                "train-seconds": time.perf_counter() - started,
            }
        )
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    def fit(self, server_round: int) -> float:
        """Run the local epochs of one round (counted from 1) and return the mean loss."""
        if not len(self.labels):
            return 0.0  # torch would take a step along a gradient of NaN
        learning_rate = self.learning_rate * math.exp(-self.decay * (server_round - 1))
        optimizer = torch.optim.SGD(
            self.model.parameters(), lr=learning_rate, weight_decay=self.weight_decay
        )
        self.model.train()
        losses: list[Tensor] = []
        # A fork keeps dropout and shuffling repeatable and everybody else's generator alone.
        with torch.random.fork_rng(devices=[d for d in [self.device] if d.type == "cuda"]):
            torch.manual_seed(self.round_seed(server_round))
            for _ in range(self.epochs):
                losses.clear()
                order = torch.randperm(len(self.labels))
                for batch in torch.split(order.to(self.device), self.batch_size):
                    output = self.model(self.images[batch])
                    loss = _cross_entropy(output, self.labels[batch])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    losses.append(loss.detach())
        return float(torch.stack(losses).mean()) if losses else 0.0

    def evaluate(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Answer an evaluate message with loss and accuracy on the data trained on."""
        self.model.load_state_dict(_received(message).to_torch_state_dict())
        self.model.eval()
        with torch.inference_mode():
            output = self.model(self.images)
            loss = _cross_entropy(output, self.labels)
            accuracy = (output.argmax(dim=1) == self.labels).float().mean()
        metrics = MetricRecord(
            {
                "num-examples": len(self.labels),
                "loss": float(loss),
                "accuracy": float(accuracy),
            }
        )
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def round_seed(self, server_round: int) -> int:
        """Derive the seed of a round; round 0 is the preparation of the data."""
        sequence = np.random.SeedSequence([self.seed, self.partition, server_round])
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    try:
        return functional.cross_entropy(output, labels)
    except IndexError:  # without torch's text: it quotes the label, and travels to the server
        raise ValueError("a label is none of the model's classes") from None


def _received(message: Message) -> ArrayRecord:
    for arrays in message.content.array_records.values():
        return arrays
    raise ValueError("the message has no ArrayRecord with a model")


def _server_round(message: Message) -> int:
    """Read the round that Flower's strategies put into every train message."""
    for config in message.content.config_records.values():
        if isinstance(server_round := config.get("server-round"), int):
            return server_round
    raise ValueError("the train message has no 'server-round' in its ConfigRecord")
