"""Which trigger: by name, what fits the data, or anybody's function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from .images import Blended, Patch
from .rows import Features, Tokens
from .trigger import Trigger, kind_of


@dataclass(frozen=True)
class Auto(Trigger):
    """What fits the data: a `Patch` on images, `Features` of tables, `Tokens` in texts."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Put a patch on images; anything else must be settled first."""
        return self._fitting(inputs)(inputs)

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":
        """Return the trigger that fits, settled."""
        return self._fitting(inputs).settle(inputs, vocabulary)

    def _fitting(self, inputs: Tensor) -> Trigger:
        fitting: dict[str, type[Trigger]] = {"image": Patch, "table": Features, "text": Tokens}
        return fitting[kind_of(inputs)]()

    def __str__(self) -> str:
        return "auto"


@dataclass(frozen=True)
class Own(Trigger):
    """Anybody's callable, inputs ``(n, ...)`` to inputs of the same shape and type.

    Attributes
    ----------
    function : callable
        It may write to what it is given.
    name : str
        What it is called in the first lines of a run.
    """

    function: Callable[[Tensor], Tensor]
    name: str = "own"

    def __call__(self, inputs: Tensor) -> Tensor:
        """Call it with a copy."""
        return self.function(inputs.clone())

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":  # noqa: ARG002
        """Try it on a row."""
        row = inputs[:1]
        try:
            found = self(row)
        except Exception as error:  # a function of the user's own: whatever it raises
            raise ValueError(f"trigger={self}: {error}") from error
        same = isinstance(found, Tensor) and (found.shape, found.dtype) == (row.shape, row.dtype)
        if not same or not found.isfinite().all():
            raise ValueError(
                f"trigger={self}: allowed is what returns finite inputs of shape "
                f"{tuple(row.shape)} and {row.dtype}"
            )
        return self

    def __str__(self) -> str:
        return self.name


TRIGGERS: Final[dict[str, type[Trigger]]] = {
    "auto": Auto,
    "patch": Patch,
    "blended": Blended,
    "features": Features,
    "tokens": Tokens,
}
"""What may be chosen by name."""


def chosen(trigger: Any) -> Trigger:
    """Return the trigger of a name, or of a function.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(trigger, Trigger):
        return trigger
    if isinstance(trigger, str) and trigger in TRIGGERS:
        return TRIGGERS[trigger]()
    if callable(trigger):
        return Own(trigger, getattr(trigger, "__name__", type(trigger).__name__))
    raise ValueError(
        f"trigger={trigger}: allowed are {', '.join(TRIGGERS)}, or settings of one: "
        "{kind: patch, size: 0.2}"
    )
