"""Min-Sum [Shejwalkar & Houmansadr, 2021]."""

from dataclasses import dataclass

import numpy as np

from .min_max import Pushed, Vector, squared_distances


@dataclass(kw_only=True)
class MinSum(Pushed):
    """The push stays, in sum, as close to the updates as the farthest of them does.

    Shejwalkar, Houmansadr 2021, the second of the attacks that, unlike those of Fang et al. 2020,
    know no rule: sum_i ||nabla^m - nabla_i||^2 <= max_i sum_j ||nabla_i - nabla_j||^2. The authors'
    code takes the least of the sums on the right, not the largest, which is a weaker push.

    *Knows* updates as `knowledge` says, and nothing of the server. *Cost*: the distances of the m
    updates known, O(m^2 d). *Known weaknesses*: as of `MinMax`.

    Attributes
    ----------
    perturbation
        As for `Pushed`.
    """

    def gamma(self, known: Vector, push: Vector) -> float:
        """Solve the constraint: the sum is n gamma^2 ||push||^2 more than that of the mean."""
        least = ((known - known.mean(axis=0)) ** 2).sum()
        most = squared_distances(known).sum(axis=1).max()
        return float(np.sqrt(max(most - least, 0.0) / (len(known) * (push @ push))))
