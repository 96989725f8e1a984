"""The partition that a data set suggests, and the older names that the keys have there."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

from hydra.utils import get_class

from ...config import build
from ...errors import UserError
from ...schema import bounded, check_bounds
from ..base import Data, Indices
from .base import Partition
from .by_label import Dirichlet
from .by_size import Iid
from .natural import Natural
from .per_class import PerClass

SCHEMES: Final[dict[str, type[Partition]]] = {
    "per_class": PerClass,
    "iid": Iid,
    "dirichlet": Dirichlet,
    "owners": Natural,
}
"""What ``dataset.partition`` may be."""

OLDER: Final = {
    "partition": "scheme",
    "samples_per_class": "samples_per_class",
    "samples_per_partition": "max_samples",
    "alpha": "alpha",
}
"""Keys of ``dataset`` that are read by those of ``partition``."""


@dataclass(kw_only=True)
class Auto(Partition):
    """One of four by name: the choice of ``dataset.partition`` where a data set has that key.

    Attributes
    ----------
    scheme : {"per_class", "iid", "dirichlet", "owners"}
        `PerClass`, `Iid`, `Dirichlet`, `Natural`.
    samples_per_class, alpha
        Its settings; what the scheme does not have is not used, nor ``max_samples`` by
        ``per_class``.
    """

    scheme: str = bounded("iid", choices=tuple(SCHEMES))
    samples_per_class: int = bounded(250, least=1)
    alpha: float = bounded(0.5, above=0)

    def chosen(self) -> Partition:
        """Return the partition itself."""
        kind = SCHEMES[self.scheme]
        settings: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(kind)}
        if kind is PerClass:
            settings["max_samples"] = None
        return kind(**settings)

    def shares(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Share out as the partition itself does."""
        return self.chosen().shares(data, num_clients, seed)

    def draw(self, data: Data, num_clients: int, seed: int) -> list[Indices]:
        """Draw as the partition itself does."""
        return self.chosen().draw(data, num_clients, seed)


def build_partition(node: Any, dataset: Mapping[str, Any]) -> Partition:
    """Build a partition from its config node.

    Parameters
    ----------
    node : dict
        A class of `Partition` as ``_target_``, and its settings.
    dataset : mapping
        The node of the data, which may have the older keys.

    Raises
    ------
    UserError
        Naming the key at fault; both, where an older and a newer key say different things.
    """
    with older_names(node, dataset):
        built: Partition = build("partition", node, Partition)
        _check_one_of_each(node, built, dataset)
        check_bounds(built, "partition.")
    return built


@contextmanager
def older_names(node: Mapping[str, Any], dataset: Mapping[str, Any]) -> Iterator[None]:
    """Name keys in errors as they were given: those that were read from ``dataset`` as there."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for old, new in OLDER.items():
            if old in dataset and new in node and str(dataset[old]) == str(node[new]):
                text = re.sub(rf"\bpartition\.{new}\b", f"dataset.{old}", text)
        raise UserError(text) from error


def _check_one_of_each(node: Mapping[str, Any], built: Partition, dataset: Any) -> None:
    """Refuse an older key that was given, beside a newer one that says something else."""
    defaults = _defaults(dataset)
    for old, new in OLDER.items():
        if old not in defaults or old not in dataset or dataset[old] == defaults[old]:
            continue
        if old == "partition" and not isinstance(built, Auto):
            if type(built) is not SCHEMES.get(dataset[old]):
                raise UserError(
                    f"dataset.partition={dataset[old]}, partition={built.name}: "
                    "both choose; allowed is one of them"
                )
        elif new in node and str(dataset[old]) != str(node[new]):
            raise UserError(
                f"dataset.{old}={dataset[old]}, partition.{new}={node[new]}: two values for one "
                "setting; allowed is one of them"
            )


def _defaults(dataset: Any) -> dict[str, Any]:
    """Return what the keys of the data set's class are where nobody says otherwise."""
    try:
        kind = get_class(dataset["_target_"])
        return {part.name: part.default for part in fields(kind)}
    except Exception:  # a function, or nothing at all: it has no older keys
        return {}
