"""The client that trains and lies as its attack says."""

from collections.abc import Callable
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message
from torch import Tensor, nn

from .attacker import Attack
from .honest import HonestClient, first_arrays, server_round
from .memory import give_clean, is_asked, keep, mark_idle, recall
from .seat import Seat
from .training import Named
from .updates import NOTHING, crafted


class MaliciousClient(HonestClient):
    """An honest client, but for the hooks that an attack overrides.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`: the attacker's own data, before poisoning.
    attack : Attack
        What it does.
    rank, attackers : int
        Its place among the P attackers, 0 to P - 1, and P.
    clients_per_attacker : float, optional
        As for `Seat`.
    spare : callable of (class number), optional
        Samples of a class ``(m, ...)`` that nobody else holds.
    twin : HonestClient, optional
        What the client would be without the attack, for an attack that `compares`. None: one with
        the same training.
    **training
        Arguments of `HonestClient`.

    Raises
    ------
    ValueError
        If the attack cannot be had on these data.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        attack: Attack,
        rank: int = 0,
        attackers: int = 1,
        clients_per_attacker: float | None = None,
        spare: Callable[[int], Tensor] | None = None,
        twin: HonestClient | None = None,
        **training: Any,
    ) -> None:
        super().__init__(model, images, labels, **training)
        self.attack = attack
        self.seat = Seat(
            client=self.partition,
            rank=rank,
            attackers=attackers,
            clients_per_attacker=clients_per_attacker,
            seed=self.seed,
            spare=spare,
            model=self.model,
        )
        self._twin: HonestClient | None = None
        if any(layer.compares for layer in attack.layers()):
            self._twin = twin or HonestClient(model, images, labels, **training)
        self._own: tuple[Tensor, Tensor] | None = None
        self._unpoisoned: list[object] = []
        if any(layer.each_round for layer in attack.layers()):
            self._own = self.images, self.labels
        else:
            self._poison()

    def train(self, message: Message, context: Context) -> Message:
        """Answer a train message with the model that the attack sends.

        If the message has a record ``attack-memory``, so has the reply, with the seat's memory;
        and ``attack-clean``, with the model of the client's clean data, if the attack `compares`.
        Where an attack finds nothing to do the reply has a record ``attack-cannot-act``.
        """
        asked = is_asked(message)
        clean = self._twin.train(message, context) if self._twin and asked else None
        self.seat.round = server_round(message)
        self.seat.memory, self.seat.scratch = recall(message, context), {}
        reply = super().train(message, context)
        if not asked and self.attack.hooks("collude"):
            self.seat.refuse(
                self.attack, "nobody asks its attackers together: see clients.Colluders"
            )
        for attack in self._unpoisoned:
            self.seat.refuse(attack, f"it changes none of {len(self.labels)} samples")
        mark_idle(reply, self.seat.idle())
        keep(self.seat.memory, context, reply, asked=asked)
        if clean is not None:
            give_clean(reply, first_arrays(clean))
        return reply

    def load(self, received: ArrayRecord) -> Named:
        """Take over the weights that arrived, and poison the data anew if the attack does."""
        tensors = super().load(received)
        self.seat.received = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        if self._own is not None and self.seat.round:
            self.images, self.labels = self._own
            self._poison()
        return tensors

    def fit(self, server_round: int) -> float:
        """Run the local epochs of one round (counted from 1) and return the mean loss."""
        self.seat.round = server_round
        return super().fit(server_round)

    def hooks(self) -> dict[str, Any]:
        """Return the functions that `descend` calls for the attack: those it overrides."""
        hooks: dict[str, Any] = {
            name: self._all(overridden)
            for name in ("project", "constrain")
            if (overridden := self.attack.hooks(name))
        }
        if self.attack.hooks("loss"):
            hooks["loss"] = self._loss
        return hooks

    def answer(self, received: ArrayRecord) -> ArrayRecord:
        """Return the model to send, as the attack crafts it."""
        trained = super().answer(received)
        sent = crafted(self.attack, self.seat, received, trained)
        if sent is None:
            self.seat.refuse(self.attack, NOTHING)
        return trained if sent is None else sent

    def _poison(self) -> None:
        self._unpoisoned = []
        for poison in self.attack.hooks("poison"):
            before = self.images, self.labels
            images, self.labels = poison(*before, self.seat)
            self.images = images.detach()
            if all(map(torch.equal, before, (self.images, self.labels))):
                self._unpoisoned.append(getattr(poison, "__self__", self.attack))

    def _loss(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.attack.loss(model, inputs, labels, self.seat)

    def _all(self, hooks: list[Callable[..., None]]) -> Callable[[Named], None]:
        def call(tensors: Named) -> None:
            for hook in hooks:
                hook(tensors, self.seat)

        return call
