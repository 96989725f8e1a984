"""Communication-Efficient Learning of Deep Networks from Decentralized Data.

[McMahan et al., 2017], as the uniform average of Cao et al. 2019, section II.A, Eq. 1.

Paper: https://arxiv.org/abs/1602.05629
"""

from typing import ClassVar

from ..robust import Robust
from ..round import Outcome, Round


class FedAvg(Robust):
    """Average the clients' models, one vote each, whatever they claim to hold (Eq. 1).

    Parameters
    ----------
    weighted, statistics, on_round, **fedavg_arguments
        As for `strategies.Robust`.

    Notes
    -----
    *Threat model*: none; no defense. *Assumes* honest clients. *Cost*: one pass over n models of d
    parameters.

    *Known weaknesses*: one client can replace the model, by an update scaled by n.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def aggregate(self, round: Round) -> Outcome:
        """Return the mean of the models by their votes."""
        return Outcome(round.mean())
