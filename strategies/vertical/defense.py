"""What every defense of the active party has in common."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor


class GradientDefense(ABC):
    """Changes the gradients before they are sent; several are applied one after the other."""

    def __init__(self) -> None:
        self.memory: dict[str, Tensor] = {}
        """What must be kept for a run to be resumed."""

    @abstractmethod
    def defend(
        self, gradient: Tensor, rows: Tensor, *, party: int, num_rows: int, generator: Generator
    ) -> Tensor:
        """Return the gradient to send to a party.

        Parameters
        ----------
        gradient : Tensor of shape (b, m)
            dl_i/dH_i^k of each row; it is not changed.
        rows : Tensor of shape (b,)
            Which of the train rows they belong to.
        party : int
            k.
        num_rows : int
            N, train rows in all.
        generator : torch.Generator
            Draws of this step and party.
        """
