"""Bottom models of the passive parties."""

from torch import Tensor, nn

from strategies.checks import check_bool
from strategies.vertical.top_models import check_nodes, init_glorot


class DenseBottom(nn.Module):
    """A dense layer with ReLU and, if asked, a projection to class scores.

    Liu, Yi, Chen 2020, section 7.1: "an input layer and an output layer, the size of the output
    layer is set to be 32". Where activations are added, that can mean 32 nodes and a projection
    or, with neither ReLU nor projection, 32 scores of which the first C are classes. Weights are
    drawn from Glorot's uniform distribution, biases are 0: the defaults of TensorFlow 2, which
    the paper used.

    Parameters
    ----------
    features : int
        d_k, the size of the party's block.
    num_classes : int
        C, the size of the projection.
    hidden : int
        Nodes of the dense layer.
    projection : bool
        Whether to project to classes.
    relu : bool
        Whether the dense layer has its ReLU.
    seed : int
        Decides the weights.

    Raises
    ------
    ValueError
        If ``hidden`` is no integer of 1 to 65,536, or a switch is not True or False.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        hidden: int = 32,
        projection: bool = False,
        relu: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_nodes(hidden=hidden)
        check_bool(projection=projection, relu=relu)
        layers: list[nn.Module] = [nn.Linear(features, hidden)]
        if relu:
            layers.append(nn.ReLU())
        if projection:
            layers.append(nn.Linear(hidden, num_classes))
        self.layers = nn.Sequential(*layers)
        init_glorot(self.layers, seed)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(b, d_k)`` to activations H^k ``(b, m_k)``."""
        activations: Tensor = self.layers(features)
        return activations
