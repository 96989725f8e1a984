"""The Limitations of Federated Learning in Sybil Settings [Fung et al., 2020].

FoolsGold: clients whose updates have been alike so far count less.

Paper: https://www.usenix.org/conference/raid2020/presentation/fung
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_positive
from ..robust import Robust
from ..round import Outcome, Round
from ..updates import cosines

_ROUNDING = 1e-12
"""What the cosine of two equal histories may lack to 1."""


def foolsgold(similarity: NDArray[np.float64], kappa: float) -> NDArray[np.float64]:
    """Return the learning rate alpha_i of each client, from 0 to 1; 0 for all if all are alike.

    With ``v_i = max_j cs_ij``, and ``cs_ij`` times ``v_i / v_j`` where ``v_j > v_i`` (pardoning),
    ``alpha_i = 1 - max_j cs_ij``, which is divided by the largest, and becomes
    ``kappa (ln(alpha_i / (1 - alpha_i)) + 0.5)``, cut off at 0 and 1.

    Parameters
    ----------
    similarity : array of shape (n, n)
        cs, the cosines of the clients' histories; the diagonal does not count.
    kappa : float
        The confidence, which scales the logit.
    """
    others = similarity.copy()
    np.fill_diagonal(others, 0)
    v = others.max(axis=1)
    more = v > v[:, np.newaxis]
    pardon = np.divide(v[:, np.newaxis], v, out=np.ones_like(others), where=more)
    alpha = np.clip(1 - (others * pardon).max(axis=1), 0, 1)
    if alpha.max() < _ROUNDING:
        return np.zeros_like(alpha)
    alpha /= alpha.max()
    with np.errstate(divide="ignore"):  # the logit of 0 and of 1
        logit = kappa * (np.log(alpha) - np.log1p(-alpha) + 0.5)
    weights: NDArray[np.float64] = np.clip(logit, 0, 1)
    return weights


class FoolsGold(Robust):
    """Average clients by how unlike all others they have moved the output layer so far.

    ``H_i = sum_t Delta_{i,t}`` is what client i has sent in all rounds, and
    ``w_{t+1} = w_t + sum_i alpha_i Delta_{i,t} / sum_i alpha_i``.

    Parameters
    ----------
    confidence : float (default: 1)
        kappa.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If the confidence is not a positive finite number.

    Notes
    -----
    *Threat model*: sybils, any number of them, that share one goal; one honest client is enough.
    *Assumes* honest clients whose data differ from one another (non-IID); their number is not
    assumed. *Remembers* the history of each client, as large as the output layer. *Guarantee*:
    none. *Cost*: O(n^2 w) for an output layer of w parameters, and one pass over n models.

    The features that the paper finds indicative are those of the output layer; here they all
    count alike. It sums the steps of single batches; where clients send models the average is
    meant. Clients are compared with those present, by what they sent while they were. Where all
    are alike nobody has a weight, and the rule cannot act; nor can it where one model has nobody to
    be compared with. Public code differs: FedML keeps memory by the place in the list, and
    Multi-Metrics' FoolsGold takes models for updates.

    *Known weaknesses*: IID clients look like sybils. A single attacker looks like nobody else, and
    so has the largest weight; sybils that add noise or push different layers pass as well. Nothing
    bounds the length of an update: where 4 of 20 boost a backdoor fivefold on digits, 30 % of
    triggers still work (68 % without a defense) and the accuracy falls from 87 to 65 %; unboosted,
    4 % and no accuracy lost (``docs/data/bites_b.csv``, means of 3 seeds).
    """

    least_clients: ClassVar[int] = 2
    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "clients whose updates are alike are sybils",
        "few replies": "of two clients none is less like the others",
    }

    def __init__(self, confidence: float = 1.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_positive(confidence=confidence)
        self.confidence = confidence

    def aggregate(self, round: Round) -> Outcome:
        """Add the updates to the histories, and average by the weights that these give."""
        if len(round) < self.least_clients:
            return Outcome.refuse(self, "1 valid model, which has nobody to be compared with")
        rows = []
        for i, client in enumerate(round.clients):
            key, update = f"history/{client}", round.updates[i, round.layout.last_layer]
            past = self.memory.get(key, np.zeros(0))
            rows.append(past + update if past.shape == update.shape else update)
            self.memory[key] = rows[-1]
        histories = np.array(rows)
        alpha = foolsgold(cosines(histories @ histories.T), self.confidence)
        votes, notes = round.votes * alpha, {"alpha": alpha}
        if not votes.any():
            return Outcome.refuse(self, "all clients are alike", votes, notes)
        return Outcome(round.mean(votes), votes, notes)
