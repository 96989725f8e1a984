"""What honest training does to a batch's gradients before a step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

Named = dict[str, Tensor]
Hook = Callable[[Named], None]


def clip(max_norm: float) -> Hook:
    """Return a hook that scales gradients to a common Euclidean norm of at most ``max_norm``.

    It scales as ``torch.nn.utils.clip_grad_norm_`` does [Pascanu et al., 2013].
    """

    def hook(gradients: Named) -> None:
        found = list(gradients.values())
        factor = torch.clamp(max_norm / (get_total_norm(found) + 1e-6), max=1.0)
        gradients.update(zip(gradients, torch._foreach_mul(found, factor), strict=True))

    return hook


def proximal(model: nn.Module, mu: float) -> Hook:
    """Return a hook that adds the gradient of FedProx's ``mu / 2 |w - w_t|^2`` [Li et al., 2020].

    ``w_t`` is the model as it is now: the one received.
    """
    current = dict(model.named_parameters())
    start = {name: p.detach().clone() for name, p in current.items() if p.requires_grad}

    def hook(gradients: Named) -> None:
        for name, gradient in gradients.items():
            gradients[name] = gradient + mu * (current[name] - start[name])

    return hook
