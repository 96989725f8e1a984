"""An attack that asks the defense [Shejwalkar & Houmansadr, 2021; Fang et al., 2020]."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import Memory, View

Vector = NDArray[np.float64]
Push = tuple[Vector, Vector]

HALVINGS, BISECTIONS = 6, 6
"""Strengths tried of each push beside the largest, and then between the best and the next."""

RULE = "rule/"
"""How the keys begin of what the attackers' copy of the rule remembers."""

Rule = Callable[..., tuple[Vector | None, Vector | None, Memory]]
"""Tells what the defense makes of updates; in this suite ``strategies.Rehearsal``."""


def pushes(clean: Vector, aim: Vector) -> dict[str, Push]:
    """Return where pushes begin, shape (P, p), and their directions of length |aim|, (p,).

    ``own`` and ``mean`` go along the aim, from each attacker's clean update or from their mean;
    ``std`` and ``sign`` from the mean to the corner that lies along the aim of ALIE's box of
    standard deviations, and along the aim's signs, as Min-Max has them.

    Parameters
    ----------
    clean : array of shape (P, p)
        Updates of the attackers' clean data.
    aim : array of shape (p,)
        Where the goal lies.
    """
    mean, signs = np.tile(clean.mean(axis=0), (len(clean), 1)), np.sign(aim)
    along = {"own": aim, "mean": aim, "std": clean.std(axis=0) * signs, "sign": signs}
    return {
        name: (clean if name == "own" else mean, np.linalg.norm(aim) / length * push)
        for name, push in along.items()
        if (length := np.linalg.norm(push))
    }


def farthest(
    moved: Callable[[str, float], float], names: list[str], most: float
) -> tuple[float, float, str]:
    """Return how far the best push moves, its strength gamma, and its name.

    Of each push gamma is ``most`` and what halving makes of it; of the best one it is then
    bisected up to the next: where a rule accepts all that is weak enough, and moves the farther
    the stronger it is, this is the strongest that it accepts.

    Parameters
    ----------
    moved : callable of (name, gamma)
        How far a push moves the aggregate; -inf where it is not accepted.
    names : list of str
        Of the pushes.
    most : float
        The largest gamma.
    """
    strengths = [most / 2**k for k in range(HALVINGS + 1)]
    tried = ((moved(name, gamma), gamma, name) for name in names for gamma in strengths)
    best, gamma, name = max(tried, default=(-math.inf, 0.0, ""))
    above = min(2 * gamma, most)
    for _ in range(BISECTIONS if gamma < above else 0):
        middle = (gamma + above) / 2
        if (there := moved(name, middle)) > best:
            best, gamma = there, middle
        else:
            above = middle
    return best, gamma, name


