"""What a trigger is.

What inputs are is seen by their type and shape: integers ``(n, length)`` are texts of tokens,
numbers ``(n, features)`` a table, anything else images ``(n, ..., height, width)`` from 0 to 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

Kind = Literal["image", "table", "text"]


def kind_of(inputs: Tensor) -> Kind:
    """Tell what inputs ``(n, ...)`` are."""
    if inputs.ndim > 2:
        return "image"
    return "table" if inputs.is_floating_point() else "text"


@dataclass(frozen=True)
class Trigger:
    """A pure function of inputs ``(n, ...)``, which it leaves alone.

    Errors name its settings as ``trigger.NAME=value``.
    """

    on: ClassVar[Kind] = "image"
    """What inputs it is for."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return a copy of inputs with the trigger.

        Raises
        ------
        ValueError
            If it does not fit them.
        """
        raise NotImplementedError

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":  # noqa: ARG002
        """Return it with all that depends on data decided.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Of the training set: all rows, or at least one where they are images.
        vocabulary : int
            Of texts, how many different tokens there can be.

        Raises
        ------
        ValueError
            If it does not fit the data.
        """
        if kind_of(inputs) != self.on:
            name, found = type(self).__name__.lower(), kind_of(inputs)
            raise ValueError(
                f"trigger={name}: allowed on data of kind {self.on}; these are of {found}"
            )
        return self
