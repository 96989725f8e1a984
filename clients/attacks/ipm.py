"""Inner product manipulation [Xie et al., 2019]."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import View


@dataclass(kw_only=True)
class IPM(Colluding):
    """All attackers send -epsilon times the mean of the updates that they know.

    Xie, Koyejo, Gupta 2019, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
    Manipulation": the inner product of what is aggregated and the honest mean becomes
    negative. Of an average of n clients, P of them attackers, it does where epsilon > (n - P) / P;
    of Krum and the median, where a small one is close enough to be chosen. Untargeted.

    *Knows* updates as `knowledge` says. *Cost*: one pass over the updates known, of d parameters.
    *Known weaknesses*: all send the same, against everybody's direction: rules of angles, signs or
    likeness see it.

    Attributes
    ----------
    epsilon : float
        Length of the push, in means.

    Raises
    ------
    ValueError
        If epsilon is not a finite number above 0.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        """Check epsilon."""
        super().__post_init__()
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon={self.epsilon}: allowed is a finite number > 0")

    def collude(self, view: View) -> NDArray[np.float64]:
        """Send the same update from all."""
        view.notes["epsilon"] = self.epsilon
        mean = view.known.mean(axis=0)
        if not mean.any():
            return view.refuse(self, "the mean of the updates known is 0")
        return np.tile(-self.epsilon * mean, (len(view.own), 1))
