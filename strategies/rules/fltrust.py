"""FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping [Cao et al., 2021].

Updates are trusted by their cosine with the server's own.

Paper: https://arxiv.org/abs/2012.13995
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_positive
from ..graph.distances import distance
from ..robust import Robust
from ..round import Outcome, Round
from ..updates import Updates


def trust_scores(updates: Updates, root: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``TS_i = ReLU(cos(g_i, g_0))``, 0 where an update is 0.

    Parameters
    ----------
    updates : Updates of shape (n, p)
        g_i, what the clients changed.
    root : array of shape (p,)
        g_0, what the server's training on root data changed; not 0.

    Returns
    -------
    array of shape (n,)
        From 0 to 1.
    """
    dots, lengths = updates @ root, updates.norms * distance(root, np.zeros_like(root))
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return np.clip(cosines, 0, 1)


class FLTrust(Robust):
    """Scale updates to the length of the server's own, and trust each by its cosine with it.

    ``w + alpha sum_i TS_i (|g_0| / |g_i|) g_i / sum_j TS_j``.

    Parameters
    ----------
    learning_rate : float (default: 1)
        alpha, the step of the global model.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If the learning rate is not a positive finite number; in the first round, without root
        data.

    Notes
    -----
    *Threat model*: any number of attackers who know everything but the root data. *Assumes* a small
    clean set at the server, 100 samples in the paper, drawn as the clients' data are, and that the
    server trains on it as a client does; knows no number of attackers. *Guarantee*: the step is at
    most alpha times the server's own, whatever clients send; the paper bounds the error for
    strongly convex losses. *Cost*: O(n d), and a client's training at the server.

    ``root_update`` gives the server's model: in the suite the training of a seat of its own
    (``root=held_out``), else a callable of the app. Where nobody is trusted, or the server's
    own update is 0, the rule cannot act. BackFed's code before October 2025 never trained on the
    root data and averaged.

    *Known weaknesses*: root data that lack a class or lean to one take it from the model, or trust
    whoever leans likewise; the length of each step is that of one client with few samples.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"parameters", "root_update"})
    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "updates get the length of the server's own"
    }

    def __init__(self, learning_rate: float = 1.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_positive(learning_rate=learning_rate)
        self.learning_rate = learning_rate

    def aggregate(self, round: Round) -> Outcome:
        """Average the scaled updates by their trust scores."""
        root = round.root()
        if not root.any():
            return Outcome.refuse(self, "training on the root data changed nothing")
        trust = trust_scores(round.updates, root)
        votes, notes = round.votes * trust, {"trust": trust}
        if not votes.any():
            return Outcome.refuse(self, "no update points where the root data do", votes, notes)
        norm = distance(root, np.zeros_like(root))
        factors = np.divide(norm, round.updates.norms, out=np.zeros_like(votes), where=votes > 0)
        steps = self.learning_rate * round.shares(votes) * factors
        # Not `Round.moved`: of factors without bound its differences of models are only rounding.
        order, model = round.order, round.center.astype(np.float64)
        for columns, block in round.updates.blocks():
            model[columns] += steps[order] @ block[order]
        return Outcome(model, votes, notes)
