"""What is measured of a round: the model, the distances between models, the defense."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clients import Goal


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    goal: Goal | None,
    memory: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, float | None]:
    """Measure loss, main accuracy and attack success rate on the test set.

    The attack success rate is Definition 1 of Cao et al. 2019 as a fraction: test samples of
    the source label that the model gives the target label. With a trigger it is taken over
    the triggered test samples whose true label is not the target.

    Parameters
    ----------
    model : torch.nn.Module
        The global model.
    images, labels : Tensor of shape (n, 1, 28, 28) and (n,)
        Test set.
    goal : Goal, optional
        Says which samples count, and stamps the trigger. None: the attack is untargeted, and
        its success rate None.
    memory : mapping of str to array, optional
        An attacker's, which may hold a trigger that was learned.
    """
    model.eval()
    output = _forward(model, images)
    success = None
    if goal is not None:
        victims = goal.victims(labels)
        triggered = goal.trigger(images[victims], memory or {})
        attacked = output[victims] if triggered is None else _forward(model, triggered)
        success = float((predict(attacked) == goal.target).double().mean())
    return {
        "loss": float(functional.cross_entropy(output, labels)),
        "main_accuracy": float((predict(output) == labels).double().mean()),
        "attack_success_rate": success,
    }


def distance_statistics(
    between: NDArray[np.float64],
    to_global: NDArray[np.float64],
    update_norms: NDArray[np.float64],
    attacking: NDArray[np.bool_],
) -> dict[str, float | None]:
    """Summarize the distances of Figs. 5 and 7 of Cao et al. 2019, apart for attackers.

    Parameters
    ----------
    between : array of shape (n, n)
        Distances between local models, Eq. 6.
    to_global : array of shape (n,)
        Distances of local models to the global model aggregated from them, Eq. 3.
    update_norms : array of shape (n,)
        Distances of local models to the global model they were trained from.
    attacking : array of shape (n,), bool
        Which of the models are attackers'.

    Returns
    -------
    dict
        Minimum, mean and maximum of each kind; None where there is no such pair.
    """
    honest = ~attacking
    upper = np.triu(np.ones_like(between, dtype=bool), k=1)
    groups = {
        "distance_honest_honest": between[upper & np.outer(honest, honest)],
        "distance_honest_attacker": between[np.outer(honest, attacking)],
        "distance_attacker_attacker": between[upper & np.outer(attacking, attacking)],
        "distance_global_honest": to_global[honest],
        "distance_global_attacker": to_global[attacking],
        "update_norm_honest": update_norms[honest],
        "update_norm_attacker": update_norms[attacking],
    }
    statistics: dict[str, float | None] = {}
    for name, values in groups.items():
        for how in ("min", "mean", "max"):
            statistics[f"{name}_{how}"] = float(getattr(values, how)()) if values.size else None
    return statistics


def detection(
    dropped: Iterable[Iterable[int]], attackers: Sequence[int]
) -> tuple[float | None, float | None]:
    """Return precision and recall of a defense against the roster, over rounds.

    Parameters
    ----------
    dropped : iterable of rounds, each an iterable of client numbers
        Whom the defense left out.
    attackers : sequence of int
        The roster.

    Returns
    -------
    tuple of float or None
        Precision: part of the dropped that attack; None if none was dropped. Recall: part of
        the attackers that were dropped; None if there are none. One that gave no answer was not.
    """
    rounds = [set(clients) for clients in dropped]
    caught = sum(len(clients & set(attackers)) for clients in rounds)
    total = sum(len(clients) for clients in rounds)
    possible = len(rounds) * len(set(attackers))
    return (caught / total if total else None, caught / possible if possible else None)


def predict(output: Tensor) -> Tensor:
    """Return the class of each row of logits ``(n, C)``; -1 for a row that holds NaN."""
    # argmax takes NaN for the largest value: a broken model would seem to say class 0.
    return output.argmax(dim=1).where(~output.isnan().any(dim=1), -1)


def _forward(model: nn.Module, images: Tensor) -> Tensor:
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(part.to(device)).cpu() for part in torch.split(images, 250)]
    return torch.cat(parts) if parts else torch.empty(0, 1)
