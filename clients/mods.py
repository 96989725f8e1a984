"""Attacks as Flower mods: around anybody's ClientApp, or around its train function."""

from collections.abc import Collection

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from .attacker import Attack
from .attacks.model_replacement import ModelReplacement
from .attacks.norm_projection import NormProjection
from .memory import is_asked, keep, mark_idle, recall
from .seat import Seat
from .updates import NOTHING, crafted


def attack_mod(attack: Attack, *, seed: int = 0, statistics: Collection[str] = ()) -> Mod:
    """Return a Flower mod that sends what an attack's ``craft`` makes of the app's update.

    Arrays of the reply are matched with those received by name, whatever their dtypes, or by
    position if no name occurs in both. If none matches, or nothing was trained, the reply is sent
    as it is, a warning says so once, and so does its record ``attack-cannot-act``: a ConfigRecord,
    which strategies pass over.

    Parameters
    ----------
    attack : Attack
        With the hook ``craft`` alone: the app's own training cannot be changed from here.
    seed : int (default: 0)
        With the node and the round it decides what the attack draws.
    statistics : collection of str
        Names of arrays that are no parameters, for models whose statistics have names that
        PyTorch does not use (``"1"``, ``"moving_variance"``).

    Raises
    ------
    ValueError
        If the attack has other hooks, or none.
    """
    others = [h for h in ("poison", "loss", "project", "constrain", "collude") if attack.hooks(h)]
    if others or not attack.hooks("craft"):
        raise ValueError(
            f"{type(attack).__name__} needs the hooks {', '.join(others) or 'craft'}: allowed in a "
            "mod are attacks that craft the update and do nothing else; use MaliciousClient"
        )
    said: set[str] = set()

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        # The app below may change the records of the message in place.
        received = {n: ArrayRecord(dict(r)) for n, r in message.content.array_records.items()}
        asked = is_asked(message)
        reply = call_next(message, context)
        if not reply.has_content() or not reply.metadata.message_type.startswith("train"):
            return reply
        seat = Seat(
            client=_number(context),
            round=_round(message),
            seed=seed,
            memory=recall(message, context),
            said=said,
        )
        acted = False
        for name, trained in list(reply.content.array_records.items()):
            start = received.get(name)
            if start is None and len(received) == len(reply.content.array_records) == 1:
                (start,) = received.values()  # a reply may give its model another name
            sent = crafted(attack, seat, start, trained, statistics) if start else None
            if sent is not None:
                acted = True
                reply.content[name] = sent
        keep(seat.memory, context, reply, asked=asked)
        if not acted:
            seat.refuse(attack, NOTHING)
        mark_idle(reply, seat.idle())
        return reply

    return mod


def malicious(
    train: ClientAppCallable,
    attack: Attack,
    *,
    seed: int = 0,
    statistics: Collection[str] = (),
) -> ClientAppCallable:
    """Return an app's own train function with an attack around it; see `attack_mod`.

    The attacker answers with the metrics of the app's honest clients, whatever they are.

    Examples
    --------
    ::

        app.train()(malicious(train, ModelReplacement(factor=10)))
    """
    mod = attack_mod(attack, seed=seed, statistics=statistics)

    def attacking(message: Message, context: Context) -> Message:
        return mod(message, context, train)

    return attacking


def model_replacement_mod(factor: float, *, statistics: Collection[str] = ()) -> Mod:
    """Return a Flower mod that applies `ModelReplacement` to every train reply.

    Parameters
    ----------
    factor : float
        gamma, the scaling of the update.
    statistics : collection of str
        As for `attack_mod`.

    Examples
    --------
    ::

        app = ClientApp(mods=[model_replacement_mod(factor=10)])
    """
    return attack_mod(ModelReplacement(factor=factor), statistics=statistics)


def norm_projection_mod(max_norm: float, *, statistics: Collection[str] = ()) -> Mod:
    """Return a Flower mod that applies `NormProjection` to every train reply.

    The first mod of a list is the outermost, so an attacker that scales and then projects
    lists the projection first: ``[norm_projection_mod(1), model_replacement_mod(10)]``.

    Parameters
    ----------
    max_norm : float
        The radius.
    statistics : collection of str
        As for `attack_mod`.

    Raises
    ------
    ValueError
        If the radius is not a positive number.
    """
    return attack_mod(NormProjection(max_norm=max_norm), statistics=statistics)


def _number(context: Context) -> int:
    number = context.node_config.get("partition-id")
    return number if isinstance(number, int) else context.node_id


def _round(message: Message) -> int:
    rounds = (record.get("server-round") for record in message.content.config_records.values())
    return next((number for number in rounds if isinstance(number, int)), 0)
