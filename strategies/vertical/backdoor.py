"""Backdoor by the active party itself: Liu, Yi, Chen 2020, section 5.2."""

from typing import Any

from torch import Tensor, nn

from .active_party import ActiveParty


class BackdoorActiveParty(ActiveParty):
    """Send dL^b/dH in place of dL/dH: triggered rows are trained as the target class.

    Parameters
    ----------
    top, labels
        As for `ActiveParty`.
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    target : int
        tau, the class that they shall get.
    **options
        Arguments of `ActiveParty`.
    """

    def __init__(
        self,
        top: nn.Module,
        labels: Tensor,
        *,
        poisoned_rows: Tensor,
        target: int,
        **options: Any,
    ) -> None:
        super().__init__(top, labels, **options)
        self._trained_labels = self.labels.index_fill(0, poisoned_rows, target)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the backdoor's labels."""
        return self._trained_labels.index_select(0, rows)
