"""Everything that the active party and the passive parties derive alike from the configuration."""

import json
from dataclasses import asdict
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.vertical import PassiveParty, party_app
from strategies.vertical import ActiveParty, Party, VerticalDefense, enrol

from ..config import build, one_line, restored
from ..data.vertical.base import Block, Labels, VerticalData
from ..errors import UserError
from ..schema import VerticalConfig
from .horizontal import CLEAN_TWIN
from .node import node_data, partition_id
from .vertical_attacks import NoAttack, PassiveAttack, Setting, VerticalAttack, build_attack

MAX_NAMED = 20
"""The most classes that an error lists."""


class VerticalFederation:
    """Data, trigger, attack and parties of one experiment.

    Every process builds its own from the same configuration; a party's process reads its own
    block. What an attacker is assumed to know beyond it, D_target, is drawn from the labels.
    """

    def __init__(self, config: VerticalConfig) -> None:
        self.config = config
        self.data: VerticalData = build("dataset", config.dataset, VerticalData)
        self.attack: VerticalAttack = build_attack(config.attack)
        self._parties: dict[tuple[int, bool], PassiveParty] = {}

    @property
    def num_parties(self) -> int:
        """Passive parties: the last block is the active party's with ``active_features``."""
        return self.data.num_parties - self.config.active_features

    @cached_property
    def labels(self) -> Labels:
        """What the active party holds."""
        return self.data.labels()

    @cached_property
    def target(self) -> int:
        """tau, as a class number."""
        names = self.labels.names
        if self.attack.target not in names:
            # So many are hardly classes, but some other column of the data by mistake.
            allowed = ", ".join(names) if len(names) <= MAX_NAMED else f"its {len(names)} labels"
            raise UserError(f"attack.target={self.attack.target}: allowed are {allowed}")
        return names.index(self.attack.target)

    @cached_property
    def poisoned(self) -> dict[str, Tensor]:
        """D_poison of the ``train`` and ``test`` split."""
        seed = self.config.seed
        return {s: torch.from_numpy(self.data.poisoned(s, seed)) for s in ("train", "test")}

    @cached_property
    def setting(self) -> Setting:
        """What attacks may know."""
        return Setting(self.poisoned["train"], self.target, self.labels.train, self.config.seed)

    @cached_property
    def attackers(self) -> list[int]:
        """The passive parties that attack."""
        return self.attack.attackers(self.num_parties, self.data.trigger_party)

    def describe_attack(self) -> str:
        """Say in a few words who does what."""
        return self.attack.describe(self.setting, self.attackers)

    def check(self) -> None:
        """Build every part once, so that bad input shows before any training.

        Raises
        ------
        UserError
            Naming the key at fault.
        """
        if not (self.labels.test != self.target).any():
            raise UserError(
                f"attack.target={self.attack.target}: every test row is of this class; allowed is "
                "one that some are not of, to measure the attack"
            )
        for split, rows in self.poisoned.items():
            if not len(rows) and not (split == "train" and isinstance(self.attack, NoAttack)):
                raise UserError(f"dataset.poisoned_{split}=0: allowed is 1 or more")
        if self.data.trigger_party >= self.num_parties:
            raise UserError(
                f"dataset.trigger_party={self.data.trigger_party}: its block is the active party's "
                f"(active_features=true); allowed are 0 to {self.num_parties - 1}"
            )
        activations = []
        for number in range(self.data.num_parties):
            self._check_rows(number)
            if number < self.num_parties:
                activations.append(_outputs(self.party(number).model, self.data.block(number)))
        active = self.active_party([Party(0, a.shape[1]) for a in activations], clean=False)
        if active.model.bottom is not None:
            activations.append(_outputs(active.model.bottom, self.data.block(self.num_parties)))
        self._check_top(active.top, activations)
        self.attack.check(self.setting, active.top)

    def _check_top(self, top: nn.Module, activations: list[Tensor]) -> None:
        try:
            with torch.inference_mode():
                shape = tuple(top.eval()(activations).shape)
        except Exception as error:  # a module of the user's own: whatever it raises
            raise UserError(
                f"top: cannot use the parties' activations ({one_line(error)})"
            ) from error
        classes = len(self.labels.names)
        if len(shape) != 2 or shape[1] < classes:
            raise UserError(
                f"top: gives logits of shape {shape} for one row; allowed are {classes} or more"
            )

    def _check_rows(self, party: int) -> None:
        """Refuse rows that are not those of the labels: later they are taken for the same."""
        block, labels = self.data.block(party), self.labels
        for split, own, rows in (
            ("train", block.train_rows, labels.train_rows),
            ("test", block.test_rows, labels.test_rows),
        ):
            if own != rows:
                raise UserError(
                    f"party {party}: its {own.count} {split} rows are not the {rows.count} of the "
                    "labels, or in another order (the digests of their ids differ)"
                )

    def party(self, number: int, *, clean: bool = False) -> PassiveParty:
        """Return a passive party; with ``clean`` an attacker as the honest party it was."""
        if (number, clean) not in self._parties:
            self._parties[number, clean] = self._new_party(number, clean)
        return self._parties[number, clean]

    def _new_party(self, number: int, clean: bool) -> PassiveParty:
        config, block = self.config, self.data.block(number)
        model = self._bottom(number)
        options: dict[str, Any] = {
            "party": number,
            "train_digest": block.train_rows.digest,
            "test_digest": block.test_rows.digest,
            "learning_rate": config.training.learning_rate,
            "local_steps": config.training.local_steps,
            "seed": config.seed,
        }
        train, holds_trigger = block.train, number == self.data.trigger_party
        if holds_trigger:
            options["stamp"] = self.data.stamp
            if self.data.poisoned_train is not None:
                rows = self.poisoned["train"]
                train = train.clone()
                train[rows] = self.data.stamp(train[rows])
        if isinstance(self.attack, PassiveAttack) and number in self.attackers and not clean:
            columns = self.data.trigger_columns() if holds_trigger else []
            options["attack"] = self.attack.party_attack(self.setting, columns)
        try:
            return PassiveParty(model, train, block.test, **options)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"party {number} cannot be built: {one_line(error)}") from error

    def _bottom(self, number: int) -> nn.Module:
        """Build the bottom model of a block."""
        arguments = {
            "features": self.data.block(number).train.shape[1],
            "num_classes": len(self.labels.names),
            "seed": _seed(self.config.seed, 51, number),
        }
        model: nn.Module = build("bottom", self.config.bottom, nn.Module, **arguments)
        return model

    def enrol(self, grid: Grid) -> list[Party]:
        """Ask who is there, and check that all parties hold the same rows."""
        labels = self.labels
        rows = {
            "train": (labels.train_rows.count, labels.train_rows.digest),
            "test": (labels.test_rows.count, labels.test_rows.digest),
        }
        return enrol(grid, self.num_parties, rows, timeout=self.config.round_timeout)

    def active_party(self, parties: list[Party], *, clean: bool) -> ActiveParty:
        """Build the active party; with ``clean`` the honest one."""
        config = self.config
        widths = [party.outputs for party in parties]
        own: dict[str, Any] = {}
        if config.active_features:
            block, bottom = self.data.block(self.num_parties), self._bottom(self.num_parties)
            own = {"bottom": bottom, "features": {"train": block.train, "test": block.test}}
            widths.append(_outputs(bottom, block).shape[1])
        arguments = {
            "widths": widths,
            "num_classes": len(self.labels.names),
            "seed": _seed(config.seed, 52),
        }
        top = build("top", config.top, nn.Module, **arguments)
        options: dict[str, Any] = {
            "parties": parties,
            "defenses": [
                build(f"defenses.{name}", node, VerticalDefense)
                for name, node in config.defenses.items()
            ],
            "batch_size": config.training.batch_size,
            "learning_rate": config.training.learning_rate,
            "local_steps": config.training.local_steps,
            "seed": config.seed,
            "timeout": config.round_timeout,
            "config": {CLEAN_TWIN: clean},
            **own,
        }
        if clean:
            return ActiveParty(top, self.labels.train, **options)
        return self.attack.active_party(self.setting, top, self.labels.train, **options)


