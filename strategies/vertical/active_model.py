"""What the active party computes: top model, a bottom model of its own if it has features, loss.

Liu, Yi, Chen 2020, *Backdoor attacks and defenses in feature-partitioned collaborative
learning*, https://arxiv.org/abs/2007.03608, Eq. 4 and Algorithm 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn
from torch.nn import functional

from .defense import VerticalDefense
from .top_models import SumTop


class ActiveModel:
    """Learn from activations, and return the gradients for those who sent them.

    Parameters
    ----------
    top : torch.nn.Module
        Maps a list of activations to logits ``(b, C)``.
    defenses : sequence of VerticalDefense
        Applied in this order.
    bottom : torch.nn.Module, optional
        G_K: the active party's own features to activations, the last of the list.
    features : mapping from "train" and "test" to Tensor, optional
        Its own features, of shape (N, d) and (M, d).
    learning_rate, local_steps
        As for `ActiveParty`.
    seed : int
        Decides every draw.
    """

    def __init__(
        self,
        top: nn.Module,
        defenses: Sequence[VerticalDefense],
        *,
        bottom: nn.Module | None,
        features: Mapping[str, Tensor] | None,
        learning_rate: float,
        local_steps: int,
        seed: int,
    ) -> None:
        self.top = top
        self.defenses = list(defenses)
        self.bottom = bottom
        self.features = features
        self.learning_rate = learning_rate
        self.local_steps = local_steps
        self.seed = seed
        self._seed = integer(seed, 32) >> 1
        own = {"top": top} if bottom is None else {"top": top, "bottom": bottom}
        self._initial = _copied(nn.ModuleDict(own))
        self._whole = nn.ModuleDict(own | {f"module{i}": d for i, d in enumerate(defenses)})
        self._classes = 0
        self._parameters: list[Tensor] = []

    def begin(self, labels: Tensor, outputs: Sequence[int], checkpoint: ArrayRecord | None) -> None:
        """Start anew, or from what `state` returned.

        Parameters
        ----------
        labels : Tensor of shape (N,)
            Classes of the train rows.
        outputs : sequence of int
            m_k of the passive parties.
        checkpoint : ArrayRecord, optional
            Holds the arrays of `state`, others beside them.
        """
        self._classes = int(labels.max()) + 1
        if self.bottom is not None and self.features is not None:
            with torch.inference_mode():
                own = self.bottom.eval()(self.features["train"][:1])
            outputs = [*outputs, own.shape[1]]
        for place, defense in enumerate(self.defenses):
            defense.memory = {}
            with Seeded(integer(self.seed, 34, place)):
                defense.begin(labels, outputs)
        state = _copied(self._whole) | self._initial
        if checkpoint is not None:
            own = {name: array for name, array in checkpoint.items() if name in state}
            state = ArrayRecord(own).to_torch_state_dict()
            for place, defense in enumerate(self.defenses):
                memory = ArrayRecord(part_of(checkpoint, f"defense{place}."))
                defense.memory = dict(memory.to_torch_state_dict())
        self._whole.load_state_dict(state)
        self._whole.train()
        self._parameters = [p for p in self._whole.parameters() if p.requires_grad]

    def state(self) -> dict[str, Array]:
        """Return all that it consists of: modules, and what the defenses remember."""
        arrays = dict(ArrayRecord(self._whole.state_dict()).items())
        for place, defense in enumerate(self.defenses):
            for name, tensor in defense.memory.items():
                arrays[f"defense{place}.{name}"] = Array(tensor.numpy())
        return arrays

    def predict(self, activations: list[Tensor], rows: Tensor, split: str) -> Tensor:
        """Return the logits ``(b, C)`` of rows ``(b,)`` of a split."""
        self._whole.eval()
        with torch.inference_mode():
            logits: Tensor = self.top(
                self._received(self._joined(activations, rows, split), rows, training=False)
            )
            for defense in reversed(self.defenses):
                logits = defense.decode(logits)
        return logits

    def learn(
        self, activations: list[Tensor], rows: Tensor, labels: Tensor, step: int
    ) -> tuple[float, list[Tensor]]:
        """Step along the loss of train rows ``(b,)``.

        Returns
        -------
        float
            The loss, summed over the rows.
        list of Tensor of shape (b, m_k)
            dl_i/dH_i^k for each passive party.

        Raises
        ------
        ValueError
            If the top model does not return one logit a class.
        """
        if not self.top.training:  # walking the modules takes as long as a small top's forward pass
            self._whole.train()
        for defense in self.defenses:
            labels = defense.labels(labels, rows)
        if isinstance(self.top, SumTop) and self.bottom is None and not self.defenses:
            # The gradient of a sum is that of each of its terms, and there is nothing to train.
            scores = self.top(activations).requires_grad_()
            loss = self._loss(scores, labels)
            gradient = torch.autograd.grad(loss, scores)
            return float(loss.detach()), [*gradient] * len(activations)
        leaves = [activation.requires_grad_() for activation in activations]
        sent: list[Tensor] = []
        first = 0.0
        for local_step in range(self.local_steps if self._parameters else 1):
            with Seeded(self._seed + step * self.local_steps + local_step):
                joined = self._joined(leaves, rows, "train")
                logits = self.top(self._received(joined, rows, training=True))
                loss = self._loss(logits, labels)
                for defense in self.defenses:
                    extra = defense.extra_loss(joined, logits, labels)
                    loss = loss if extra is None else loss + extra
            every = [*leaves, *self._parameters]
            along = torch.autograd.grad(loss, every, materialize_grads=True)
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

    def defend(self, gradients: list[Tensor], rows: Tensor, step: int) -> list[Tensor]:
        """Return what is sent of the gradients, one ``(b, m_k)`` a passive party."""
        if not self.defenses:
            return gradients
        defended = []
        for party, gradient in enumerate(gradients):
            generator = torch.Generator().manual_seed(integer(self.seed, 33, step, party))
            for defense in self.defenses:
                gradient = defense.send(gradient, rows, party=party, generator=generator)
            defended.append(gradient)
        return defended

    def _joined(self, activations: list[Tensor], rows: Tensor, split: str) -> list[Tensor]:
        """Add the active party's own activations."""
        if self.bottom is None or self.features is None:
            return activations
        return [*activations, self.bottom(self.features[split][rows])]

    def _received(self, activations: list[Tensor], rows: Tensor, *, training: bool) -> list[Tensor]:
        for defense in self.defenses:
            activations = defense.receive(activations, rows, training=training)
        return activations

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.ndim != 2 or logits.shape[1] < self._classes:
            raise ValueError(
                f"top: returns logits of shape {tuple(logits.shape)}; a top model returns one "
                f"logit a class, for each row {self._classes} or more"
            )
        if labels.ndim == 2:  # scores beyond the classes are never a label
            labels = functional.pad(labels, (0, logits.shape[1] - labels.shape[1]))
        # Summed: the gradient of a row does not depend on the size of its batch.
        return functional.cross_entropy(logits, labels, reduction="sum")


def part_of(checkpoint: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin so, without that."""
    return {n.removeprefix(prefix): a for n, a in checkpoint.items() if n.startswith(prefix)}


def integer(*seeds: int) -> int:
    """Derive a seed of 63 bits."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


class Seeded:
    """Draw from a generator of one's own, and leave everybody else's as it was."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
