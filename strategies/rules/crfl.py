"""CRFL: Certifiably Robust Federated Learning against Backdoor Attacks [Xie et al., 2021].

In training the global model is clipped and perturbed in each round; at test time perturbed models
vote.

Paper: https://arxiv.org/abs/2106.08283
"""

from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_positive, check_seed, is_finite_number
from ..clipping import clip_factors
from ..round import Outcome, Round
from ..smoothing import smoothed_votes
from ..vectors import distances_to
from ..wrapper import Wrapper
from .gaussian_noise import perturb


class CRFL(Wrapper):
    """Clip the global model itself to a growing norm, and add noise to it.

    ``w_t <- w_t / max(1, |w_t| / rho_t) + eps_t``, where w_t is the aggregate,
    ``rho_t = rho + growth t``, and eps_t is from N(0, sigma^2 I).

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates: the average in the paper.
    rho : float
        The norm that all parameters together may have at first. It must fit the model: below what
        a trained one has it costs accuracy. The paper's models of MNIST have 2.
    growth : float (default: 0)
        How much rho grows in a round: 0.1 in the authors' code for MNIST.
    stddev : float (default: 0.01)
        sigma, of the noise on every parameter.
    seed : int, optional
        Makes the noise repeatable, for experiments. Leave it out in a deployment.
    weighted, statistics, on_round
        As for `strategies.Robust`. Statistics are neither clipped nor noised.

    Raises
    ------
    ValueError
        If a number is out of range, or the seed no integer of 0 or larger.

    Notes
    -----
    *Threat model*: clients plant a backdoor of small magnitude in their data and scale their
    updates, in one round. *Assumes* nothing of their number; the certificate wants convex losses
    and full participation. *Cost*: one pass over the new model.

    Included are training, and the votes of perturbed models (`vote`); not their abstention, nor the
    certified radius, which needs Lipschitz constants that deep models do not have. In the last
    round the paper clips only, and its votes bring the noise: here a strategy does not know which
    round is the last, and the model measured in each round is the noised one. A round that keeps
    the old model adds no noise.

    Public code differs: the authors' adds noise to whole state dicts, statistics of BatchNorm
    included; FLPoison clips the update instead of the model.

    *Known weaknesses*: the clipping does not look at updates, so that a backdoor that many clients
    train in each round is averaged in; what remains is noise, as in `GaussianNoise`. It held none
    of the attacks on digits that we tried (docs/data/bites_a.csv): with rho as small as to matter
    it cost more accuracy than the backdoor did, and single shots fade without it as well.
    """

    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "the global model is clipped and noised in each round"
    }

    def __init__(
        self,
        strategy: Strategy,
        rho: float,
        growth: float = 0.0,
        stddev: float = 0.01,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        check_positive(rho=rho)
        for name, value in {"growth": growth, "stddev": stddev}.items():
            if not (is_finite_number(value) and value >= 0):
                raise ValueError(f"{name} = {value!r} must be a finite number, 0 or larger")
        check_seed(seed)
        self.rho, self.growth, self.stddev, self.seed = rho, growth, stddev, seed

    def aggregate(self, round: Round) -> Outcome:
        """Clip and noise the aggregate."""
        outcome = self.inner.aggregate(round)
        if outcome.model is not None:
            rho = self.rho + self.growth * round.number
            norm = distances_to(outcome.model[np.newaxis], np.zeros_like(round.center))
            outcome.model *= clip_factors(norm, rho)
            perturb(outcome.model, round.models.dtype, self.stddev, round.rng(self.seed))
            outcome.notes |= {"model-norm": float(norm[0]), "noise-stddev": float(self.stddev)}
        return outcome

    def vote(self, arrays: ArrayRecord, inputs: Any, draws: int = 1000) -> NDArray[np.int64]:
        """Let perturbed models vote on the classes of inputs: the smoothed classifier.

        Parameters
        ----------
        arrays : ArrayRecord
            The global model, as `start` returns it.
        inputs : array
            m of what the app's model takes.
        draws : int
            M, the perturbed models, from 1.

        Returns
        -------
        array of shape (m, C)
            Votes; the prediction is the class of the most.

        Raises
        ------
        ValueError
            If ``draws`` is no integer from 1, or no ``run_model`` is set.
        """
        if self.run_model is None:
            raise ValueError("CRFL cannot vote without run_model: set strategy.run_model")
        rng = np.random.default_rng(None if self.seed is None else [self.seed, 0])
        around = (arrays, self.stddev, draws, rng, self.statistics)
        return smoothed_votes(self.run_model, inputs, *around)