def make_party_app(config: VerticalConfig) -> ClientApp:
    """Build the ClientApp of an experiment; each node plays the party of its partition id.

    In a node's config ``data-root`` stands above ``dataset.root``.
    """
    text = json.dumps(asdict(config))

    def choose(message: Message, context: Context) -> PassiveParty:
        torch.set_num_threads(1)  # with one thread a process, sums have one order everywhere
        said = message.content.get("config")
        if isinstance(said, ConfigRecord) and CLEAN_TWIN in said:
            context.state[CLEAN_TWIN] = ConfigRecord({CLEAN_TWIN: said[CLEAN_TWIN]})
        clean = CLEAN_TWIN in context.state and bool(context.state[CLEAN_TWIN][CLEAN_TWIN])
        federation = _federation(text, node_data(context, config.dataset))
        return federation.party(partition_id(context, federation.num_parties), clean=clean)

    return party_app(choose, checkpoints=True)


@lru_cache(maxsize=1)
def _federation(config: str, data: str) -> VerticalFederation:
    return VerticalFederation(restored(VerticalConfig, config, data))


def _outputs(bottom: nn.Module, block: Block) -> Tensor:
    """Return the activations of one row."""
    with torch.inference_mode():
        activations: Tensor = bottom.eval()(block.train[:1])
    return activations


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
