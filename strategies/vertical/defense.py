"""What the active party does about attacks: hooks, all of them honest."""

from collections.abc import Sequence

from torch import Generator, Tensor, nn


class VerticalDefense(nn.Module):
    """Change nothing; a defense overrides the hooks in which it does.

    Several defenses are applied one after the other, each to what the one before returned.
    Modules and parameters of a defense (it is a `torch.nn.Module`) are trained with the top
    model, by the same loss, learning rate and local steps, unless they do not require a gradient.
    PyTorch's default generator is seeded whenever `begin`, `receive` in training or `extra_loss`
    is called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[str, Tensor] = {}
        """With modules, parameters and buffers all that is kept in checkpoints."""

    def begin(self, labels: Tensor, outputs: Sequence[int]) -> None:
        """Start a training: build all that the defense learns or remembers, anew each time.

        A training that is resumed begins too, and then gets what the checkpoint holds.

        Parameters
        ----------
        labels : Tensor of shape (N,)
            Classes of the train rows.
        outputs : sequence of int
            m_k of each passive party, and then of the active party if it has features.

        Raises
        ------
        ValueError
            If the defense cannot act in this setting, naming what is allowed.
        """

    def labels(self, labels: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return what train rows (b,) are trained towards.

        Parameters
        ----------
        labels : Tensor of shape (b,) or (b, C)
            Their classes, int64; probabilities if a defense before made some of them.
        rows : Tensor of shape (b,)
            Which rows they are.

        Returns
        -------
        Tensor of shape (b,) or (b, C)
            Classes, int64, or probabilities of each class, float32.
        """
        return labels

    def receive(
        self,
        activations: list[Tensor],
        rows: Tensor,  # noqa: ARG002
        *,
        training: bool,  # noqa: ARG002
    ) -> list[Tensor]:
        """Return what the top model gets, in training and at inference.

        In training the gradients that the parties get are those of their own activations: through
        whatever this does, as far as autograd can follow it.

        Parameters
        ----------
        activations : list of Tensor of shape (b, m_k)
            Of each passive party, and then of the active party if it has features.
        rows : Tensor of shape (b,)
            Rows of the train split in training, else of the split that is predicted.
        training : bool
            Whether the model learns from these rows.
        """
        return activations

    def extra_loss(
        self,
        activations: list[Tensor],  # noqa: ARG002
        logits: Tensor,  # noqa: ARG002
        labels: Tensor,  # noqa: ARG002
    ) -> Tensor | None:
        """Return a term to add to the training loss: the sum of the rows' terms, or None.

        Parameters
        ----------
        activations : list of Tensor of shape (b, m_k)
            As they came, before `receive`.
        logits : Tensor of shape (b, C)
            What the top model made of them.
        labels : Tensor of shape (b,) or (b, C)
            What the rows are trained towards.
        """
        return None

    def decode(self, logits: Tensor) -> Tensor:
        """Return the logits (b, C) of a prediction, where `labels` made the model learn others.

        What the last defense learned towards is decoded first.
        """
        return logits

    def send(
        self,
        gradient: Tensor,
        rows: Tensor,  # noqa: ARG002
        *,
        party: int,  # noqa: ARG002
        generator: Generator,  # noqa: ARG002
    ) -> Tensor:
        """Return the gradient to send to a passive party.

        Parameters
        ----------
        gradient : Tensor of shape (b, m)
            dl_i/dH_i^k of each row; it is not changed.
        rows : Tensor of shape (b,)
            Which of the train rows they belong to.
        party : int
            k.
        generator : torch.Generator
            Draws of this step and party.
        """
        return gradient
