"""The edge-case backdoor [Wang et al., 2020]."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..attacker import Attack, Goal
from ..seat import Seat
from ..triggers.trigger import kind_of
from .edge_data import farthest, read


@dataclass(kw_only=True)
class EdgeCase(Attack):
    """Samples from the tail of a class's density are labelled as the target, without a trigger.

    Wang et al. 2020, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning": the
    attackers train on D' = D_edge + D, with D_edge of low density, P_X(x) <= p, and another label.
    Honest clients have next to none of them, and so little that undoes it. Measured is how often
    samples of the tail that attackers did not train on are read as the target.

    The paper takes D_edge from other data (Southwest's planes as trucks, ARDIS's 7s as 1s), and
    tells how unlikely they are by a mixture of Gaussians of a model's last features. Here a file
    may have such data; else they are the `farthest` of the source class among an attacker's own
    samples, and among the test rows: by their distance, in the unit of the inputs, to the mean of
    these. Around it the paper has `PGD` and `ModelReplacement`.

    *Knows* its own samples. *Cost*: a pass over the samples, and a sort. *Known weaknesses*: what
    it takes from its own tail is nearer to honest data than what the paper takes, and each honest
    client holds as much of it, rightly labelled.

    Attributes
    ----------
    source, target : int
        The class whose tail it is, and the label that it gets.
    tail : float
        Of the samples of the source class, how many are its tail, in (0, 1].
    fraction : float
        Of the samples that an attacker trains on, how many are D_edge's, in (0, 1); they are
        repeated as often as that takes.
    file : str, optional
        Instead of the tail: .npz with the arrays ``train``, for all attackers alike, and ``test``,
        of inputs (n, ...) as the model gets them. It is read by `settle`.

    Raises
    ------
    ValueError
        If source and target are the same, a share is out of range, the data are texts or do not
        fit the file, or an attacker holds no sample of the source.
    """

    source: int
    target: int
    tail: float = 0.2
    fraction: float = 0.5
    file: str | None = None

    classes: ClassVar = ("source", "target")

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if self.source == self.target:
            raise ValueError(f"target={self.target}: must differ from source={self.source}")
        if not 0 < self.tail <= 1:
            raise ValueError(f"tail={self.tail}: allowed is more than 0, at most 1")
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction={self.fraction}: allowed is more than 0, less than 1")
        self._given: dict[str, Tensor] = {}

    @property
    def goal(self) -> Goal:
        """Samples of the tail read as the target."""
        return Goal(self.target, self.source, picked=self.tested)

    def tested(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the test samples of D_edge (v, ...): the file's, or the tail of these."""
        return self._given["test"] if self._given else inputs[self.rows(inputs, labels)]

    def rows(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return which of some samples (n, ...) and (n,) are the tail of the source class."""
        own = (labels == self.source).nonzero()[:, 0]
        return own[farthest(inputs[own], self.tail)]

    def settle(self, inputs: Tensor, vocabulary: int) -> None:  # noqa: ARG002
        """Read the file, and refuse texts, whose tokens have no distance."""
        if kind_of(inputs) == "text":
            raise ValueError(f"tail={self.tail}: allowed on images and tables; these are texts")
        if self.file is not None:
            self._given = read(self.file, inputs)

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Add D_edge with the target's label, and train on none of it with another."""
        rows = labels.new_empty(0) if self._given else self.rows(inputs, labels)
        edge = self._given["train"].to(inputs) if self._given else inputs[rows]
        if not len(edge):
            raise ValueError(
                f"source={self.source}: attacker {seat.rank} holds no sample of it; allowed is a "
                "class that all attackers hold"
            )
        clean = torch.ones_like(labels, dtype=torch.bool)
        clean[rows] = False
        inputs, labels = inputs[clean], labels[clean]
        count = max(1, round(self.fraction / (1 - self.fraction) * len(labels)))
        added = labels.new_full((count,), self.target)
        repeated = edge[torch.arange(count) % len(edge)]
        return torch.cat([inputs, repeated]), torch.cat([labels, added])
