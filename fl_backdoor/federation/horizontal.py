"""Everything that server and clients derive alike from the configuration."""

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import Tensor, nn

from clients import Attack, Goal, HonestClient, MaliciousClient
from clients.memory import ATTACK_MEMORY

from ..config import one_line, restored
from ..data.base import Data
from ..data.partition import Partition, build_partition, older_names, pool
from ..data.python import build_source
from ..errors import UserError
from ..schema import Config
from .attackers import build_attack, describe, in_full, settled
from .cohort import new_cohort
from .model import new_model, repeat_bits, start_from_checkpoint
from .node import node_data, partition_id
from .optimizer import client_settings
from .root import draw_root, without
from .roster import build_roster
from .validation import validate

CLEAN_TWIN = "clean-twin"
"""Key of a train config: the attackers of the roster train honestly, be it in this round only."""

ATTACKERS = "attackers"
"""Key of a train config: the roster, once every node has said whether it attacks."""

MAX_BYTES = 2**29
"""Of training data, beyond which a process builds clients anew instead of keeping them."""


class Federation:
    """Data, partitions, roster and clients of one experiment.

    Every process builds its own from the same configuration and comes to the same result;
    nothing but models and metrics travels between them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.source = build_source("dataset", config.dataset)
        self.partition: Partition = build_partition(config.partition, config.dataset)
        self.classes = self.source.class_names
        self._attack: Attack = build_attack(config.attack, self.classes)
        self.roster = build_roster(config.attack)
        self.cohort = new_cohort(config.cohort)
        self.attackers = self.roster.draw(config.num_clients, config.seed)
        self.training = client_settings(config)
        self._clients: OrderedDict[tuple[int, bool], HonestClient] = OrderedDict()
        self._spare: dict[int, Tensor] = {}

    def enlist(self, attackers: tuple[int, ...]) -> None:
        """Replace the roster of the configuration; the samples are shared among the new one.

        Raises
        ------
        UserError
            If there are more attackers than allowed, or the samples cannot be shared so.
        """
        if attackers != self.attackers:
            self.roster = self.roster.of(len(attackers))
            self.roster.draw(self.config.num_clients, self.config.seed)
            self.attackers = attackers
            self._clients.clear()

    @cached_property
    def attack(self) -> Attack:
        """What attackers do, settled by the training set."""
        with self._named():
            return settled(self._attack, self.data)

    @property
    def goal(self) -> Goal | None:
        """What the attack wants, for the measures to ask; None if it is untargeted."""
        return self.attack.goal

    def describe_attack(self) -> str:
        """Say in a few words what attackers do, for the first lines of a run."""
        return describe(self.config.attack, self.attack)

    @cached_property
    def data(self) -> Data:
        """The data set, loaded once a process."""
        return self.source.load()

    @cached_property
    def model(self) -> nn.Module:
        """The network; one serves all clients of a process in turn."""
        return self._new_model()

    def initial_state(self) -> dict[str, Tensor]:
        """Return the weights that training starts from."""
        state: dict[str, Tensor] = self._first_model().state_dict()
        return state

    def _first_model(self) -> nn.Module:
        """Return the model that training starts from; the server alone reads a checkpoint."""
        model = self._new_model()
        # Among the keys its digest is compared when the run is resumed.
        self.config.model = start_from_checkpoint(model, self.config.model)
        return model

    def _new_model(self) -> nn.Module:
        return new_model(
            self.config.model,
            self.config.seed,
            num_classes=len(self.classes),
            input_shape=self.data.input_shape,
            vocabulary=self.data.vocabulary,
        )

    @cached_property
    def partitions(self) -> list[NDArray[np.int64]]:
        """Indices of the training samples of each client."""
        config, root = self.config, self.root
        with older_names(config.partition, config.dataset):
            shares = self.partition.shares(self.data, config.num_clients, config.seed)
        return without(shares, root, self.partition.min_samples) if len(root) else shares

    @cached_property
    def root(self) -> NDArray[np.int64]:
        """Indices of the training samples that the server holds, ascending."""
        return draw_root(len(self.data.train), self.config.root.samples, self.config.seed)

    @property
    def samples(self) -> list[int]:
        """Training samples of each client."""
        return [len(partition) for partition in self.partitions]

    def spare(self, label: int) -> Tensor:
        """Return the training samples of a class that nobody holds, in seeded order."""
        if label not in self._spare:
            held = [*self.partitions, self.root]
            rows = pool(self.data, held, label, self.config.seed)
            self._spare[label], _ = self.data.train[rows]
        return self._spare[label]

    def check(self) -> None:
        """Build every attacker once, so that bad input shows before any training.

        Raises
        ------
        UserError
            Naming the key at fault.
        """
        device = self.config.training.device
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # the latter without CUDA
            raise UserError(
                f"training.device={device}: allowed is what torch finds here ({one_line(error)})"
            ) from error
        attack = self.attack
        validate(
            self._first_model(),
            *self.data.train[self.partitions[0]],
            classes=len(self.classes),
            sizes=self.samples,
            training=self.training,
            strategy=self.config.strategy,
        )
        if self.attackers:
            self.roster.check(self.config.num_rounds)
        everybody = self.cohort.size(self.config.num_clients) == self.config.num_clients
        if self.attackers and everybody:  # else each round has other numbers
            with self._named():
                attack.check_all(self.config.num_clients, len(self.attackers))
        for client in {0, *self.attackers}:
            try:
                self.client(client)
            except (ValueError, RuntimeError) as error:
                raise UserError(f"client {client} cannot be built: {one_line(error)}") from error

    def client(self, number: int, *, clean: bool = False) -> HonestClient:
        """Return a client; with ``clean`` an attacker as the honest client it was.

        A process builds each once, and poisons its data once, while they take no more than
        `MAX_BYTES`; beyond that those used last are kept.
        """
        key = number, number in self.attackers and not clean
        if key in self._clients:
            self._clients.move_to_end(key)
        else:
            self._clients[key] = self._new_client(*key)
            size = sum(client.images.nbytes for client in self._clients.values())
            while size > MAX_BYTES and len(self._clients) > 1:
                size -= self._clients.popitem(last=False)[1].images.nbytes
        return self._clients[key]

    def _new_client(self, number: int, attacks: bool) -> HonestClient:
        training = self.training | {"seed": self.config.seed, "partition": number}
        images, labels = self.data.train[self.partitions[number]]
        if not attacks:
            return HonestClient(self.model, images, labels, **training)
        with self._named():
            return MaliciousClient(
                self.model,
                images,
                labels,
                attack=self.attack,
                rank=self.attackers.index(number),
                attackers=len(self.attackers),
                clients_per_attacker=self.cohort.clients_per_attacker(
                    self.config.num_clients, len(self.attackers)
                ),
                spare=self.spare,
                twin=self.client(number, clean=True) if self.attack.compares else None,
                **training | self.roster.training,
            )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the keys in the errors of an attack as the configuration does."""
        try:
            yield
        except ValueError as error:
            raise in_full(error, self.config.attack, "attack", self.classes) from error

    def test_set(self) -> tuple[Tensor, Tensor]:
        """Return the inputs (n, ...) and labels (n,) of the test rows.

        Raises
        ------
        UserError
            If a class has fewer test samples than asked.
        """
        return self.data.test[self.source.draw_test(self.config.seed)]


