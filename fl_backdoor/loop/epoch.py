"""One epoch of split learning: train, and measure."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor

from clients.seat import CANNOT_ACT
from clients.vertical import infer_labels
from strategies.vertical import ActiveParty, Party, ProtocolError, SumTop

from ..data.vertical.base import VerticalData
from ..errors import UserError
from ..federation.engines import wait_for_nodes
from ..federation.node import settle_data
from ..federation.vertical import VerticalFederation, make_party_app
from ..files import Row, Summary
from ..measure.measures import measured
from ..measure.metrics import Answers
from ..schema import VerticalConfig
from ..screen import class_name, counted
from .directory import RunDirectory


class Vertical:
    """Passive parties that hold features, and the active party that holds the labels."""

    unit: ClassVar[str] = "epoch"

    def __init__(self, config: VerticalConfig) -> None:
        self.config = settle_data(config, VerticalData)
        self.federation = VerticalFederation(config)
        self.nodes = self.federation.num_parties

    def describe_data(self) -> str:
        """Say which data are used."""
        return self.federation.data.description

    def describe(self) -> str:
        """Say who trains, who attacks and what defends."""
        config, federation = self.config, self.federation
        defenses = " + ".join(map(class_name, config.defenses.values())) or "no defense"
        attack = federation.describe_attack()
        return (
            f"{self.nodes} passive parties, top {class_name(config.top)}; {attack}, target "
            f"{federation.attack.target}; {defenses}; {counted(config.num_epochs, 'epoch')}"
        )

    def draw(self, path: Path) -> None:
        """Draw nothing: all parties hold the same rows."""

    def check(self) -> None:
        """Build every part once."""
        self.federation.check()

    def client_app(self) -> ClientApp:
        """Return what every node runs."""
        return make_party_app(self.config)

    def training(self, *, clean: bool) -> "Epochs":
        """Return the training of the run, or of its clean twin."""
        return Epochs(self, clean=clean)

    def meet(self, grid: Grid, workers: int, say: Callable[[str], None]) -> None:  # noqa: ARG002
        """Enrol the parties."""
        who = f"passive parties={self.nodes}"
        wait_for_nodes(grid.get_node_ids, self.nodes, self.config.round_timeout, who)
        self.grid = grid
        with _refused():
            self.parties: list[Party] = self.federation.enrol(grid)


class Epochs:
    """The training of a run, or of its clean twin, in which the attacker is honest."""

    def __init__(self, experiment: Vertical, *, clean: bool) -> None:
        self.experiment = experiment
        self.federation = experiment.federation
        self.config = experiment.config
        self.clean = clean
        self.name = "clean twin" if clean else self.config.name
        self.total = self.config.num_epochs

    def begin(self, directory: RunDirectory) -> None:
        """Let all parties start anew, or everybody from the last epoch."""
        self._active = self.federation.active_party(self.experiment.parties, clean=self.clean)
        done = len(directory.rows)
        if done == self.total:
            return
        with _refused():
            self._active.begin(self.experiment.grid, directory.arrays, epochs_done=done)

    def step(
        self, number: int, twin: Row | None
    ) -> tuple[Row, ArrayRecord, Mapping[str, NDArray[Any]]]:
        """Do an epoch.

        Raises
        ------
        UserError
            If a party fails; it names the party.
        """
        started = time.perf_counter()
        active, grid = self._active, self.experiment.grid
        leak = LabelLeak(self.federation, active)
        with _refused():
            report = active.train_epoch(grid, number, leak.observe)
            trained = time.perf_counter()
            idle = sum(said.pop(CANNOT_ACT, 0) > 0 for said in report.reports.values())
            parts = {
                "report": report,
                "test": answers(active, grid, self.federation),
                "twin": twin,
                "leak": leak.accuracy,
                # By the first attacker that says so of itself.
                "said": next((said for _, said in sorted(report.reports.items()) if said), None),
            }
            row: Row = {"epoch": number} | measured("epoch", parts)
            if idle:
                row["attack"] = {CANNOT_ACT: idle}
            row["seconds_training"] = trained - started
            row["seconds_epoch"] = time.perf_counter() - started
            return row, active.checkpoint(grid), {}

    def summary(self, rows: list[Row]) -> Summary:  # noqa: ARG002
        """Say what was run, and how many rows of each class are poisoned."""
        config, federation = self.config, self.federation
        labels = federation.labels
        counts = {}
        for split, of in (("train", labels.train), ("test", labels.test)):
            poisoned = torch.bincount(of[federation.poisoned[split]], minlength=len(labels.names))
            whole = torch.bincount(of, minlength=len(labels.names))
            counts[split] = [
                list(pair) for pair in zip(poisoned.tolist(), whole.tolist(), strict=True)
            ]
        return {
            "target": federation.attack.target,
            "classes": list(labels.names),
            "poisoned_rows": counts,
            "parties": self.experiment.nodes,
            "attack": {"_target_": "none"} if self.clean else config.attack,
            "adaptive": federation.attack.adaptive and not self.clean,
            "defenses": config.defenses,
            "data": federation.data.description,
            "data_digest": federation.data.digest,
        }


class LabelLeak:
    """How many labels the gradients give away, as they are sent to the party with the trigger."""

    def __init__(self, federation: VerticalFederation, active: ActiveParty) -> None:
        self._labels = federation.labels
        self._party = federation.data.trigger_party
        self._scores = isinstance(active.top, SumTop)
        self._hits = self._rows = 0

    def observe(self, rows: Tensor, gradients: list[Tensor]) -> None:
        """Infer the labels of a batch, if the gradients are those of class scores."""
        if self._scores:
            inferred = infer_labels(gradients[self._party])
            self._hits += int((inferred == self._labels.train[rows]).sum())
            self._rows += len(rows)

    @property
    def accuracy(self) -> float | None:
        """Part of the labels inferred rightly; None where gradients are of something else."""
        return self._hits / self._rows if self._rows else None


def answers(active: ActiveParty, grid: Grid, federation: VerticalFederation) -> Answers:
    """Run the model on the test rows: as they are, and those of other classes triggered."""
    labels, target = federation.labels.test, federation.target
    output = active.predict(grid, torch.arange(len(labels)))
    poisoned = active.predict(grid, federation.poisoned["test"], triggered=True)
    others = (labels != target).nonzero().flatten()
    triggered = active.predict(grid, others, triggered=True)
    return Answers(output, labels, target, triggered, len(federation.labels.names), poisoned)


@contextmanager
def _refused() -> Iterator[None]:
    """Make a user's error of one that names a party."""
    try:
        yield
    except ProtocolError as error:
        raise UserError(str(error)) from error
