"""What a node knows of itself: which data it has, and which participant it plays."""

import json
from functools import lru_cache
from typing import Any

from flwr.app import ConfigRecord, Context

from ..config import SomeConfig, build
from ..data.base import Choice
from ..data.python import choice_node
from ..errors import UserError

DATA = "fl-backdoor.data"
"""Key of the record in which a node keeps where its data comes from."""


def settle_data(config: SomeConfig, kind: type[Any]) -> SomeConfig:
    """Decide once where the data comes from, so that no worker process looks for it again."""
    choice: Choice = build("dataset", choice_node(config.dataset), kind)
    config.dataset = config.dataset | choice.settle()
    return config


def node_data(context: Context, dataset: dict[str, Any]) -> str:
    """Return the keys of ``dataset`` that are a node's own, as JSON.

    They are settled by the first message of a run and kept in ``context.state``: a message may
    be the first in its process, and looking for data can take seconds.

    Parameters
    ----------
    context : Context
        The node's; ``data-root`` in its node config stands above the ``dataset.root`` of the run.
    dataset : dict
        The run's.
    """
    if DATA not in context.state:
        own = context.node_config.get("data-root")
        keys = {} if own is None else {"root": str(own)}
        context.state[DATA] = ConfigRecord(
            {DATA: _settled(context.run_id, json.dumps([dataset, keys]))}
        )
    return str(context.state[DATA][DATA])


@lru_cache(maxsize=64)
def _settled(run: int, text: str) -> str:  # noqa: ARG001
    """Settle once a run and process, which may play a thousand nodes."""
    dataset, keys = json.loads(text)
    choice: Choice = build("dataset", choice_node(dataset | keys), Choice)
    return json.dumps(keys | choice.settle())


def partition_id(context: Context, count: int) -> int:
    """Return which of 0 to count - 1 a node is, by its node config.

    Raises
    ------
    UserError
        If it does not say so.
    """
    number = context.node_config.get("partition-id")
    if type(number) is not int or not 0 <= number < count:
        raise UserError(f"node config partition-id={number}: allowed are 0 to {count - 1}")
    return number
