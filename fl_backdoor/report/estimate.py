"""What seeds tell of a measure: its mean, spread and interval."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.stats import t

from ..measure.settings import NOTHING


@dataclass(frozen=True)
class Estimate:
    """Mean and spread over seeds; None where there is nothing to average, or one seed."""

    mean: float | None
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Any) -> "Estimate":
        """Estimate from one value a seed, of which some may be missing."""
        some = pd.to_numeric(pd.Series(values), errors="coerce").dropna().to_numpy(float)
        if not len(some):
            return cls(None, None, 0)
        spread = float(some.std(ddof=1)) if len(some) > 1 else None
        return cls(float(some.mean()), spread, len(some))

    @property
    def half(self) -> float | None:
        """Half the width of the mean's 95 % interval (Student's t); None of one seed."""
        if self.std is None:
            return None
        return float(t.ppf(0.975, self.seeds - 1)) * self.std / math.sqrt(self.seeds)

    def overlaps(self, other: "Estimate") -> bool:
        """Tell whether its 95 % interval and another one have a point in common."""
        if self.half is None or other.half is None or self.mean is None or other.mean is None:
            return False
        return abs(self.mean - other.mean) <= self.half + other.half

    def text(self, sign: str = "") -> str:
        """Write it in percent or points."""
        if self.mean is None:
            return NOTHING
        spread = "" if self.std is None else f" ± {100 * self.std:.1f}"
        return f"{100 * self.mean:{sign}.1f}{spread}"
