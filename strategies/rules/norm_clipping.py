"""Can You Really Backdoor Federated Learning? [Sun et al., 2019].

The defense by norm thresholding of updates.

Paper: https://arxiv.org/abs/1911.07963
"""

from logging import INFO
from typing import Literal

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from ..flower import Screened
from ..graph.distances import distance
from ..replies import arrays_of, flatten, is_finite_number, unflatten, with_arrays


class NormClipping(Screened):
    """Clip each client's update against the global model to a norm, then aggregate.

    Every floating-point entry counts, the running statistics of BatchNorm as well.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates the clipped models.
    max_norm : float or "median"
        M, the clipping norm: a fixed Euclidean norm, or the median norm of the round's
        updates, which fewer than half of the clients cannot raise beyond an honest norm.
    weighted : bool (default: False)
        Let the wrapped strategy weight by the reported number of examples.

    Raises
    ------
    ValueError
        If max_norm is neither a positive finite number nor ``"median"``.
    """

    def __init__(
        self,
        strategy: Strategy,
        max_norm: float | Literal["median"],
        *,
        weighted: bool = False,
    ) -> None:
        super().__init__(strategy, weighted=weighted)
        if max_norm != "median" and not (is_finite_number(max_norm) and max_norm > 0):
            raise ValueError(
                f"max_norm = {max_norm!r} must be a positive finite number or 'median'"
            )
        self.max_norm = max_norm

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        log(INFO, "\t├──> NormClipping: max_norm %s", self.max_norm)
        super().summary()

    def rewrite(self, replies: list[Message], metrics: MetricRecord) -> list[Message]:
        """Clip the updates that are longer than the clipping norm."""
        if self._sent is None:
            raise RuntimeError("NormClipping.configure_train must run before aggregate_train")
        center = flatten(self._sent).astype(np.float64)
        norms = np.array([distance(flatten(arrays_of(reply)), center) for reply in replies])
        bound = float(np.median(norms)) if self.max_norm == "median" else float(self.max_norm)
        metrics["clipping-norm"] = bound
        metrics["update-norms"] = norms.tolist()
        metrics["clipped-nodes"] = sorted(
            reply.metadata.src_node_id
            for reply, norm in zip(replies, norms, strict=True)
            if norm > bound
        )
        return [
            _clipped(reply, center, bound) if norm > bound else reply
            for reply, norm in zip(replies, norms, strict=True)
        ]


def clip(
    models: NDArray[np.floating], center: NDArray[np.floating], max_norm: float
) -> NDArray[np.float64]:
    """Return ``w_t + dw / max(1, |dw| / M)`` for each row ``w_t + dw`` (norm thresholding).

    Parameters
    ----------
    models : array of shape (n, d) or (d,)
        Local models.
    center : array of shape (d,)
        The global model w_t.
    max_norm : float
        M, the clipping norm.
    """
    updates = models - center.astype(np.float64)
    norms = np.linalg.norm(updates, axis=-1, keepdims=True)
    factors = np.divide(max_norm, norms, out=np.ones_like(norms), where=norms > max_norm)
    clipped: NDArray[np.float64] = center + updates * factors
    return clipped


def _clipped(reply: Message, center: NDArray[np.float64], max_norm: float) -> Message:
    arrays = arrays_of(reply)
    return with_arrays(reply, unflatten(clip(flatten(arrays), center, max_norm), arrays))
