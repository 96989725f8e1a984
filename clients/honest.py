"""The client that trains as it is asked to."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .arrays import decode, encode, to_numpy
from .gradients import Hook, clip, proximal
from .training import Named, NewOptimizer, cross_entropy, descend, logits, round_seed


class HonestClient:
    """Train the model that arrives on the client's own data, and send the result back.

    The training of Cao et al. 2019, sections II.A (Eq. 2) and III.A; an attacker's is
    `MaliciousClient`. A message may hold a part of the model (LoRA's adapters): the answer
    holds the same part, and what did not arrive must be frozen. bfloat16, which numpy does not
    have, travels as float32. For batches of models with BatchNorm see `descend`.

    Parameters
    ----------
    model : torch.nn.Module
        Architecture; its parameters are replaced by those of each message. It returns logits
        ``(n, C)``, a tuple that begins with them, or a mapping that has them as ``logits``.
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
        lambda of the L2 regularization; an ``optimizer`` has its own.
    device : str (default: "cpu")
        Torch device to train on.
    optimizer : callable, optional
        Makes a ``torch.optim.Optimizer`` of a list of parameters and the learning rate of the
        round. It is made anew in each: what it remembers, as momentum, does not outlive a round.
        None: SGD without momentum.
    schedule : callable, optional
        Returns what ``learning_rate`` is multiplied by in round t, counted from 0; instead of
        ``decay``.
    max_norm : float, optional
        Gradients of a batch that are longer are scaled to this Euclidean norm.
    mu : float (default: 0.0)
        Of FedProx [Li et al., 2020]: ``mu / 2 |w - w_t|^2`` is added to the loss, w_t being the
        model received.
    metrics : mapping of str to str, optional
        The names that the other clients of an app give to metrics, as in ``{"num-examples":
        "num-examples", "train-loss": "train_loss"}``; those not named here are not sent.
        None: all are sent under their own names.

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
        optimizer: NewOptimizer | None = None,
        schedule: Callable[[int], float] | None = None,
        max_norm: float | None = None,
        mu: float = 0.0,
        metrics: Mapping[str, str] | None = None,
    ) -> None:
        self.seed = seed
        self.partition = partition
        self.batch_size = batch_size
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.decay = decay
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.schedule = schedule
        self.max_norm = max_norm
        self.mu = mu
        self.device = torch.device(device)
        self.metrics = metrics
        self.model = model.to(self.device)
        self._state: Named = self.model.state_dict(keep_vars=True)
        dtypes = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        dtype = next(dtypes, images.dtype) if images.is_floating_point() else images.dtype
        self.images = images.to(self.device, dtype)
        self.labels = labels.to(self.device)

    def train(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Answer a train message with the trained model and ``num-examples``.

        Metrics: ``train-loss``, the mean over the last epoch's batches, and
        ``train-seconds``.

        Raises
        ------
        ValueError
            If the message has no model or no round, or its model is not this one.
        """
        started = time.perf_counter()
        received = first_arrays(message)
        number = server_round(message)
        self.load(received)
        loss = self.fit(number)
        content = RecordDict({"arrays": self.answer(received)})
        content["metrics"] = self._named(
            {
                "num-examples": len(self.labels),
                "train-loss": loss,
                "train-seconds": time.perf_counter() - started,
            }
        )
        return Message(content, reply_to=message)

    def load(self, received: ArrayRecord) -> Named:
        """Take over the weights that arrived, and return them by name.

        Raises
        ------
        ValueError
            If there are others than the model has, or some that train did not arrive.
        """
        if not received.keys() <= self._state.keys():
            name = next(name for name in received if name not in self._state)
            raise ValueError(f"the message has an array {name!r}, which the model does not have")
        if missing := self._moving() - received.keys() if len(received) < len(self._state) else ():
            raise ValueError(
                f"the message has no array {min(missing)!r}, which training changes: allowed is to "
                "send it or to freeze it (requires_grad=False)"
            )
        tensors = {}
        with torch.no_grad():
            for name, array in received.items():
                # Torch warns of arrays that cannot be written to.
                tensor = tensors[name] = torch.from_numpy(decode(array).copy())
                own = self._state[name]
                if own.shape != tensor.shape:
                    raise ValueError(
                        f"the message's {name!r} has shape {tuple(tensor.shape)}, the model's "
                        f"{tuple(own.shape)}"
                    )
                own.copy_(tensor)
        return tensors

    def fit(self, server_round: int) -> float:
        """Run the local epochs of one round (counted from 1) and return the mean loss."""
        if not len(self.labels):
            return 0.0  # torch would take a step along a gradient of NaN
        return descend(
            self.model,
            self.images,
            self.labels,
            batch_size=self.batch_size,
            epochs=self.epochs,
            learning_rate=self.learning_rate * self._factor(server_round - 1),
            weight_decay=self.weight_decay,
            seed=self.round_seed(server_round),
            optimizer=self.optimizer,
            correct=self._corrections(),
            **self.hooks(),
        )

    def hooks(self) -> dict[str, Any]:
        """Return the functions that `descend` calls: an honest client has none of its own."""
        return {}

    def answer(self, received: ArrayRecord) -> ArrayRecord:
        """Return the model to send: as trained, with the names that arrived."""
        record = ArrayRecord()
        for name in received:
            record[name] = encode(to_numpy(self._state[name]))
        return record

    def evaluate(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Answer an evaluate message with loss and accuracy on the data trained on."""
        self.load(first_arrays(message))
        self.model.eval()
        with torch.inference_mode():
            output = logits(self.model(self.images))
            loss = cross_entropy(output, self.labels)
            accuracy = (output.argmax(dim=1) == self.labels).float().mean()
        metrics = self._named(
            {
                "num-examples": len(self.labels),
                "loss": float(loss),
                "accuracy": float(accuracy),
            }
        )
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def round_seed(self, server_round: int) -> int:
        """Derive the seed of a round; round 0 is the preparation of the data."""
        return round_seed(self.seed, self.partition, server_round)

    def _factor(self, t: int) -> float:
        return math.exp(-self.decay * t) if self.schedule is None else self.schedule(t)

    def _corrections(self) -> list[Hook]:
        """Return what is done to each batch's gradients: FedProx's term counts when clipped."""
        hooks = [proximal(self.model, self.mu)] if self.mu else []
        return hooks if self.max_norm is None else [*hooks, clip(self.max_norm)]

    def _moving(self) -> set[str]:
        """Name what training changes: parameters that are not frozen, and BatchNorm's buffers."""
        moving = {name for name, p in self.model.named_parameters() if p.requires_grad}
        for prefix, module in self.model.named_modules():
            if isinstance(module, _BatchNorm):
                moving |= {f"{prefix}.{name}".lstrip(".") for name, _ in module.named_buffers()}
        return moving & self._state.keys()

    def _named(self, metrics: dict[str, Any]) -> MetricRecord:
        if self.metrics is None:
            return MetricRecord(metrics)
        return MetricRecord({self.metrics[k]: v for k, v in metrics.items() if k in self.metrics})


def first_arrays(message: Message) -> ArrayRecord:
    """Return the model in a message."""
    for arrays in message.content.array_records.values():
        return arrays
    raise ValueError("the message has no ArrayRecord with a model")


def server_round(message: Message) -> int:
    """Read the round that Flower's strategies put into every train message."""
    for config in message.content.config_records.values():
        if isinstance(number := config.get("server-round"), int):
            return number
    raise ValueError("the train message has no 'server-round' in its ConfigRecord")
