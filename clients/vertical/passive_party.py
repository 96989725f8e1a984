"""A passive party of split learning: features and a bottom model, no labels.

Liu, Yi, Chen 2020, *Backdoor attacks and defenses in feature-partitioned collaborative
learning*, https://arxiv.org/abs/2007.03608, Algorithm 1.
"""

import uuid
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

STATE = "passive-party"
"""Key of the record that a party keeps in ``context.state``."""


class PassiveParty:
    """Answer the active party honestly: activations H^k for rows, updates for gradients.

    The answers to messages, by their type:

    ``query`` (enrol)
        Who this party is and which rows it holds, for the check of alignment.
    ``train.begin``
        Start from the initial model, or from the checkpoint in the message.
    ``train``
        ``batch`` holds ``gradient`` (b, m), the dl_i/dH_i^k of the rows asked for last, and
        ``rows`` (b',), the next rows; either may be missing. Steps along the first, answers
        ``activations`` (b', m) of the second. A message without rows ends an epoch and is
        answered by `report`.
    ``evaluate``
        Activations of rows of the ``train`` or ``test`` split; of the triggered rows if asked.
    ``query.checkpoint``
        Model and memory, for a simulation that can be resumed: it tells the active party all, so
        `party_app` answers it only if asked to.

    Rows travel as bytes of int64, gradients and activations as bytes of float32: a minibatch
    is so little work that Flower's array records would take as long as the training.

    Everything that outlives a message is kept in ``context.state``, because Flower may run the
    next one in another process. This object holds a live copy and uses it as long as it is
    the newest; otherwise the state is read and the pending activations are computed again.

    An attacker overrides `poison_gradient` or `poison_activations`.

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

    Raises
    ------
    ValueError
        If a message does not fit: a gradient of another shape, rows outside the split.
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
    ) -> None:
        self.model = model
        self.features = {"train": train, "test": test}
        self.digests = {"train": train_digest, "test": test_digest}
        self.party = party
        self.learning_rate = learning_rate
        self.local_steps = local_steps
        self.seed = seed
        self.stamp = stamp
        self.memory: dict[str, Tensor] = {}
        """Vectors of float32 that an attacker keeps from one message to the next."""
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._buffers = list(model.buffers())
        every = list(model.parameters())
        if not self.parameters or {p.dtype for p in every} != {torch.float32}:
            raise ValueError("a bottom model needs parameters to train, and all of them float32")
        # One piece of memory for all parameters, since it is written for every message.
        self._vector = torch.cat([p.detach().reshape(-1) for p in every])
        parts = torch.split(self._vector, [p.numel() for p in every])
        for parameter, part in zip(every, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        self._initial = self._vector.clone(), [buffer.clone() for buffer in self._buffers]
        sequence = np.random.SeedSequence([seed, 41, party])
        self._seeds = [int(word >> 2) for word in sequence.generate_state(2, np.uint64)]
        self._run = self._version = ""
        self._step = 0
        self._rows: Tensor | None = None
        self._activations: Tensor | None = None

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient (b, m) to step along: honest parties use what they receive."""
        return gradient

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:  # noqa: ARG002
        """Return the activations (b, m) to send: honest parties send their own."""
        return activations

    def parameter_gradients(
        self,
        rows: Tensor,  # noqa: ARG002
        activations: Tensor,
        gradient: Tensor,
    ) -> list[Tensor]:
        """Return the sum over rows of dl_i/dH_i^k times dH_i^k/dtheta_k (Eq. 5), one a parameter.

        Parameters
        ----------
        rows : Tensor of shape (b,)
            Which rows they are.
        activations : Tensor of shape (b, m)
            H^k of the rows, with its graph.
        gradient : Tensor of shape (b, m)
            dl_i/dH_i^k, poisoned or not.
        """
        return list(
            torch.autograd.grad(activations, self.parameters, gradient, materialize_grads=True)
        )

    def report(self) -> dict[str, float]:
        """Return metrics of the epoch for the log of a simulation; honest parties have none."""
        return {}

    def app(self) -> ClientApp:
        """Return a ClientApp in which this party answers every message but `checkpoint`."""
        return party_app(lambda message, context: self)  # noqa: ARG005

    def enrol(self, message: Message, context: Context) -> Message:  # noqa: ARG002
        """Tell which rows this party holds, and the size of its activations."""
        record = ConfigRecord({"party": self.party})
        for split, features in self.features.items():
            record[f"{split}-rows"] = len(features)
            record[f"{split}-digest"] = self.digests[split]
        self.model.eval()
        with torch.inference_mode():
            record["outputs"] = self.model(self.features["train"][:1]).shape[1]
        return Message(RecordDict({"enrolment": record}), reply_to=message)

    def begin(self, message: Message, context: Context) -> Message:
        """Start a training: forget what was learned, or take up a checkpoint."""
        step = int(str(_field(_config(message.content, "config"), "step")))
        records = message.content.array_records
        self._version = ""  # until it is saved: what fails halfway must not be gone on with
        if "model" in records:
            try:
                self.model.load_state_dict(records["model"].to_torch_state_dict())
            except RuntimeError as error:
                text = " ".join(str(error).split())
                raise ValueError(f"the checkpoint is of another model: {text}") from error
        else:
            self._load(*self._initial)
        memory = records.get("memory") or ArrayRecord()
        self.memory = {name: torch.from_numpy(a.numpy().copy()) for name, a in memory.items()}
        self._step = step
        self._rows = self._activations = None
        self._run = uuid.uuid4().hex
        context.state[STATE] = ConfigRecord()
        self._save(context)
        return Message(RecordDict(), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        """Step along the gradient of the last rows and compute the activations of the next."""
        self._wake(context)
        batch = _config(message.content, "batch")
        rows = self._checked(_bytes(batch["rows"]), "train") if "rows" in batch else None
        self._version = ""  # until it is saved again: what fails halfway must not be gone on with
        if "gradient" in batch:
            self._update(_bytes(batch["gradient"]))
        self._step += 1
        self._rows, self._activations = rows, None
        if rows is None:
            self._save(context)
            metrics = MetricRecord({**self.report()})
            return Message(RecordDict({"report": metrics}), reply_to=message)
        self._save(context)  # before the forward pass, which may move buffers and is repeatable
        self._activations = self._forward(rows)
        sent = self.poison_activations(rows, self._activations.detach())
        return _reply(message, sent)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Compute the activations of rows, without learning from them."""
        self._wake(context)
        batch = _config(message.content, "batch")
        split = str(_field(batch, "split"))
        rows = self._checked(_bytes(_field(batch, "rows")), split)
        features = self.features[split][rows]
        if _field(batch, "triggered") and self.stamp is not None:
            features = self.stamp(features)
        self.model.eval()
        with torch.inference_mode():
            return _reply(message, self.model(features))

    def checkpoint(self, message: Message, context: Context) -> Message:
        """Hand out model and memory."""
        self._wake(context)
        content = RecordDict({"model": ArrayRecord(self.model.state_dict())})
        content["memory"] = ArrayRecord({n: Array(t.numpy()) for n, t in self.memory.items()})
        return Message(content, reply_to=message)

    def _update(self, received: bytes) -> None:
        rows, activations = self._rows, self._activations
        if rows is None or activations is None:
            raise ValueError("a gradient arrived, but no rows are pending")
        if len(received) != 4 * activations.numel():
            raise ValueError(
                f"the gradient has {len(received)} bytes, not 4 for each of the "
                f"{tuple(activations.shape)} activations"
            )
        gradient = _tensor(received, torch.float32).reshape(activations.shape)
        gradient = self.poison_gradient(rows, gradient)
        for step in range(self.local_steps):
            if step:
                activations = self._forward(rows)
            along = self.parameter_gradients(rows, activations, gradient)
            with torch.no_grad():
                alpha = -self.learning_rate / len(rows)
                torch._foreach_add_(self.parameters, along, alpha=alpha)

    def _forward(self, rows: Tensor) -> Tensor:
        # Own draws for dropout, and everybody else's generator as it was.
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(self.draw(0))
        try:
            if not self.model.training:  # walking the modules costs as much as the forward pass
                self.model.train()
            activations: Tensor = self.model(self.features["train"].index_select(0, rows))
        finally:
            torch.set_rng_state(before)
        return activations

    def draw(self, stream: int) -> int:
        """Derive a seed for the current step; each purpose takes a stream of its own."""
        return self._seeds[stream] + self._step

    def _checked(self, received: bytes, split: str) -> Tensor:
        if split not in self.features:
            raise ValueError(f"split {split!r:.40} is not train or test")
        if not received or len(received) % 8:
            raise ValueError(f"rows have {len(received)} bytes, not 8 for each row")
        count = len(self.features[split])
        if np.frombuffer(received, np.uint64).max() >= count:  # negative ones are immense
            raise ValueError(f"rows outside the {count} of the {split} split")
        return _tensor(received, torch.int64)

    def _wake(self, context: Context) -> None:
        """Make the live copy the newest."""
        if STATE not in context.state:
            raise ValueError("training has not begun: no train.begin message came before")
        state = _config(context.state, STATE)
        if state["version"] == self._version:
            return
        version = str(state["version"])
        self._version = ""  # until all of it is here
        self._run, _, step = version.partition(":")
        self._step = int(step)
        buffers = [
            _tensor(_bytes(state[f"buffer.{i}"]), buffer.dtype).reshape(buffer.shape)
            for i, buffer in enumerate(self._buffers)
        ]
        self._load(_tensor(_bytes(state["model"]), torch.float32), buffers)
        self.memory = {
            name.removeprefix("memory."): _tensor(_bytes(value), torch.float32)
            for name, value in state.items()
            if name.startswith("memory.")
        }
        rows = _bytes(state["rows"])
        self._rows = _tensor(rows, torch.int64) if rows else None
        self._activations = None if self._rows is None else self._forward(self._rows)
        self._version = version

    def _save(self, context: Context) -> None:
        state = _config(context.state, STATE)
        state["version"] = self._version = f"{self._run}:{self._step}"
        state["model"] = self._vector.numpy().tobytes()
        for i, buffer in enumerate(self._buffers):
            state[f"buffer.{i}"] = buffer.numpy().tobytes()
        state["rows"] = b"" if self._rows is None else self._rows.numpy().tobytes()
        for name, tensor in self.memory.items():
            if tensor.ndim != 1 or tensor.dtype != torch.float32:
                raise ValueError(f"memory {name} is no vector of float32")
            state[f"memory.{name}"] = tensor.numpy().tobytes()

    def _load(self, vector: Tensor, buffers: list[Tensor]) -> None:
        self._vector.copy_(vector)
        for buffer, value in zip(self._buffers, buffers, strict=True):
            buffer.copy_(value)


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


def _config(content: RecordDict, name: str) -> ConfigRecord:
    # content.config_records copies the dict first: too slow for every batch.
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise ValueError(f"{name}: a {type(record).__name__} where a ConfigRecord is expected")
    return record


def _field(record: ConfigRecord, name: str) -> object:
    if name not in record:
        raise ValueError(f"{name} is missing")
    return record[name]


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} where bytes are expected")
    return value


def _tensor(received: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(received), dtype=dtype) if received else torch.empty(0)


def _reply(message: Message, activations: Tensor) -> Message:
    record = ConfigRecord({"activations": activations.numpy().tobytes()})
    return Message(RecordDict({"batch": record}), reply_to=message)
