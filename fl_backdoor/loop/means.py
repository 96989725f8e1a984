"""What a rule may need of the app: to run models, inputs for them, and a training of its own."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from clients import HonestClient

from ..federation.horizontal import Federation
from ..federation.model import repeat_bits
from ..measure.answers import forward


class Means:
    """The server's own means, by the names that `strategies.Robust` has for them.

    Parameters
    ----------
    federation : Federation
        Data and model.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation

    def run_model(self, arrays: ArrayRecord, inputs: Any) -> NDArray[Any]:
        """Return the outputs of a model for inputs."""
        repeat_bits(self.federation.config.training.device)
        model = self.federation.model
        model.load_state_dict(arrays.to_torch_state_dict())
        model.eval()
        return forward(model, torch.as_tensor(inputs)).numpy()

    def noise(self, count: int, rng: np.random.Generator) -> NDArray[Any]:
        """Draw random inputs: uniform in what pixels or tokens can be, in tables normal."""
        data = self.federation.data
        shape = (count, *data.input_shape)
        if data.vocabulary is not None:
            return rng.integers(data.vocabulary, size=shape)
        if data.kind == "image":
            return rng.random(shape, dtype=np.float32)
        return rng.standard_normal(shape, dtype=np.float32)

    def root_update(self, number: int, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model that the server trains on its root samples in a round."""
        repeat_bits(self.federation.config.training.device)
        self._server.load(arrays)
        self._server.fit(number)
        return self._server.answer(arrays)

    @cached_property
    def _server(self) -> HonestClient:
        """The server's seat: it trains as a client with the next number would."""
        federation, config = self.federation, self.federation.config
        images, labels = federation.data.train[federation.root]
        seat = {"seed": config.seed, "partition": config.num_clients}
        return HonestClient(federation.model, images, labels, **federation.training | seat)
