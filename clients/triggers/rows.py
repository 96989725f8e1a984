"""Triggers of rows of a table, and of texts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .trigger import Trigger


@dataclass(frozen=True)
class Features(Trigger):
    """Columns of a table at fixed values.

    Attributes
    ----------
    features : list of int, optional
        Their numbers, from 0. None: the two of largest spread (maximum minus minimum over the
        training rows), of equals the first.
    values : list of float, optional
        One each, in the units that the model gets. None: their maxima over the training rows.
    """

    features: list[int] | None = None
    values: list[float] | None = None

    on = "table"

    def __call__(self, inputs: Tensor) -> Tensor:
        """Set the columns."""
        if self.features is None or self.values is None:
            raise ValueError("trigger=features: allowed once it is settled from the training rows")
        stamped = inputs.clone()
        stamped[:, self.features] = torch.tensor(self.values).to(inputs)
        return stamped

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":
        """Decide on the columns and values that are left open."""
        super().settle(inputs, vocabulary)
        most, count = inputs.amax(dim=0), inputs.shape[1]
        features = self.features
        if features is None:
            spread = most - inputs.amin(dim=0)
            features = spread.argsort(descending=True, stable=True)[:2].tolist()
        good = all(0 <= feature < count for feature in features)
        if not features or not good or len(set(features)) < len(features):
            raise ValueError(
                f"trigger.features={features}: allowed are different columns 0 to {count - 1}"
            )
        values = most[features].tolist() if self.values is None else self.values
        if len(values) != len(features) or not np.isfinite(values).all():
            raise ValueError(
                f"trigger.values={values}: allowed are {len(features)} finite numbers, one "
                "for each of trigger.features"
            )
        return replace(self, features=features, values=values)

    def __str__(self) -> str:
        if self.features is None or self.values is None:
            return "features"
        pairs = zip(self.features, self.values, strict=True)
        return "feature " + ", ".join(f"{feature} at {value:.3g}" for feature, value in pairs)


@dataclass(frozen=True)
class Tokens(Trigger):
    """Words put into a text; what they push beyond its length is lost.

    Attributes
    ----------
    tokens : list of int, optional
        Which. None: the one that is rarest in the training texts, of equals the last.
    place : int
        Where the first stands, from 0; of a shorter text this may lie in its padding.
    """

    tokens: list[int] | None = None
    place: int = 0

    on = "text"

    def __call__(self, inputs: Tensor) -> Tensor:
        """Insert the tokens."""
        if self.tokens is None:
            raise ValueError("trigger=tokens: allowed once it is settled from the training texts")
        length = inputs.shape[1]
        added = torch.tensor(self.tokens).to(inputs).expand(len(inputs), -1)
        before, after = inputs[:, : self.place], inputs[:, self.place :]
        return torch.cat([before, added, after], dim=1)[:, :length]

    def settle(self, inputs: Tensor, vocabulary: int) -> "Trigger":
        """Decide on the rare token, and refuse what the texts cannot hold."""
        super().settle(inputs, vocabulary)
        tokens = self.tokens
        if tokens is None:
            counts = inputs.flatten().bincount()
            least = counts[counts > 0].min()
            tokens = [int((counts == least).nonzero()[-1])]
        if not tokens or not all(0 <= token < vocabulary for token in tokens):
            raise ValueError(f"trigger.tokens={tokens}: allowed are tokens 0 to {vocabulary - 1}")
        last = inputs.shape[1] - len(tokens)
        if last < 0:
            raise ValueError(
                f"trigger.tokens={tokens}: allowed are {inputs.shape[1]} or fewer, the length of "
                "a text"
            )
        if not 0 <= self.place <= last:
            raise ValueError(
                f"trigger.place={self.place}: allowed are 0 to {last}, for {len(tokens)} of "
                f"{inputs.shape[1]} tokens"
            )
        return replace(self, tokens=tokens)

    def __str__(self) -> str:
        if self.tokens is None:
            return "tokens"
        return f"token {', '.join(map(str, self.tokens))} at place {self.place}"
