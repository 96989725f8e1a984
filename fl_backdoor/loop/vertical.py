"""The epochs of split learning: train, measure, keep."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from flwr.serverapp import Grid
from torch import Tensor
from torch.nn import functional

from clients.vertical import infer_labels
from strategies.vertical import ActiveParty, EpochReport, Party, ProtocolError, SumTop

from ..errors import UserError
from ..federation.engines import launch, wait_for_nodes
from ..federation.vertical import VerticalFederation, make_party_app, settle_data
from ..measure.metrics import predict
from ..schema import VerticalConfig
from .directory import TWIN, Row, RunDirectory, stored_source
from .run import Summary, versions
from .vertical_display import VerticalDisplay


@dataclass
class VerticalRun:
    """One training from the first to the last epoch: the experiment, or its clean twin."""

    federation: VerticalFederation
    directory: RunDirectory
    display: VerticalDisplay
    clean: bool
    twin: list[Row]

    def train(self, grid: Grid, parties: list[Party]) -> None:
        """Train the epochs that are still missing, and keep each as soon as it is done."""
        config = self.federation.config
        rows = self.directory.rows
        self.display.begin("clean twin" if self.clean else config.name, config.num_epochs, rows)
        try:
            if len(rows) < config.num_epochs:
                active = self.federation.active_party(parties, clean=self.clean)
                active.begin(grid, self.directory.arrays, epochs_done=len(rows))
                for epoch in range(len(rows) + 1, config.num_epochs + 1):
                    self._epoch(epoch, grid, active)
        finally:
            self.display.end()

    def _epoch(self, epoch: int, grid: Grid, active: ActiveParty) -> None:
        started = time.perf_counter()
        leak = LabelLeak(self.federation, active)
        report = active.train_epoch(grid, epoch, leak.observe)
        trained = time.perf_counter()
        row: Row = {"epoch": epoch, "train_loss": report.loss}
        row |= evaluate(active, grid, self.federation)
        for key in ("attack_success_rate", "backdoor_accuracy"):
            floor = self.twin[epoch - 1][key] if self.twin else None
            row[key.removesuffix("_rate") + "_floor"] = floor
        row["clean_scores"] = self.twin[epoch - 1]["scores"] if self.twin else None
        row["label_inference_accuracy"] = leak.accuracy
        row |= self._reported(report)
        row["seconds_training"] = trained - started
        row["seconds_epoch"] = time.perf_counter() - started
        self.directory.append(row, active.checkpoint(grid))
        self.display.round(row)

    def _reported(self, report: EpochReport) -> Row:
        """Return what the first attacker says of itself, and what the exchange cost."""
        norms = (said.get("g-rec-norm") for _, said in sorted(report.reports.items()))
        return {
            "g_rec_norm": next((norm for norm in norms if norm is not None), None),
            "bytes": report.bytes,
            "round_trips": report.round_trips,
        }

    def summarize(self) -> Summary:
        """Write the summary of the complete run, and return it."""
        last, federation = self.directory.rows[-1], self.federation
        config, labels = federation.config, federation.labels
        counts = {}
        for split, of in (("train", labels.train), ("test", labels.test)):
            poisoned = torch.bincount(of[federation.poisoned[split]], minlength=len(labels.names))
            whole = torch.bincount(of, minlength=len(labels.names))
            counts[split] = [
                list(pair) for pair in zip(poisoned.tolist(), whole.tolist(), strict=True)
            ]
        summary: Summary = {
            "name": config.name,
            "seed": config.seed,
            "epochs": last["epoch"],
            **{
                key: last[key]
                for key in (
                    "main_accuracy",
                    "backdoor_accuracy",
                    "backdoor_accuracy_floor",
                    "attack_success_rate",
                    "attack_success_floor",
                    "label_inference_accuracy",
                    "g_rec_norm",
                    "scores",
                    "clean_scores",
                    "loss",
                )
            },
            "target": federation.attack.target,
            "classes": list(labels.names),
            "poisoned_rows": counts,
            "parties": federation.num_parties,
            "attack": {"_target_": "none"} if self.clean else config.attack,
            "defenses": config.defenses,
            "data": federation.data.describe(),
            "bytes": sum(row["bytes"] for row in self.directory.rows),
            "round_trips": sum(row["round_trips"] for row in self.directory.rows),
            "seconds": sum(row["seconds_epoch"] for row in self.directory.rows),
            "versions": versions(),
        }
        self.directory.finish(summary)
        return summary


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


def evaluate(active: ActiveParty, grid: Grid, federation: VerticalFederation) -> Row:
    """Measure the model on the test rows, clean and triggered.

    Returns
    -------
    dict
        ``loss`` and ``main_accuracy`` on all test rows; ``backdoor_accuracy``, the part of
        D_poison's test rows that get the target class, whatever theirs is (section 7.2);
        ``scores``, their mean softmax by class (Fig. 3; where parties send more scores than there
        are classes, those of the classes); ``attack_success_rate``, the part of all
        test rows of other classes that get the target class once the trigger is set.
    """
    labels, target = federation.labels.test, federation.target
    output = active.predict(grid, torch.arange(len(labels)))
    poisoned = active.predict(grid, federation.poisoned["test"], triggered=True)
    others = (labels != target).nonzero().flatten()
    triggered = active.predict(grid, others, triggered=True)
    return {
        "loss": float(functional.cross_entropy(output, labels)),
        "main_accuracy": _part(predict(output) == labels),
        "backdoor_accuracy": _part(predict(poisoned) == target),
        "attack_success_rate": _part(predict(triggered) == target),
        "scores": poisoned.softmax(dim=1).mean(dim=0)[: len(federation.labels.names)].tolist(),
    }


def _part(hits: Tensor) -> float:
    return float(hits.double().mean())


def run(
    config: VerticalConfig, path: Path, display: VerticalDisplay, grid: Grid | None = None
) -> Summary:
    """Run one experiment from its configuration to its summary and figures.

    The parameters are those of `fl_backdoor.loop.run.run`.

    Raises
    ------
    UserError
        On bad input before any training starts; when a party fails, with the epochs that are
        done kept.
    """
    if config.resume:
        config.dataset = config.dataset | stored_source(path, config.dataset)
    config = settle_data(config)
    federation = VerticalFederation(config)
    display.line(f"Data: {federation.data.describe()}")
    federation.check()
    resolved = asdict(config)
    directory = RunDirectory(path, resolved, resume=config.resume, unit="epoch")
    runs = [VerticalRun(federation, directory, display, False, [])]
    if config.floor:
        twin = RunDirectory(path / TWIN, resolved, resume=config.resume, unit="epoch")
        runs.insert(0, VerticalRun(federation, twin, display, True, []))
    display.vertical_setting(config, federation)

    def main(grid: Grid, workers: int) -> None:  # noqa: ARG001
        needed = federation.num_parties
        wait_for_nodes(grid.get_node_ids, needed, config.round_timeout, f"passive parties={needed}")
        try:
            parties = federation.enrol(grid)
            for run in runs:
                run.train(grid, parties)
                run.summarize()
                if run.clean:
                    runs[-1].twin = run.directory.rows
        except ProtocolError as error:
            raise UserError(str(error)) from error

    if not directory.complete:
        count = federation.num_parties
        launch(config.engine, make_party_app(config), count, main, grid)
    summary = directory.summary()
    display.result(summary, directory)
    return summary
