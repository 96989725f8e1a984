"""An attacker's memory: in its node's context, and with its reply where the server asks.

A server may keep the attackers' memory over an interruption, or measure a learned trigger. It
travels in a ConfigRecord, which strategies do not take for a model, and so does the mark of a reply
in which an attack found nothing to do: Flower's strategies refuse a round in which replies differ
in their metrics, and look at no ConfigRecord.
"""

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from .arrays import decode, decoded, encode, encoded
from .seat import Memory

ATTACK_MEMORY = "attack-memory"
"""Name of the record in a context, a message and a reply."""

CLEAN = "attack-clean"
"""Name of the record in a reply: the model that the attacker's clean data make."""

CANNOT_ACT = "attack-cannot-act"
"""Name of the record in a reply that says why an attack found nothing to do."""


def recall(message: Message, context: Context) -> Memory:
    """Return the memory that a message gives an attacker, or else the one in its context."""
    given = message.content.get(ATTACK_MEMORY)
    if isinstance(given, ConfigRecord) and given:
        return _unpacked(given)
    kept = context.state.get(ATTACK_MEMORY)
    return decoded(kept) if isinstance(kept, ArrayRecord) else {}


def keep(memory: Memory, context: Context, reply: Message, *, asked: bool) -> None:
    """Keep a memory in the context, and send it with the reply if that was asked."""
    if memory:
        context.state[ATTACK_MEMORY] = encoded(memory)
        if asked:
            reply.content[ATTACK_MEMORY] = _packed(memory)


def is_asked(message: Message) -> bool:
    """Tell whether a message asks for the memory."""
    return ATTACK_MEMORY in message.content


def give_attack_memory(message: Message, memory: Memory) -> None:
    """Ask an attacker for its memory with its reply, and give it one, if it is not empty."""
    content = RecordDict(dict(message.content))  # messages of a round may share theirs
    content[ATTACK_MEMORY] = _packed(memory)
    message.content = content


def give_clean(reply: Message, model: ArrayRecord) -> None:
    """Send with an attacker's reply what its clean data make of the model."""
    reply.content[CLEAN] = _packed(decoded(model))


def take_attack_memory(reply: Message, name: str = ATTACK_MEMORY) -> Memory | None:
    """Take an attacker's memory out of its reply, before a strategy sees it; None without.

    With the name `CLEAN` the model that `give_clean` sent.
    """
    if not reply.has_content() or name not in reply.content:
        return None
    record = reply.content.pop(name)
    return _unpacked(record) if isinstance(record, ConfigRecord) else None


def mark_idle(reply: Message, why: list[str]) -> None:
    """Mark a reply in which attacks found nothing to do, if there are any."""
    if why and reply.has_content():
        reply.content[CANNOT_ACT] = ConfigRecord({"why": why})


def take_idle(reply: Message) -> bool:
    """Tell whether a reply has the mark, and take it out."""
    return reply.has_content() and reply.content.pop(CANNOT_ACT, None) is not None


def _packed(memory: Memory) -> ConfigRecord:
    return ConfigRecord({name: encode(array).data for name, array in memory.items()})


def _unpacked(record: ConfigRecord) -> Memory:
    return {
        name: decode(Array(dtype="", shape=(), stype="numpy.ndarray", data=data))
        for name, data in record.items()
        if isinstance(data, bytes)
    }
