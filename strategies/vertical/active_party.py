"""The active party of split learning: labels, top model and loss, on Flower's server side.

Liu, Yi, Chen 2020, *Backdoor attacks and defenses in feature-partitioned collaborative
learning*, https://arxiv.org/abs/2007.03608, Algorithm 1.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from .active_model import ActiveModel, part_of
from .defense import VerticalDefense
from .enrolment import Party, ProtocolError
from .wire import converse, read_activations, read_checkpoint, read_metrics, write_batch

ROWS_A_MESSAGE = 5000
"""Rows of one evaluation message: enough for the exchange to cost little."""

Observer = Callable[[Tensor, list[Tensor]], None]


@dataclass
class EpochReport:
    """What an epoch of training did.

    Attributes
    ----------
    loss : float
        Mean training loss over its batches.
    round_trips : int
        Exchanges with all parties.
    bytes : int
        Rows, activations and gradients exchanged, both ways, all parties.
    reports : dict from party to metrics
        What parties said at its end.
    """

    loss: float = 0.0
    round_trips: int = 0
    bytes: int = 0
    reports: dict[int, dict[str, float]] = field(default_factory=dict)


class ActiveParty:
    """Drive the training of Algorithm 1 over any Flower Grid.

    A round trip carries the gradients of one batch and the rows of the next, which computes
    what Algorithm 1 computes in half the messages.

    Parameters
    ----------
    top : torch.nn.Module
        Maps a list of activations, one ``(b, m_k)`` a party, to logits ``(b, C)``, one a class:
        neither softmax nor sigmoid is its part.
    labels : Tensor of shape (N,)
        Classes of the train rows, whole numbers 0 to C-1.
    parties : sequence of Party
        The passive parties, as `enrol` returns them.
    defenses : sequence of VerticalDefense
        Each applied, in this order, to labels, activations, loss and gradients.
    bottom : torch.nn.Module, optional
        Bottom model of the active party's own features: its activations are one more, the last,
        that the top model gets. None: it holds labels only.
    features : mapping from "train" and "test" to Tensor, optional
        Those features, of shape (N, d) and (M, d); given if and only if ``bottom`` is.
    batch_size : int (default: 64)
        Rows of a minibatch (section 7.1).
    learning_rate : float (default: 0.01)
        eta of the plain SGD of the top model, and of all else that the active party trains.
    local_steps : int (default: 1)
        SGD steps of these for each exchange; those after the first use stale
        activations (FedBCD, Liu et al. 2019).
    seed : int, optional
        Decides the batches and every draw of the defenses, for experiments. Leave it out in a
        deployment: a party that knows it can subtract the noise from its gradients.
    timeout : float (default: 3600)
        Seconds to wait for the answers of a round trip.
    config : mapping, optional
        Sent with the message that starts the training.

    Raises
    ------
    ProtocolError
        From every method that talks to the parties: when one raises, does not answer, or
        answers with another shape or values that are not finite, it names the party. When the
        loss is no longer finite, since any of them can have caused that, it names none.
    ValueError
        If the labels are no classes, the active party's own features are not those of its labels,
        or, in the first batch, the top model does not return one logit a class.
    """

    def __init__(
        self,
        top: nn.Module,
        labels: Tensor,
        *,
        parties: Sequence[Party],
        defenses: Sequence[VerticalDefense] = (),
        bottom: nn.Module | None = None,
        features: Mapping[str, Tensor] | None = None,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        local_steps: int = 1,
        seed: int | None = None,
        timeout: float = 3600.0,
        config: Mapping[str, bool] | None = None,
    ) -> None:
        self.labels = _classes(labels)
        if (bottom is None) != (features is None):
            raise ValueError("bottom and features: allowed are both, or none of them")
        if features is not None and len(features["train"]) != len(labels):
            raise ValueError(
                f"features: {len(features['train'])} train rows; allowed are {len(labels)}, those "
                "of the labels"
            )
        self.parties = list(parties)
        self.batch_size = batch_size
        self.seed = secrets.randbits(63) if seed is None else seed
        self.timeout = timeout
        self.config = dict(config or {})
        self.model = ActiveModel(
            top,
            defenses,
            bottom=bottom,
            features=features,
            learning_rate=learning_rate,
            local_steps=local_steps,
            seed=self.seed,
        )
        self._steps = -(-len(labels) // batch_size) + 1
        """Train messages of an epoch to each party: one for each batch, one after the last."""

    @property
    def top(self) -> nn.Module:
        """The top model."""
        return self.model.top

    def _where(self, epoch: int, number: int) -> str:
        batches = self._steps - 1
        return f"epoch {epoch}, batch {min(number + 1, batches)} of {batches}"

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels that rows ``(b,)`` are trained towards: honestly, their own."""
        return self.labels.index_select(0, rows)

    def begin(
        self, grid: Grid, checkpoint: ArrayRecord | None = None, *, epochs_done: int = 0
    ) -> None:
        """Let all parties start anew, or everybody from the checkpoint after some epochs."""
        self.model.begin(self.labels, [party.outputs for party in self.parties], checkpoint)
        contents = []
        for number in range(len(self.parties)):
            steps = ConfigRecord({**self.config, "step": epochs_done * self._steps})
            content = RecordDict({"config": steps})
            if checkpoint is not None:
                for part in ("model", "memory"):
                    own = part_of(checkpoint, f"party{number}.{part}.")
                    content[part] = ArrayRecord(own)
            contents.append(content)
        self._converse(grid, "train.begin", contents, lambda: "the start")

    def checkpoint(self, grid: Grid) -> ArrayRecord:
        """Collect all that a training consists of: the active party's, and every party's part."""
        nothing = [RecordDict() for _ in self.parties]
        replies = self._converse(grid, "query.checkpoint", nothing, lambda: "the checkpoint")
        whole = self.model.state()
        for number, reply in enumerate(replies):
            whole.update(read_checkpoint(number, reply))
        return ArrayRecord(whole)

    def train_epoch(self, grid: Grid, epoch: int, observe: Observer | None = None) -> EpochReport:
        """Train on every row once, in seeded random order.

        Parameters
        ----------
        grid : Grid
            Where the parties are.
        epoch : int
            Counted from 1.
        observe : callable, optional
            Sees the rows ``(b,)`` and the gradients, one ``(b, m_k)`` a party, as they are sent.
        """
        report = EpochReport()
        order = np.random.default_rng([self.seed, 31, epoch]).permutation(len(self.labels))
        batches = torch.split(torch.from_numpy(order), self.batch_size)
        losses: list[float] = []
        activations = self._exchange(grid, report, batches[0], None, epoch, 0)
        for number, rows in enumerate(batches):
            step = (epoch - 1) * self._steps + number
            loss, gradients = self.model.learn(activations, rows, self.labels_of(rows), step)
            if not math.isfinite(loss):
                where = self._where(epoch, number)
                raise ProtocolError(f"training has diverged at {where}: the loss is not finite")
            losses.append(loss)
            gradients = self.model.defend(gradients, rows, step)
            if observe is not None:
                observe(rows, gradients)
            following = batches[number + 1] if number + 1 < len(batches) else None
            activations = self._exchange(grid, report, following, gradients, epoch, number + 1)
        report.loss = sum(losses) / len(self.labels)
        return report

    def predict(
        self, grid: Grid, rows: Tensor, *, split: str = "test", triggered: bool = False
    ) -> Tensor:
        """Ask for activations of rows ``(n,)`` and return their logits ``(n, C)``.

        Parameters
        ----------
        grid : Grid
            Where the parties are.
        rows : Tensor of shape (n,)
            Rows of the split.
        split : {"train", "test"}
            Where the rows are.
        triggered : bool
            Let the party whose block has the trigger set it in these rows.
        """
        if not len(rows):
            raise ValueError("no rows to predict")
        logits = []
        for part in torch.split(rows, ROWS_A_MESSAGE):
            batch = ConfigRecord({"rows": part.numpy().tobytes()})
            batch["split"], batch["triggered"] = split, triggered
            contents = [RecordDict({"batch": batch}) for _ in self.parties]
            where = partial("the {} rows".format, split)
            replies = self._converse(grid, "evaluate", contents, where)
            logits.append(self.model.predict(self._read(replies, len(part), where), part, split))
        return torch.cat(logits)

    def _exchange(
        self,
        grid: Grid,
        report: EpochReport,
        rows: Tensor | None,
        gradients: list[Tensor] | None,
        epoch: int,
        number: int,
    ) -> list[Tensor]:
        """Send gradients and the next rows; return the activations of those rows."""
        contents, size = write_batch(len(self.parties), rows, gradients)
        where = partial(self._where, epoch, number)
        replies = self._converse(grid, "train", contents, where)
        report.round_trips += 1
        report.bytes += size
        if rows is None:
            report.reports = {party: read_metrics(reply) for party, reply in enumerate(replies)}
            return []
        activations = self._read(replies, len(rows), where)
        report.bytes += sum(activation.nbytes for activation in activations)
        return activations

    def _converse(
        self, grid: Grid, kind: str, contents: list[RecordDict], where: Callable[[], str]
    ) -> list[RecordDict]:
        return converse(grid, self.parties, kind, contents, where, self.timeout)

    def _read(self, replies: list[RecordDict], rows: int, where: Callable[[], str]) -> list[Tensor]:
        return [
            read_activations(number, party, reply, rows, where)
            for number, (party, reply) in enumerate(zip(self.parties, replies, strict=True))
        ]


def _classes(labels: Tensor) -> Tensor:
    """Return labels as int64, or refuse what are no classes."""
    whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.ndim != 1 or not len(labels) or not whole or int(labels.min()) < 0:
        raise ValueError(
            f"labels: {labels.dtype} of shape {tuple(labels.shape)}; allowed are whole numbers 0 "
            "to C-1, one a row (two classes as well: a top model returns one logit a class)"
        )
    return labels.long()
