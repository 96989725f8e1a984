"""A passive party of split learning: features and a bottom model, no labels.

Liu, Yi, Chen 2020, *Backdoor attacks and defenses in feature-partitioned collaborative
learning*, https://arxiv.org/abs/2007.03608, Algorithm 1.
"""

import logging
import uuid
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore import log
from torch import Tensor, nn

from ..seat import CANNOT_ACT
from ..training import Seeded
from .attack import PartyAttack
from .state import STATE, FlatModel, found, read, version_of, write
from .wire import as_bytes, as_gradient, as_rows, as_tensor, field, reply_with, values_in


class PassiveParty:
    """Answer the active party: activations H^k for rows, updates for gradients.

    The answers to messages, by their type:

    ``query`` (enrol)
        Who this party is and which rows it holds, for the check of alignment.
    ``train.begin``
        Start from the initial model, or from the checkpoint in the message.
    ``train``
        ``batch`` holds ``gradient`` (b, m), the dl_i/dH_i^k of the rows asked for last, and
        ``rows`` (b',), the next rows; either may be missing. Steps along the first, answers
        ``activations`` (b', m) of the second. A message without rows ends an epoch and is
        answered by what the attack reports, ``cannot-act`` where it found nothing to do; an honest
        party has no metrics.
    ``evaluate``
        Activations of rows of the ``train`` or ``test`` split; of the triggered rows if asked.
    ``query.checkpoint``
        Model and memory, for a simulation that can be resumed: it tells the active party all, so
        `party_app` answers it only if asked to.

    Everything that outlives a message is kept in ``context.state``, because Flower may run the
    next one in another process. This object holds a live copy and uses it as long as it is
    the newest; otherwise the state is read and the pending activations are computed again.

    Parameters
    ----------
    model : torch.nn.Module
        Bottom model G_k: features (b, d) to activations H^k (b, m). Used by this party alone.
    train, test : Tensor of shape (N, d) and (M, d)
        Features of the rows, in the order that all parties agree on.
    party : int
        k, counted from 0.
    train_digest, test_digest : str
        Digest of the row ids in their order, made alike by all parties; compared at enrolment,
        which refuses empty ones.
    learning_rate : float (default: 0.01)
        eta of plain SGD (section 7.1).
    local_steps : int (default: 1)
        SGD steps for each gradient received; those after the first use a stale one (FedBCD,
        Liu et al. 2019).
    seed : int (default: 0)
        With ``party`` and the step it decides every draw: no global state is used.
    stamp : callable, optional
        Sets the trigger in a copy of rows (n, d). None: the trigger is not in this block.
    attack : PartyAttack, optional
        What this party does otherwise than an honest one. None: nothing.

    Raises
    ------
    ValueError
        If the model has nothing to train or the attack cannot act on it; if a message does not
        fit: a gradient of another shape, rows outside the split.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Tensor,
        test: Tensor,
        *,
        party: int,
        train_digest: str = "",
        test_digest: str = "",
        learning_rate: float = 0.01,
        local_steps: int = 1,
        seed: int = 0,
        stamp: Callable[[Tensor], Tensor] | None = None,
        attack: PartyAttack | None = None,
    ) -> None:
        self.model = model
        self.features = {"train": train, "test": test}
        self.digests = {"train": train_digest, "test": test_digest}
        self.party = party
        self.learning_rate = learning_rate
        self.local_steps = local_steps
        self.seed = seed
        self.stamp = stamp
        self._counts = {split: len(features) for split, features in self.features.items()}
        self._flat = FlatModel(model)
        self.parameters = self._flat.trained
        """What is trained of the model, views of one piece of memory: change them in place."""
        sequence = np.random.SeedSequence([seed, 41, party])
        self._seeds = [int(word >> 2) for word in sequence.generate_state(3, np.uint64)]
        self._run = self._version = ""
        self._said: set[str] = set()
        self.step = 0
        """Train messages so far."""
        self._rows: Tensor | None = None
        self._activations: Tensor | None = None
        self.attack = PartyAttack() if attack is None else attack
        self.attack.join(self)

    def app(self) -> ClientApp:
        """Return a ClientApp in which this party answers every message but `checkpoint`."""
        return party_app(lambda message, context: self)  # noqa: ARG005

    def draw(self, stream: int) -> int:
        """Derive a seed for the current step; each purpose takes a stream of its own.

        Stream 0 is for the model's own draws, 1 for the activations that an attack sends, 2 for
        its training.
        """
        return self._seeds[stream] + self.step

    def enrol(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Tell which rows this party holds, and the size of its activations."""
        record = ConfigRecord({"party": self.party})
        for split, count in self._counts.items():
            record[f"{split}-rows"] = count
            record[f"{split}-digest"] = self.digests[split]
        self.model.eval()
        with torch.inference_mode():
            record["outputs"] = self.model(self.features["train"][:1]).shape[1]
        return Message(RecordDict({"enrolment": record}), reply_to=message)

    def begin(self, message: Message, context: Context) -> Message:
        """Start a training: forget what was learned, or take up a checkpoint."""
        step = int(str(field(values_in(message.content, "config"), "step")))
        records = message.content.array_records
        self._version = ""  # until it is saved: what fails halfway must not be gone on with
        if "model" in records:
            try:
                self.model.load_state_dict(records["model"].to_torch_state_dict())
            except RuntimeError as error:
                text = " ".join(str(error).split())
                raise ValueError(f"the checkpoint is of another model: {text}") from error
        else:
            self._flat.reset()
        memory = records.get("memory") or ArrayRecord()
        self.attack.memory = {n: torch.from_numpy(a.numpy().copy()) for n, a in memory.items()}
        self.step = step
        self._rows = self._activations = None
        self._run = uuid.uuid4().hex
        record = ConfigRecord()
        self._save(record, b"")
        context.state[STATE] = record
        return Message(RecordDict(), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        """Step along the gradient of the last rows and compute the activations of the next."""
        record = self._wake(context)
        batch = values_in(message.content, "batch")
        rows, received = None, b""
        if "rows" in batch:
            received = as_bytes(batch["rows"])
            rows = as_rows(received, "train", self._counts["train"])
        self._version = ""  # until it is saved again: what fails halfway must not be gone on with
        if "gradient" in batch:
            self._update(as_bytes(batch["gradient"]))
        self.step += 1
        self._rows, self._activations = rows, None
        if rows is None:
            with Seeded(self.draw(2)):
                self.attack.train_hook()
            self._save(record, received)
            metrics = MetricRecord({**self.attack.report()})
            if why := self.attack.idle():
                metrics[CANNOT_ACT] = 1.0
                self._warn(f"{type(self.attack).__name__} cannot act: {why}")
            return Message(RecordDict({"report": metrics}), reply_to=message)
        # Before the forward pass, which may move buffers and can be repeated.
        self._save(record, received)
        self._activations = self._forward(rows)
        sent = self.attack.poison_activations(rows, self._activations.detach())
        return reply_with(message, sent)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Compute the activations of rows, without learning from them."""
        self._wake(context)
        batch = values_in(message.content, "batch")
        split = str(field(batch, "split"))
        if split not in self.features:
            raise ValueError(f"split {split!r:.40} is not train or test")
        rows = as_rows(as_bytes(field(batch, "rows")), split, self._counts[split])
        features, triggered = self.features[split][rows], bool(field(batch, "triggered"))
        if triggered and self.stamp is not None:
            features = self.stamp(features)
        self.model.eval()
        with torch.inference_mode():
            activations = self.model(features)
            if triggered:
                activations = self.attack.trigger_activations(activations)
            return reply_with(message, activations)

    def checkpoint(self, message: Message, context: Context) -> Message:
        """Hand out model and memory."""
        self._wake(context)
        content = RecordDict({"model": ArrayRecord(self.model.state_dict())})
        memory = self.attack.memory.items()
        content["memory"] = ArrayRecord({n: Array(t.detach().numpy()) for n, t in memory})
        return Message(content, reply_to=message)

    def _update(self, received: bytes) -> None:
        rows, activations = self._rows, self._activations
        if rows is None or activations is None:
            raise ValueError("a gradient arrived, but no rows are pending")
        gradient = as_gradient(received, activations)
        self.attack.record(rows, activations, gradient)
        gradient = self.attack.poison_gradient(rows, gradient)
        for step in range(self.local_steps):
            if step:
                activations = self._forward(rows)
            along = self.attack.parameter_gradients(rows, activations, gradient)
            alpha = -self.learning_rate / len(rows)
            torch._foreach_add_(self._flat.values, along, alpha=alpha)

    def _forward(self, rows: Tensor) -> Tensor:
        with Seeded(self.draw(0)):
            if not self.model.training:  # walking the modules costs as much as the forward pass
                self.model.train()
            activations: Tensor = self.model(self.features["train"].index_select(0, rows))
        return activations

    def _warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log(logging.WARNING, "%s", text)

    def _wake(self, context: Context) -> ConfigRecord:
        """Make the live copy the newest; return where it is kept."""
        record = found(context.state)
        if version_of(record) != self._version:
            self._version = ""  # until all of it is here
            version, rows, model, self.attack.memory = read(record)
            self._run, _, step = version.partition(":")
            self.step = int(step)
            self._flat.unpack(model)
            self._rows = as_tensor(rows, torch.int64) if rows else None
            self._activations = None if self._rows is None else self._forward(self._rows)
            self._version = version
        return record

    def _save(self, record: ConfigRecord, rows: bytes) -> None:
        version = f"{self._run}:{self.step}"
        write(record, version, rows, self._flat.pack(), self.attack.memory)
        self._version = version


def party_app(
    choose: Callable[[Message, Context], PassiveParty], *, checkpoints: bool = False
) -> ClientApp:
    """Build a ClientApp whose messages are answered by the party that ``choose`` returns.

    Parameters
    ----------
    choose : callable of (Message, Context)
        Returns the party of a node.
    checkpoints : bool (default: False)
        Hand the model out to an active party that asks for it, as simulations do to resume.
    """
    app = ClientApp()
    app.query()(lambda message, context: choose(message, context).enrol(message, context))
    if checkpoints:
        app.query("checkpoint")(
            lambda message, context: choose(message, context).checkpoint(message, context)
        )
    app.train("begin")(lambda message, context: choose(message, context).begin(message, context))
    app.train()(lambda message, context: choose(message, context).train(message, context))
    app.evaluate()(lambda message, context: choose(message, context).evaluate(message, context))
    return app
