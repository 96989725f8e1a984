"""Backdoor by gradient replacement: Liu, Yi, Chen 2020, section 5.3, Algorithms 2 and 3."""

import torch
from torch import Tensor

from ..attack import PartyAttack, PartySeat, check_least


class GradientReplacement(PartyAttack):
    """Make triggered rows look like the target class, knowing the label of one row or a few.

    *Knows* that label, which rows carry the trigger, and the gradients that come back. *Cost*: one
    row's gradient is kept, and a poisoned row's replaced. *Known weaknesses*: what it replaces by
    fades as the target row is learned, or runs away with a large gamma; and a top that trains
    learns what poisoned activations stand for.

    Parameters
    ----------
    target_rows : Tensor of shape (t,)
        D_target: train rows known to have the target label.
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    gamma : float
        The factor on the recorded gradient (Algorithm 2).
    blur_variance : float, optional
        Variance of the Gaussian vectors sent in place of the activations of poisoned rows
        (Algorithm 3; 1e-6 in section 7.1). None: send the activations.

    Raises
    ------
    ValueError
        If gamma or the variance is no number of 0 or more.
    """

    def __init__(
        self,
        *,
        target_rows: Tensor,
        poisoned_rows: Tensor,
        gamma: float = 10.0,
        blur_variance: float | None = None,
    ) -> None:
        super().__init__()
        check_least(0, gamma=gamma)
        if blur_variance is not None:
            check_least(0, blur_variance=blur_variance)
        self.target_rows = target_rows
        self.poisoned_rows = poisoned_rows
        self.gamma = gamma
        self.blur_variance = blur_variance

    def describe(self) -> str:
        """Name the algorithm and gamma."""
        blurred = "" if self.blur_variance is None else ", blurs activations"
        return f"replaces gradients, gamma {self.gamma:g}{blurred}"

    def join(self, seat: PartySeat) -> None:
        """Mark the rows among all of them."""
        super().join(seat)
        self._is_target = mask(self.target_rows, seat)
        self.is_poisoned = mask(self.poisoned_rows, seat)

    def push(self, g_rec: Tensor) -> Tensor:
        """Return what the gradient (m,) of a poisoned row becomes: gamma * g_rec."""
        return self.gamma * g_rec

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Replace the gradient of poisoned rows by gamma * g_rec (Algorithm 2).

        Rows are gone through in order. Before a target row has come up there is no g_rec, and
        poisoned rows keep their own gradient.
        """
        poisoned = gradient.clone()
        events = self._is_target[rows] | self.is_poisoned[rows]
        for place in events.nonzero().flatten().tolist():
            if self._is_target[rows[place]]:
                self.memory["g_rec"] = gradient[place].clone()
            if self.is_poisoned[rows[place]] and "g_rec" in self.memory:
                poisoned[place] = self.push(self.memory["g_rec"])
        return poisoned

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:
        """Send noise for poisoned rows in training (Algorithm 3), if asked to."""
        if self.blur_variance is None:
            return activations
        poisoned = self.is_poisoned[rows]
        generator = torch.Generator().manual_seed(self.seat.draw(1))
        noise = torch.randn(activations.shape, generator=generator) * self.blur_variance**0.5
        return torch.where(poisoned[:, None], noise, activations)

    def report(self) -> dict[str, float]:
        """Return the norm of g_rec, which vanishes as the target row is learned."""
        return {"g-rec-norm": float(self.memory["g_rec"].norm())} if "g_rec" in self.memory else {}

    def idle(self) -> str:
        """Tell where there is nothing to replace gradients by."""
        return "" if self.kept("g_rec").any() else "no gradient of a target row but 0 came back"


def mask(rows: Tensor, seat: PartySeat) -> Tensor:
    """Mark rows among all train rows of a party."""
    mask = torch.zeros(len(seat.features["train"]), dtype=torch.bool)
    mask[rows] = True
    return mask
