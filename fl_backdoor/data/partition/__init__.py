"""How training rows are shared out to clients; see ``conf/partition``."""

from .auto import Auto, build_partition, older_names
from .base import Partition, class_counts, pool, unused
from .by_label import Dirichlet, Pathological, Shards
from .by_size import Exponential, Iid, Linear, Square
from .natural import Natural
from .per_class import PerClass

__all__ = [
    "Auto",
    "Dirichlet",
    "Exponential",
    "Iid",
    "Linear",
    "Natural",
    "Partition",
    "Pathological",
    "PerClass",
    "Shards",
    "Square",
    "build_partition",
    "class_counts",
    "older_names",
    "pool",
    "unused",
]
