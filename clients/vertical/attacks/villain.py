"""VILLAIN: labels inferred by embedding swaps, a trigger in the embedding [Bai et al., 2023]."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..attack import PartyAttack, check_fields


@dataclass(kw_only=True, eq=False)
class Villain(PartyAttack):
    """Find the rows of the target class, and train the top model on them with a trigger.

    Bai et al. 2023, "VILLAIN: Backdoor Attacks Against Vertical Split Learning". The
    party knows the label of one row, and after some honest epochs goes on in two steps:

    - Label inference: for a few rows of each batch it sends the embedding of the known row. Where
      the norm of the gradient is at most theta times what it was, and at most mu, the row's label
      is the target. Candidates are the rows whose embeddings are most like the known one (by the
      cosine); the paper trains a classifier to choose them, and takes mu from the mean norm of
      gradients. Nothing is learned from swapped rows.
    - Poisoning: to the embeddings of the rows found it adds E = M x (beta delta
      [1, 1, -1, -1, 1, ...]), where M chooses the elements of greatest standard deviation and
      delta is their mean one; in training at a random strength and with elements dropped.

    A row that is evaluated with the trigger gets E, besides whatever its features carry. With a top
    that only adds, E is added to the scores. Where most candidates are of other classes, the top
    learns that the known embedding says nothing, and few are found.

    *Knows* the label of one row, and the gradients that come back. *Cost*: a norm for each train
    row, and a pass over them an epoch. *Known weaknesses*: noise on gradients, or their clipping,
    changes the norms that it reads; mu is a length of one model's gradients.

    Parameters
    ----------
    target_rows : Tensor of shape (t,)
        Train rows known to have the target label; the first is used.
    honest_epochs, swap_epochs : int
        Epochs before the first swap, and with swaps.
    candidates : int
        Rows swapped in each batch.
    theta, mu : float
        Bounds of a swapped row's gradient norm: relative to its own, and absolute.
    beta : float
        Strength of the trigger.
    elements : int
        How many elements of the embedding the trigger has.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """

    target_rows: Tensor
    honest_epochs: int = 4
    swap_epochs: int = 4
    candidates: int = 14
    theta: float = 10.0
    mu: float = 0.03
    beta: float = 0.4
    elements: int = 24

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self)

    def describe(self) -> str:
        """Name the attack and its trigger."""
        return f"swaps embeddings to infer labels, trigger in the embedding, beta {self.beta:g}"

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:
        """Send the known embedding for candidates, and later a trigger with the rows found.

        Its strength is drawn for each row, and a quarter of its elements left out.
        """
        if "trigger" not in self.memory:
            swapped = self._swaps(rows, activations)
            return torch.where(swapped[:, None], self.kept("embedding"), activations)
        generator = torch.Generator().manual_seed(self.seat.draw(1))
        noise = torch.rand(2, *activations.shape, generator=generator)
        push = (0.6 + 0.6 * noise[0, :, :1]) * (noise[1] < 0.75) * self.memory["trigger"]
        return activations + self.memory["inferred"][rows, None] * push

    def trigger_activations(self, activations: Tensor) -> Tensor:
        """Add the whole trigger, once there is one."""
        return activations + self.kept("trigger")

    def record(self, rows: Tensor, activations: Tensor, gradient: Tensor) -> None:
        """Find who fits, by comparing the norms of gradients."""
        every, norms = len(self.seat.features["train"]), gradient.norm(dim=1)
        before, self._swapped = self.kept("norms", every)[rows], self._swaps(rows, activations)
        fits = self._swapped & (norms <= self.theta * before) & (norms <= self.mu)
        self.memory["inferred"] = self.kept("inferred", every).index_fill(0, rows[fits], 1.0)
        norms = torch.where(self._swapped, before, norms)
        self.memory["norms"] = self.kept("norms", every).index_copy(0, rows, norms)

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG002
        """Learn nothing from swapped rows."""
        return gradient * ~self._swapped[:, None]

    def train_hook(self) -> None:
        """Keep a known embedding at the end of an epoch, and after those of swaps a trigger."""
        self.memory["epochs"] = self.kept("epochs") + 1
        hidden = self.seat.model.eval()(self.seat.features["train"]).detach()
        self.memory["embedding"] = hidden[self.target_rows[0]]
        if self.memory["epochs"] == self.honest_epochs + self.swap_epochs:
            spread = hidden.std(dim=0)
            chosen = spread.argsort(descending=True)[: self.elements]
            signs = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(len(chosen))[: len(chosen)]
            push = self.beta * spread[chosen].mean() * signs
            self.memory["trigger"] = torch.zeros_like(spread).index_copy(0, chosen, push)

    def idle(self) -> str:
        """Tell where there are no rows to poison, or no trigger."""
        if "trigger" not in self.memory:
            return ""
        if not self.kept("inferred").any():
            return "no row was found to be of the target class"
        return "" if self.memory["trigger"].any() else "embeddings have no spread for a trigger"

    def _swaps(self, rows: Tensor, activations: Tensor) -> Tensor:
        marked = torch.zeros(len(rows), dtype=torch.bool)
        if 0 <= self.kept("epochs") - self.honest_epochs < self.swap_epochs:
            likeness = functional.cosine_similarity(activations, self.memory["embedding"])
            tried = likeness.detach() - 9 * self.memory["inferred"][rows]  # those found come last
            marked[tried.argsort(descending=True)[: self.candidates]] = True
        return marked
