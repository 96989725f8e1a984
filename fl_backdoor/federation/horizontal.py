"""Everything that server and clients derive alike from the configuration."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import Tensor, nn

from clients import HonestClient

from ..config import SomeConfig, build, one_line, restored
from ..data.base import Data, Source
from ..errors import UserError
from ..schema import Config
from .attacks import Attack

CLEAN_TWIN = "clean-twin"
"""Key of a train config: the attackers of the roster train honestly."""

ATTACKERS = "attackers"
"""Key of a train config: the roster, once every node has said whether it attacks."""

DATA = "fl-backdoor.data"
"""Key of the record in which a node keeps where its data comes from."""


class Federation:
    """Data, partitions, roster and clients of one experiment.

    Every process builds its own from the same configuration and comes to the same result;
    nothing but models and metrics travels between them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.attack: Attack = build("attack", config.attack, Attack)
        self.attackers = self.attack.attackers(config.num_clients, config.seed)
        self.source: Source = build("dataset", config.dataset, Source)
        self.digits = [int(name) for name in self.source.classes]
        for key, digit in self.attack.goal_digits().items():
            if digit not in self.digits:
                raise UserError(f"attack.{key}={digit}: allowed are dataset.digits={self.digits}")

    def enlist(self, attackers: tuple[int, ...]) -> None:
        """Replace the roster of the configuration; the samples are shared among the new one.

        Raises
        ------
        UserError
            If there are more attackers than allowed, or the samples cannot be shared so.
        """
        if attackers != self.attackers:
            self.attack = replace(self.attack, num_attackers=len(attackers))
            self.attack.attackers(self.config.num_clients, self.config.seed)
            self.attackers = attackers

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
        state: dict[str, Tensor] = self._new_model().state_dict()
        return state

    def _new_model(self) -> nn.Module:
        arguments = {"num_classes": len(self.digits), "seed": self.config.seed}
        model: nn.Module = build("model", self.config.model, nn.Module, **arguments)
        return model

    @cached_property
    def partitions(self) -> list[NDArray[np.int64]]:
        """Indices of the training samples of each client."""
        return self.source.shares(self.config.num_clients, self.config.seed)

    @cached_property
    def pool(self) -> NDArray[np.int64]:
        """Indices of the samples of the attack's digit that nobody holds, in seeded order."""
        name = str(self.attack.pool_digit())
        return self.source.pool(self.partitions, name, self.config.seed)

    def check(self) -> None:
        """Build every attacker once, so that bad input shows before any training.

        Raises
        ------
        UserError
            Naming the key at fault.
        """
        wanted = sum(self.attack.pool_shares())
        if wanted and wanted > len(self.pool):
            raise UserError(
                f"attack.poisoned_samples={wanted}: allowed are 0 to {len(self.pool)}, the samples "
                f"of digit {self.attack.pool_digit()} that no participant holds"
            )
        device = self.config.training.device
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # the latter without CUDA
            raise UserError(
                f"training.device={device}: allowed is what torch finds here ({one_line(error)})"
            ) from error
        for client in {0, *self.attackers}:
            try:
                self.client(client)
            except (ValueError, RuntimeError) as error:
                raise UserError(f"client {client} cannot be built: {one_line(error)}") from error

    def client(self, number: int, *, clean: bool = False) -> HonestClient:
        """Build a client; with ``clean`` an attacker is built as the honest client it was."""
        training = asdict(self.config.training) | {
            "seed": self.config.seed,
            "partition": number,
        }
        images, labels = self.data.train[self.partitions[number]]
        if clean or number not in self.attackers:
            return HonestClient(self.model, images, labels, **training)
        rank = self.attackers.index(number)
        shares = self.attack.pool_shares()
        start = sum(shares[:rank])
        pool, _ = self.data.train[self.pool[start : start + shares[rank]]]
        return self.attack.client(rank, self.model, images, labels, pool, self.digits, **training)

    def test_set(self) -> tuple[Tensor, Tensor]:
        """Return the inputs (n, ...) and labels (n,) of the test rows.

        Raises
        ------
        UserError
            If a class has fewer test samples than asked.
        """
        return self.data.test[self.source.test_rows(self.config.seed)]


def settle_data(config: SomeConfig, kind: type[Any]) -> SomeConfig:
    """Decide once where the data comes from, so that no worker process looks for it again."""
    config.dataset = config.dataset | build("dataset", config.dataset, kind).settle()
    return config


def node_data(context: Context, settle: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Return the keys of ``dataset`` that are a node's own, as JSON.

    They are settled by the first message of a run and kept in ``context.state``: a message may
    be the first in its process, and looking for data can take seconds.

    Parameters
    ----------
    context : Context
        The node's; ``data-root`` in its node config stands above the ``dataset.root`` of the run.
    settle : callable
        Decides where the data comes from, given the node's keys; returns the keys settled by it.
    """
    if DATA not in context.state:
        own = context.node_config.get("data-root")
        keys = {} if own is None else {"root": str(own)}
        context.state[DATA] = ConfigRecord({DATA: json.dumps(keys | settle(keys))})
    return str(context.state[DATA][DATA])


def partition_id(context: Context, count: int) -> int:
    """Return which of 0 to count - 1 a node is, by its node config.

    Raises
    ------
    UserError
        If it does not say so.
    """
    number = context.node_config.get("partition-id")
    if type(number) is not int or not 0 <= number < count:
        raise UserError(f"node config partition-id={number}: allowed are 0 to {count - 1}")
    return number


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

    def settle(own: dict[str, Any]) -> dict[str, Any]:
        source: Source = build("dataset", config.dataset | own, Source)
        return source.settle()

    def federation_of(context: Context, attackers: tuple[int, ...] | None) -> Federation:
        torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
        return _federation(text, node_data(context, settle), attackers)

    @app.query()
    def enrol(message: Message, context: Context) -> Message:
        """Tell the server which partition of what this node holds, and if it attacks."""
        federation, number = federation_of(context, None), partition_id(context, config.num_clients)
        attacker = context.node_config.get("attacker", number in federation.attackers)
        if not isinstance(attacker, bool):
            raise UserError(f"node config attacker={attacker}: allowed are true, false")
        federation.client(number)
        record = ConfigRecord(
            {"partition-id": number, "attacker": attacker, "data": federation.data.name}
        )
        return Message(RecordDict({"enrolment": record}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        said: dict[str, Any] = {}
        for record in message.content.config_records.values():
            said |= record
        attackers = tuple(said[ATTACKERS]) if ATTACKERS in said else None
        number = partition_id(context, config.num_clients)
        clean = bool(said.get(CLEAN_TWIN))
        client = federation_of(context, attackers).client(number, clean=clean)
        return client.train(message, context)

    return app