@dataclass(kw_only=True)
class Adaptive(Colluding):
    """All attackers send what moves the defense's own aggregate farthest towards their goal.

    Maximise ``<A(u_1 .. u_P, h_1 .. h_{n-P}), d> / |d|^2`` over ``u_i = b_i + gamma p``, A being
    what the rule changes, as long as an attacker has a vote where the rule votes. With a data
    attack d is what poisoned training gives minus what clean training gives, the mean of the
    attackers; without one it is minus the mean of their updates: untargeted. For b and p see
    `pushes`, for the search `farthest`. Where none moves farther than what they have trained,
    they send that.

    Shejwalkar, Houmansadr 2021, "Manipulating the Byzantine": the attacks that know the
    rule maximise the strength gamma of a malicious direction for which it still accepts; Fang et
    al. 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", section 3, do
    so for Krum and trimmed mean, and guess the honest updates from their own. Baruch et al.
    2019 for the direction ``std``. Tramer et al. 2020, "On Adaptive Attacks to Adversarial Example
    Defenses": a defense is to be tested by an attack that aims at its own objective.

    Attributes
    ----------
    knowledge : {"attackers", "all"}
        With "attackers" honest updates h are guessed: drawn from the attackers' clean ones, with
        replacement. With "all" they are known.
    most : float, optional
        The largest gamma, in lengths of d. An average of all takes any: it is given this one.
        None: n / P, which undoes all that honest clients do to an average; with a data attack
        n / (2 P), which leaves them half of it: a model at chance has no backdoor.
    rule : callable, optional
        The defense, as `Rule` has it. None: who runs the attack gives it, as this suite does.

    Raises
    ------
    ValueError
        If ``most`` is not a finite number above 0, or the rule is none.

    Notes
    -----
    *Knows* the rule, its settings, n, and the model. The rule's memory, its root data (a clean
    update of an attacker's, drawn) and its noise are guesses: the memory is that of the attackers'
    copy, which has seen what they guessed in the rounds that they took part in, of the same n
    clients. *Cost*: 4 (1 + 6) + 6 + 2 = 36 calls of the rule a round at most, and each
    attacker's clean training.

    *Known weaknesses*: four directions and one strength, not the whole space; the rule is asked for
    one guess, and few attackers guess honest updates more alike than they are; it is greedy, a
    round at a time; and to move far along d, to first order, need not be to succeed. It bounds a
    defense from one side only: what holds it may fall to another. A rule that fails on the guess
    cannot be asked: a warning says so, the note ``cannot-ask`` counts it, and the attackers send
    what they trained.
    """

    adaptive: ClassVar[bool] = True

    most: float | None = None
    rule: Any = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.most is not None and not 0 < self.most < math.inf:
            raise ValueError(f"most={self.most}: allowed is a finite number > 0, or null")
        if not (self.rule is None or callable(self.rule)):
            raise ValueError(f"rule={self.rule}: allowed is null, the strategy's, or a callable")

    @property
    def compares(self) -> bool:
        """Whether there is an attack carried, whose aim is found by comparison."""
        return any(map(self.hooks, ("poison", "loss", "project", "constrain", "craft")))

    def collude(self, view: View) -> Vector:
        """Send the best push, or what was trained."""
        if self.rule is None:
            raise ValueError("rule=None: allowed is a callable, as strategies.Rehearsal makes one")
        try:
            return self._pushed(view)
        except Exception as error:  # the rule is anybody's: whatever it raises
            log(logging.WARNING, "Adaptive cannot ask in round %d: %.200r", view.round, error)
            view.notes["cannot-ask"] = 1
            return view.own

    def _pushed(self, view: View) -> Vector:
        rows = view.own if view.clean is None else view.clean
        order = sorted(range(len(rows)), key=lambda i: (rows[i].tobytes(), view.own[i].tobytes()))
        own, clean, count = view.own[order], rows[order], len(order)  # numbers decide nothing
        aim = (own - clean).mean(axis=0) if self.compares else -clean.mean(axis=0)
        rng, kinds = view.rng(), pushes(clean, aim)
        guessed = clean[rng.integers(count, size=max(0, view.asked - count))]
        honest = guessed if view.honest is None else view.honest
        rule: Rule = partial(
            self.rule,
            number=view.round,
            asked=view.asked,
            sent=view.sent,
            columns=view.columns,
            root=clean[rng.integers(count)],
            memory={k.removeprefix(RULE): v for k, v in view.memory.items() if k.startswith(RULE)},
        )

        def ask(sent: Vector) -> tuple[float, bool, Memory]:
            update, votes, memory = rule(np.concatenate([sent, honest]))
            along = 0.0 if update is None else float(update @ aim / (aim @ aim or 1.0))
            return along, votes is None or bool(votes[:count].any()), memory

        def pushed(name: str, gamma: float) -> Vector:
            base, push = kinds[name]
            return base + gamma * push

        def moved(name: str, gamma: float) -> float:
            along, voted, _ = ask(pushed(name, gamma))
            return along if voted else -math.inf

        most = self.most or view.asked / count / (2 if self.compares else 1)
        unscaled, *_ = ask(own)
        best, gamma, name = farthest(moved, list(kinds), most)
        if best > unscaled:
            sent = pushed(name, gamma)
        else:
            view.refuse(self, "no push moves the aggregate farther than what was trained")
            sent, best, gamma, name = own, unscaled, 0.0, "none"
        view.notes |= {"push": name, "strength": gamma, "moved": best, "moved-unscaled": unscaled}
        *_, memory = ask(sent)
        for old in [key for key in view.memory if key.startswith(RULE)]:
            del view.memory[old]
        view.memory.update({RULE + key: value for key, value in memory.items()})
        returned = np.empty_like(sent)
        returned[order] = sent
        return returned
