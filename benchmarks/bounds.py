"""Each rule on a matrix of models, over the least that it must do; byzfl's on the same matrix."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache, partial
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.metadata import Metadata
from numpy.typing import NDArray

from strategies import (
    AdaptiveClipping,
    Bucketing,
    Bulyan,
    CenteredClipping,
    DnC,
    FedAvg,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NearestNeighborMixing,
    NormClipping,
    Robust,
    RobustLearningRate,
    Round,
    SignGuard,
    TrimmedMean,
    Wrapper,
)
from strategies.replies import Reply
from strategies.vectors import Layout

from . import seconds

Matrix = NDArray[np.float32]

BOUNDS: dict[str, Callable[[Matrix], object]] = {
    "passes": lambda models: models.mean(axis=0, dtype=np.float64),
    "Gram products": lambda models: models @ models.T,
    "partitions": lambda models: np.partition(models, len(models) // 2, axis=0),
}
"""What a rule must do at least, so many times."""


class Measured(NamedTuple):
    """A rule, and the bound that it is measured by.

    Attributes
    ----------
    rule : callable
        Makes it for f malicious clients.
    bound, times : str, int
        A name in `BOUNDS`, and how many of them it takes.
    byzfl : callable, optional
        Makes byzfl's, given its modules and f.
    """

    rule: Callable[[int], Robust]
    bound: str
    times: int = 1
    byzfl: Callable[[Callable[[str], Any], int], Callable[[Matrix], object]] | None = None


RULES = {
    "AdaptiveClipping(FedAvg)": Measured(
        lambda f: AdaptiveClipping(FedAvg(), f),
        "passes", 3, lambda b, f: b("aggregators.preaggregators").ARC(f),
    ),
    "Bucketing(FedAvg)": Measured(
        lambda f: Bucketing(FedAvg(), 2, seed=0),  # noqa: ARG005
        "passes", 2, lambda b, f: b("aggregators.preaggregators").Bucketing(2),  # noqa: ARG005
    ),
    "Bulyan": Measured(Bulyan, "Gram products"),
    "CenteredClipping": Measured(
        lambda f: CenteredClipping(1.0),  # noqa: ARG005
        "passes", 2, lambda b, f: b("aggregators").CenteredClipping(tau=1.0),  # noqa: ARG005
    ),
    "DnC": Measured(lambda f: DnC(f, seed=0), "passes", 2),
    "FedAvg": Measured(lambda f: FedAvg(), "passes"),  # noqa: ARG005
    "GeometricMedian": Measured(
        lambda f: GeometricMedian(),  # noqa: ARG005
        "passes", 6, lambda b, f: b("aggregators").GeometricMedian(),  # noqa: ARG005
    ),
    "Krum": Measured(Krum, "Gram products", 1, lambda b, f: b("aggregators").Krum(f)),
    "Median": Measured(
        lambda f: Median(), "partitions", 1, lambda b, f: b("aggregators").Median(),  # noqa: ARG005
    ),
    "MultiKrum": Measured(
        lambda f: MultiKrum(f, 3), "Gram products", 1, lambda b, f: b("aggregators").MultiKrum(f)
    ),
    "NearestNeighborMixing(FedAvg)": Measured(
        lambda f: NearestNeighborMixing(FedAvg(), f),
        "Gram products", 2, lambda b, f: b("aggregators.preaggregators").NNM(f),
    ),
    "NormClipping(FedAvg)": Measured(
        lambda f: NormClipping(FedAvg(), "median"),  # noqa: ARG005
        "passes", 3,
    ),
    "RobustLearningRate(FedAvg)": Measured(
        lambda f: RobustLearningRate(FedAvg(), f + 1), "passes", 2
    ),
    "SignGuard": Measured(lambda f: SignGuard(seed=0), "passes", 2),  # noqa: ARG005
    "TrimmedMean": Measured(
        lambda f: TrimmedMean(0.2),  # noqa: ARG005
        "partitions", 1, lambda b, f: b("aggregators").TrMean(f),
    ),
}  # fmt: skip


@cache
def byzfl_module(name: str) -> ModuleType:
    """Import a module of byzfl without its __init__, which wants torchvision."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise SystemExit("byzfl is missing: pip install 'fl-backdoor[dev]'")
        package = ModuleType("byzfl")
        package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{name}")


def round_of(models: Matrix) -> Round:
    """Make a round of models without the messages that they would come in."""
    metadata = Metadata(1, "", 1, 0, "", "", 1.0, 10.0, "train")
    message: Message = Message(content=RecordDict(), metadata=metadata)  # type: ignore[call-overload]
    reply = Reply(message, "arrays", {"w": np.zeros(1, np.float32)})
    n, d = models.shape
    round = Round(
        number=1,
        replies=(reply,) * n,
        votes=np.ones(n),
        clients=tuple(range(n)),
        asked=n,
        sent=ArrayRecord({"w": Array(np.zeros(1, np.float32))}),
    )
    round.center = np.zeros(d, np.float32)
    round.layout = Layout({"w": round.center})
    round.models = models
    return round


def ratios(measured: Measured, models: Matrix, round: Round, repeats: int) -> tuple[float, float]:
    """Return the median ratio of a rule to its bound, and that of byzfl's (NaN: none).

    The round's matrix is a copy of the models, which wrappers overwrite.
    """
    work, f = round.models, (len(models) - 3) // 4
    strategy = measured.rule(f)
    strategy._sent = round.sent
    if isinstance(strategy, Wrapper):
        strategy.inner._sent = round.sent
    twin = measured.byzfl and measured.byzfl(byzfl_module, f)
    strategy.aggregate(round.with_models(work))  # loads libraries
    taken = []
    for _ in range(repeats):
        np.copyto(work, models)
        least = measured.times * seconds(partial(BOUNDS[measured.bound], models))
        own = seconds(partial(strategy.aggregate, round.with_models(work)))
        np.copyto(work, models)
        other = seconds(partial(twin, work)) if twin else np.nan
        taken.append((own / least, other / least))
    return median(a for a, _ in taken), median(b for _, b in taken)


def table(sizes: list[int], width: int, repeats: int) -> None:
    """Print a line for each number of clients and rule."""
    for n in sizes:
        models = np.random.default_rng(0).standard_normal((n, width), dtype=np.float32)
        round = round_of(models.copy())
        print(f"{n:,} clients, d = {width:,}")
        for name, measured in RULES.items():
            own, other = ratios(measured, models, round, repeats)
            beside = f"; byzfl {other:.2f}" if measured.byzfl else ""
            least = f"{measured.times} {measured.bound}"
            print(f"  {name:30} {own:6.2f} times {least}{beside}", flush=True)
