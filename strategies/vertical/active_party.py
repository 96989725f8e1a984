"""The active party of split learning: labels, top model and loss, on Flower's server side.

Liu, Yi, Chen 2020, *Backdoor attacks and defenses in feature-partitioned collaborative
learning*, https://arxiv.org/abs/2007.03608, Algorithm 1.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn
from torch.nn import functional

from ..checks import line
from ..vectors import decode
from .defense import GradientDefense
from .enrolment import Party, ProtocolError, ask
from .top_models import SumTop

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
        Maps a list of activations, one ``(b, m_k)`` a party, to logits ``(b, C)``.
    labels : Tensor of shape (N,)
        Classes of the train rows, int64.
    parties : sequence of Party
        The passive parties, as `enrol` returns them.
    defenses : sequence of GradientDefense
        Applied to each gradient in this order before it is sent.
    batch_size : int (default: 64)
        Rows of a minibatch (section 7.1).
    learning_rate : float (default: 0.01)
        eta of the top model's plain SGD.
    local_steps : int (default: 1)
        SGD steps of the top model for each exchange; those after the first use stale
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
    """

    def __init__(
        self,
        top: nn.Module,
        labels: Tensor,
        *,
        parties: Sequence[Party],
        defenses: Sequence[GradientDefense] = (),
        batch_size: int = 64,
        learning_rate: float = 0.01,
        local_steps: int = 1,
        seed: int | None = None,
        timeout: float = 3600.0,
        config: Mapping[str, bool] | None = None,
    ) -> None:
        self.top = top
        self.labels = labels
        self.parties = list(parties)
        self.defenses = list(defenses)
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.local_steps = local_steps
        self.seed = secrets.randbits(63) if seed is None else seed
        self.timeout = timeout
        self.config = dict(config or {})
        self._initial = {name: value.clone() for name, value in top.state_dict().items()}
        self._seed = _integer(np.random.SeedSequence([self.seed, 32])) >> 1
        self._parameters: list[Tensor] = [p for p in top.parameters() if p.requires_grad]

    @property
    def _steps(self) -> int:
        """Train messages of an epoch to each party: one for each batch, one after the last."""
        return -(-len(self.labels) // self.batch_size) + 1

    def _where(self, epoch: int, number: int) -> str:
        batches = self._steps - 1
        return f"epoch {epoch}, batch {min(number + 1, batches)} of {batches}"

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels that rows ``(b,)`` are trained towards: honestly, their own."""
        return self.labels[rows]

    def begin(
        self, grid: Grid, checkpoint: ArrayRecord | None = None, *, epochs_done: int = 0
    ) -> None:
        """Let all parties start anew, or everybody from the checkpoint after some epochs."""
        parts = _by_owner(checkpoint or ArrayRecord())
        self.top.load_state_dict(self._initial)
        for defense in self.defenses:
            defense.memory = {}
        contents = []
        for number in range(len(self.parties)):
            steps = ConfigRecord({**self.config, "step": epochs_done * self._steps})
            content = RecordDict({"config": steps})
            if checkpoint is not None:
                content["model"] = ArrayRecord(parts.get(f"party{number}.model", {}))
                content["memory"] = ArrayRecord(parts.get(f"party{number}.memory", {}))
            contents.append(content)
        if checkpoint is not None:
            own = ArrayRecord(parts.get("top", {}))
            self.top.load_state_dict(own.to_torch_state_dict())
            for place, defense in enumerate(self.defenses):
                memory = ArrayRecord(parts.get(f"defense{place}", {}))
                defense.memory = dict(memory.to_torch_state_dict())
        self._ask(grid, "train.begin", contents, "the start")

    def checkpoint(self, grid: Grid) -> ArrayRecord:
        """Collect all that a training consists of: top, defenses, and every party's part."""
        replies = self._ask(
            grid, "query.checkpoint", [RecordDict() for _ in self.parties], "the checkpoint"
        )
        whole = ArrayRecord(
            {f"top.{name}": array for name, array in ArrayRecord(self.top.state_dict()).items()}
        )
        for place, defense in enumerate(self.defenses):
            for name, tensor in defense.memory.items():
                whole[f"defense{place}.{name}"] = Array(tensor.numpy())
        for number, reply in enumerate(replies):
            for part in ("model", "memory"):
                for name, array in reply.array_records.get(part, {}).items():
                    text = f"party {number}: array {line(name)} of its checkpoint"
                    try:
                        kind = decode(array).dtype
                    except Exception as error:  # whatever parsing hostile bytes raises
                        raise ProtocolError(f"{text} cannot be read") from error
                    if kind.kind not in "biuf" or kind.itemsize > 8 or not kind.isnative:
                        raise ProtocolError(f"{text} holds {kind!s:.40}")
                    whole[f"party{number}.{part}.{name}"] = array
        return whole

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
        self.top.train()
        activations = self._exchange(grid, report, batches[0], None, epoch, 0)
        for number, rows in enumerate(batches):
            step = (epoch - 1) * self._steps + number
            loss, gradients = self._learn(activations, rows, step)
            if not math.isfinite(loss):
                where = self._where(epoch, number)
                raise ProtocolError(f"training has diverged at {where}: the loss is not finite")
            losses.append(loss)
            gradients = self._defend(gradients, rows, step)
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
        self.top.eval()
        for part in torch.split(rows, ROWS_A_MESSAGE):
            batch = ConfigRecord({"rows": part.numpy().tobytes()})
            batch["split"], batch["triggered"] = split, triggered
            contents = [RecordDict({"batch": batch}) for _ in self.parties]
            replies = self._ask(grid, "evaluate", contents, f"the {split} rows")
            with torch.inference_mode():
                logits.append(
                    self.top(
                        [
                            self._activations(number, reply, len(part), f"the {split} rows")
                            for number, reply in enumerate(replies)
                        ]
                    )
                )
        return torch.cat(logits)

    def _learn(
        self, activations: list[Tensor], rows: Tensor, step: int
    ) -> tuple[float, list[Tensor]]:
        """Step the top model; return the summed loss and dl_i/dH_i^k for each party."""
        labels = self.labels_of(rows)
        if isinstance(self.top, SumTop):
            # The gradient of a sum is that of each of its terms, and there is nothing to train.
            scores = self.top(activations).requires_grad_()
            loss = functional.cross_entropy(scores, labels, reduction="sum")
            gradient = torch.autograd.grad(loss, scores)
            return float(loss.detach()), [*gradient] * len(activations)
        leaves = [activation.requires_grad_() for activation in activations]
        sent: list[Tensor] = []
        first = 0.0
        for local_step in range(self.local_steps if self._parameters else 1):
            # Draws of our own (dropout), and everybody else's generator as it was.
            before = torch.get_rng_state()
            torch.default_generator.manual_seed(self._seed + step * self.local_steps + local_step)
            try:
                logits = self.top(leaves)
            finally:
                torch.set_rng_state(before)
            # Summed: the gradient of a row does not depend on the size of its batch.
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            along = torch.autograd.grad(loss, [*leaves, *self._parameters])
            if local_step == 0:
                first, sent = float(loss.detach()), list(along[: len(leaves)])
            if self._parameters:
                with torch.no_grad():
                    torch._foreach_add_(
                        self._parameters,
                        along[len(leaves) :],
                        alpha=-self.learning_rate / len(rows),
                    )
        return first, sent

    def _defend(self, gradients: list[Tensor], rows: Tensor, step: int) -> list[Tensor]:
        if not self.defenses:
            return gradients
        defended = []
        for party, gradient in enumerate(gradients):
            seed = np.random.SeedSequence([self.seed, 33, step, party])
            generator = torch.Generator().manual_seed(_integer(seed))
            for defense in self.defenses:
                gradient = defense.defend(
                    gradient, rows, party=party, num_rows=len(self.labels), generator=generator
                )
            defended.append(gradient)
        return defended

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
        following = b"" if rows is None else rows.numpy().tobytes()
        contents = []
        for party in range(len(self.parties)):
            batch = ConfigRecord()
            if rows is not None:
                batch["rows"] = following
            if gradients is not None:
                batch["gradient"] = gradients[party].numpy().tobytes()
            report.bytes += len(following) + (
                0 if gradients is None else 4 * gradients[party].numel()
            )
            contents.append(RecordDict({"batch": batch}))
        where = self._where(epoch, number)
        replies = self._ask(grid, "train", contents, where)
        report.round_trips += 1
        if rows is None:
            report.reports = {party: _metrics(reply) for party, reply in enumerate(replies)}
            return []
        activations = []
        for party, reply in enumerate(replies):
            activations.append(self._activations(party, reply, len(rows), where))
            report.bytes += 4 * activations[-1].numel()
        return activations

    def _ask(
        self,
        grid: Grid,
        message_type: str,
        contents: list[RecordDict],
        where: str,
    ) -> list[RecordDict]:
        """Send each party its content; return the contents of the answers, by party."""
        messages = [
            Message(content, party.node, message_type)
            for party, content in zip(self.parties, contents, strict=True)
        ]
        answers = ask(grid, messages, self.timeout)
        replies = []
        for number, party in enumerate(self.parties):
            reply = answers.get(party.node)
            if reply is None:
                raise ProtocolError(
                    f"party {number}: no answer to {where} (it is gone, or took longer than "
                    f"{self.timeout:g} s)"
                )
            if reply.has_error() or not reply.has_content():
                reason = reply.error.reason if reply.has_error() else "an answer without content"
                raise ProtocolError(f"party {number}: failed at {where}: {line(reason)}")
            replies.append(reply.content)
        return replies

    def _activations(self, number: int, content: RecordDict, rows: int, where: str) -> Tensor:
        """Read a party's activations as hostile input."""
        shape = (rows, self.parties[number].outputs)
        record = content.get("batch")
        received = record.get("activations") if isinstance(record, ConfigRecord) else None
        if not isinstance(received, bytes):
            raise ProtocolError(f"party {number}: no activations for {where}")
        if len(received) != 4 * shape[0] * shape[1]:
            raise ProtocolError(
                f"party {number}: {len(received)} bytes of activations for {where}, allowed are "
                f"{4 * shape[0] * shape[1]}, float32 of shape {shape}"
            )
        values = np.frombuffer(received, np.float32).reshape(shape)
        if not np.isfinite(values).all():
            raise ProtocolError(
                f"party {number}: activations are not finite for {where} (hostile, or the "
                "training has diverged)"
            )
        return torch.from_numpy(values.copy())


def _metrics(content: RecordDict) -> dict[str, float]:
    """Read the metrics that a party reports, as far as they are finite numbers."""
    metrics: dict[str, float] = {}
    for record in content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, float) and math.isfinite(value):
                metrics[name] = value
    return metrics


def _by_owner(checkpoint: ArrayRecord) -> dict[str, dict[str, Array]]:
    """Undo the prefixes of `ActiveParty.checkpoint`."""
    parts: dict[str, dict[str, Array]] = {}
    for name, array in checkpoint.items():
        owner, _, rest = name.partition(".")
        if owner.startswith("party"):
            part, _, rest = rest.partition(".")
            owner = f"{owner}.{part}"
        parts.setdefault(owner, {})[rest] = array
    return parts


def _integer(seed: np.random.SeedSequence) -> int:
    return int(seed.generate_state(1, np.uint64)[0] >> 1)
