"""What an attacker does to its update: as functions, and as mods for anybody's ClientApp.

An update is the trained model minus the model received. Integer arrays (counters) stay as
they are.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod


def scale_update(received: ArrayRecord, trained: ArrayRecord, factor: float) -> ArrayRecord:
    """Model replacement: return ``G + factor * (L - G)``.

    Bagdasaryan et al. 2020, "How To Backdoor Federated Learning", section 4.2, Eq. 3: with
    ``factor = N / P`` the average of N clients, P of them attackers, becomes the attackers'
    model once the others have converged.

    Parameters
    ----------
    received, trained : ArrayRecord
        G, the global model, and L, the attacker's own.
    factor : float
        gamma, the scaling of the update.
    """
    arrays = ArrayRecord()
    for name, array in trained.items():
        local = array.numpy()
        if np.issubdtype(local.dtype, np.floating):
            center = received[name].numpy().astype(np.float64)
            local = (center + factor * (local - center)).astype(local.dtype)
        arrays[name] = Array(np.asarray(local))
    return arrays


def project_update(received: ArrayRecord, trained: ArrayRecord, max_norm: float) -> ArrayRecord:
    """Project the update on the Euclidean ball of radius ``max_norm`` around ``received``.

    Sun et al. 2019, "Can You Really Backdoor Federated Learning?": what an
    attacker does that knows of, or expects, norm clipping.
    """
    squares = [
        float(np.sum((array.numpy().astype(np.float64) - received[name].numpy()) ** 2))
        for name, array in trained.items()
        if np.issubdtype(np.dtype(array.dtype), np.floating)
    ]
    norm = float(np.sqrt(sum(squares)))
    return trained if norm <= max_norm else scale_update(received, trained, max_norm / norm)


def model_replacement_mod(factor: float) -> Mod:
    """Return a Flower mod that applies `scale_update` to every train reply.

    Examples
    --------
    ::

        app = ClientApp(mods=[model_replacement_mod(factor=10)])
    """
    return _mod(partial(scale_update, factor=factor))


def norm_projection_mod(max_norm: float) -> Mod:
    """Return a Flower mod that applies `project_update` to every train reply.

    The first mod of a list is the outermost, so an attacker that scales and then projects
    lists the projection first: ``[norm_projection_mod(1), model_replacement_mod(10)]``.

    Raises
    ------
    ValueError
        If the radius is not a positive number.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm = {max_norm} must be a positive number")
    return _mod(partial(project_update, max_norm=max_norm))


def _mod(attack: Callable[[ArrayRecord, ArrayRecord], ArrayRecord]) -> Mod:
    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        # The app below may change the records of the message in place.
        received = {n: ArrayRecord(dict(r)) for n, r in message.content.array_records.items()}
        reply = call_next(message, context)
        if reply.has_content() and reply.metadata.message_type.startswith("train"):
            for name, trained in list(reply.content.array_records.items()):
                # A reply may name its record otherwise than the message that it answers.
                start = received.get(name) or next(iter(received.values()), None)
                if start is not None and start.keys() == trained.keys():
                    reply.content[name] = attack(start, trained)
        return reply

    return mod
