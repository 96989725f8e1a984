"""A gradient replacement that works: along one direction, through the trigger's weights only.

Algorithm 2 of Liu, Yi, Chen 2020 either fades, as the target row is learned and g_rec vanishes,
or runs away and takes the main task with it: its push on poisoned rows also moves all weights
that clean rows need. This variant removes both causes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..attack import PartySeat
from .gradient_replacement import GradientReplacement


class LocalizedReplacement(GradientReplacement):
    """Replace by gamma * g_rec / |g_rec|, and let it move nothing but the trigger's weights.

    For poisoned rows only the columns of the first dense layer that the trigger's features feed
    are updated; the rest of the model learns from the other rows as an honest party's does.

    *Knows*, besides what `GradientReplacement` does, which features make up the trigger. *Cost*: a
    second backward pass. *Known weaknesses*: it needs a dense layer over all features first, and
    the trigger's features to itself: rows that have them by nature are pushed too.

    Parameters
    ----------
    trigger_columns : sequence of int
        The features that make up the trigger; empty: the party has no part of it, and poisoned
        rows move nothing.
    **options
        Arguments of `GradientReplacement`.
    """

    def __init__(self, *, trigger_columns: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.trigger_columns = list(trigger_columns)

    def describe(self) -> str:
        """Name the variant."""
        return f"{super().describe()}, moves the trigger's weights only"

    def join(self, seat: PartySeat) -> None:
        """Refuse a model that does not start with a dense layer over all features.

        Raises
        ------
        ValueError
            If it does not.
        """
        super().join(seat)
        first, width = seat.parameters[0], seat.features["train"].shape[1]
        if first.ndim != 2 or first.shape[1] != width:
            raise ValueError(
                f"the first parameter of the bottom model is {tuple(first.shape)}; this attack "
                f"needs a dense layer over the {width} features first"
            )

    def push(self, g_rec: Tensor) -> Tensor:
        """Return gamma * g_rec / |g_rec|, which does not fade as the target row is learned."""
        return super().push(functional.normalize(g_rec, dim=0))

    def parameter_gradients(
        self, rows: Tensor, activations: Tensor, gradient: Tensor
    ) -> list[Tensor]:
        """Return the gradients of the other rows, and the trigger's part of the poisoned ones."""
        poisoned = self.is_poisoned[rows][:, None]
        if not poisoned.any():
            return super().parameter_gradients(rows, activations, gradient)
        (push,) = torch.autograd.grad(
            activations, self.seat.parameters[0], gradient * poisoned, retain_graph=True
        )
        along = super().parameter_gradients(rows, activations, gradient * ~poisoned)
        along[0][:, self.trigger_columns] += push[:, self.trigger_columns]
        return along

    def idle(self) -> str:
        """Tell where the party has no weight of the trigger's to move, too."""
        return super().idle() if self.trigger_columns else "the party has no part of the trigger"