@lru_cache(maxsize=1)
def _federation(
    config: str, data: str = "{}", attackers: tuple[int, ...] | None = None
) -> Federation:
    federation = Federation(restored(Config, config, data))
    if attackers is not None:
        federation.enlist(attackers)
    return federation


def make_client_app(config: Config) -> ClientApp:
    """Build the ClientApp of an experiment; each node plays the client of its partition id.

    In a node's config ``data-root`` stands above ``dataset.root``, and ``attacker`` above the
    roster.
    """
    text = json.dumps(asdict(config))
    app = ClientApp()

    def federation_of(context: Context, attackers: tuple[int, ...] | None) -> Federation:
        repeat_bits(config.training.device)
        return _federation(text, node_data(context, config.dataset), attackers)

    @app.query()
    def enrol(message: Message, context: Context) -> Message:
        """Tell the server which partition of what this node holds, and if it attacks."""
        federation, number = federation_of(context, None), partition_id(context, config.num_clients)
        attacker = context.node_config.get("attacker", number in federation.attackers)
        if not isinstance(attacker, bool):
            raise UserError(f"node config attacker={attacker}: allowed are true, false")
        record = ConfigRecord(
            {"partition-id": number, "attacker": attacker, "data": federation.data.name}
        )
        return Message(RecordDict({"enrolment": record}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        said: dict[str, Any] = {}
        for name, record in message.content.config_records.items():
            if name != ATTACK_MEMORY:
                said |= record
        attackers = tuple(said[ATTACKERS]) if ATTACKERS in said else None
        number = partition_id(context, config.num_clients)
        clean = bool(said.get(CLEAN_TWIN))
        client = federation_of(context, attackers).client(number, clean=clean)
        return client.train(message, context)

    return app
