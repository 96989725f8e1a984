"""ALIE, "a little is enough" [Baruch et al., 2019]."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import View


def z_max(n: int, m: int) -> float:
    """Return how many standard deviations an update may be off and still find supporters.

    Algorithm 3: of n clients, m of them corrupted, s = floor(n/2 + 1) - m honest
    ones are needed for a majority. With Phi the standard normal distribution, z_max is the
    greatest z for which Phi(z) < (n - m - s) / (n - m): that many are closer to the mean.

    Raises
    ------
    ValueError
        If the corrupted are a majority by themselves, or n is less than 3.
    """
    s = n // 2 + 1 - m
    return NormalDist().inv_cdf((n - m - s) / (n - m))


@dataclass(kw_only=True)
class ALIE(Colluding):
    """All attackers send mu - z sigma, of each coordinate of the updates that they know.

    Baruch, Baruch, Goldberg 2019, "A Little Is Enough: Circumventing Defenses For Distributed
    Learning", Algorithm 3: the push stays within the spread of honest updates, and so within what
    Krum, trimmed mean and Bulyan take for honest. Untargeted. The paper's attackers estimate mu
    and sigma from their own honest training; sigma is that of the sample, not corrected, as in
    the authors' code.

    *Knows* n, P, and updates as `knowledge` says. *Cost*: two passes over the updates known, of d
    parameters. *Known weaknesses*: z is small where few attack; all send the same, which rules that
    look for likeness see.

    Attributes
    ----------
    z : float, optional
        None: `z_max` of the clients asked and the attackers that answered in the round (0.18 for
        3 of 10, 1.45 for 24 of 51). The authors' code begins with 1.5.

    Raises
    ------
    ValueError
        If z is not a finite number above 0.
    """

    least: ClassVar[int] = 2

    z: float | None = None

    def __post_init__(self) -> None:
        """Check z."""
        super().__post_init__()
        if self.z is not None and not 0 < self.z < math.inf:
            raise ValueError(f"z={self.z}: allowed is a finite number > 0, or null")

    def check(self, clients: int, attackers: int) -> None:
        """Refuse attackers so few, or so many, that no z follows from their number."""
        super().check(clients, attackers)
        least, most = 3 - clients % 2, clients // 2
        if self.z is None and not least <= attackers <= most:
            allowed = f"{least} to {most}" if least <= most else "none"
            raise ValueError(
                f"num_attackers={attackers}: allowed are {allowed} of {clients} clients, for which "
                "z_max > 0, or any with a z"
            )

    def collude(self, view: View) -> NDArray[np.float64]:
        """Send the same update from all."""
        z = z_max(view.asked, len(view.own)) if self.z is None else self.z
        view.notes["z"] = z
        if view.alike:
            return view.refuse(self, "the updates known are equal, and have no spread")
        push = view.known.mean(axis=0) - z * view.known.std(axis=0)
        return np.tile(push, (len(view.own), 1))
