"""Constrain-and-scale [Bagdasaryan et al., 2020]."""

from dataclasses import dataclass

from torch import Tensor, nn

from ..seat import Seat
from .model_replacement import ModelReplacement


def anomaly_loss(model: nn.Module, received: dict[str, Tensor]) -> Tensor:
    """Return ``||w - G||^2`` over all parameters: L_ano of an Lp distance, with a gradient."""
    steps = [p - received[n] for n, p in model.named_parameters() if n in received]
    return sum((step.square().sum() for step in steps), start=steps[0].new_zeros(()))


@dataclass(kw_only=True)
class ConstrainAndScale(ModelReplacement):
    """Train on poisoned data near the model received, then scale the update.

    Bagdasaryan et al. 2020, "How To Backdoor Federated Learning":
    ``L_model = alpha L_class + (1 - alpha) L_ano``, and ``G + gamma (L - G)`` is sent. L_ano is
    whatever the server may look at; here the squared Euclidean distance to the global model. The
    authors' code takes the distance itself, which has no gradient where training begins. FLPoison
    computes it outside of the graph, so that only the scaling is left.

    *Knows* what it trained itself, n and P; assumes a server that judges updates by their length.
    *Cost*: a pass over d parameters a step. *Known weaknesses*: what is sent is gamma times as
    long as what was kept short.

    Attributes
    ----------
    alpha : float
        Weight of the classification, above 0 and at most 1; with 1 it is `ModelReplacement`.
    factor : float, optional
        gamma, as for `ModelReplacement`.

    Raises
    ------
    ValueError
        If alpha or the factor is out of range.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: allowed is more than 0, at most 1")

    def loss(self, model: nn.Module, inputs: Tensor, labels: Tensor, seat: Seat) -> Tensor:
        """Weigh the loss of the attack carried against the distance."""
        own = super().loss(model, inputs, labels, seat)
        return self.alpha * own + (1 - self.alpha) * anomaly_loss(model, seat.received)
