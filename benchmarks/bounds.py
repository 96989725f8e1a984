"""Each rule on a matrix of models, over the least that it must do; byzfl's on the same matrix."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
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

_WIDTH = 2**20
"""Values of a block that is converted at a time."""
_PEERS = 2**28
"""Bytes of models up to which byzfl's are run: Krum's takes minutes above, and a few copies."""


def blocks(models: Matrix) -> Iterator[NDArray[np.float64]]:
    """Yield the columns in float64, as many at a time as a block has."""
    width = max(1, _WIDTH // len(models))
    for start in range(0, models.shape[1], width):
        yield models[:, start : start + width].astype(np.float64)


def gram(models: Matrix) -> None:
    """Multiply models with themselves."""
    for block in blocks(models):
        block @ block.T


def mix(models: Matrix) -> None:
    """Make n mixtures of n models, of which nothing is kept."""
    shares = np.full((len(models), len(models)), 1 / len(models))
    for block in blocks(models):
        shares @ block


BOUNDS: dict[str, Callable[[Matrix], object]] = {
    "pass": lambda models: models.mean(axis=0, dtype=np.float64),
    "Gram": gram,
    "mix": mix,
    "partition": lambda models: np.partition(models, len(models) // 2, axis=0),
}
"""What a rule must do at least, so many times.

In float64, conversion included, as the rules must: models that have been trained from one differ by
far less than their own size, which is where squares and products of float32 cancel. Partitions
are of the models as they are.
"""

Twin = Callable[[Matrix], object]


class Measured(NamedTuple):
    """A rule, and the bound that it is measured by.

    Attributes
    ----------
    rule : callable
        Makes it for f malicious clients.
    least : mapping from str to int
        Names in `BOUNDS`, and how many of them it takes.
    byzfl : callable, optional
        Makes byzfl's, given its modules and f.
    """

    rule: Callable[[int], Robust]
    least: Mapping[str, int]
    byzfl: Callable[[Callable[[str], Any], int], Twin] | None = None


def averaged(byzfl: Callable[[str], Any], name: str, argument: int) -> Twin:
    """Make one of byzfl's pre-aggregators with its average behind, as our wrappers have it."""
    change = getattr(byzfl("aggregators.preaggregators"), name)(argument)
    average = byzfl("aggregators").Average()
    return lambda models: average(change(models))


RULES = {
    "AdaptiveClipping(FedAvg)": Measured(
        lambda f: AdaptiveClipping(FedAvg(), f), {"pass": 3}, lambda b, f: averaged(b, "ARC", f)
    ),
    "Bucketing(FedAvg)": Measured(
        lambda f: Bucketing(FedAvg(), 2, seed=0),  # noqa: ARG005
        {"pass": 2}, lambda b, f: averaged(b, "Bucketing", 2),  # noqa: ARG005
    ),
    # Two partitions of the half of the models that are left.
    "Bulyan": Measured(Bulyan, {"Gram": 1, "partition": 1}),
    "CenteredClipping": Measured(
        lambda f: CenteredClipping(1.0),  # noqa: ARG005
        {"pass": 2}, lambda b, f: b("aggregators").CenteredClipping(tau=1.0),  # noqa: ARG005
    ),
    "DnC": Measured(lambda f: DnC(f, seed=0), {"pass": 2}),
    "FedAvg": Measured(
        lambda f: FedAvg(), {"pass": 1}, lambda b, f: b("aggregators").Average()  # noqa: ARG005
    ),
    "GeometricMedian": Measured(
        lambda f: GeometricMedian(),  # noqa: ARG005
        {"pass": 6}, lambda b, f: b("aggregators").GeometricMedian(),  # noqa: ARG005
    ),
    "Krum": Measured(Krum, {"Gram": 1}, lambda b, f: b("aggregators").Krum(f)),
    "Median": Measured(
        lambda f: Median(), {"partition": 1}, lambda b, f: b("aggregators").Median()  # noqa: ARG005
    ),
    "MultiKrum": Measured(
        lambda f: MultiKrum(f, 3), {"Gram": 1}, lambda b, f: b("aggregators").MultiKrum(f)
    ),
    "NearestNeighborMixing(FedAvg)": Measured(
        lambda f: NearestNeighborMixing(FedAvg(), f),
        {"Gram": 1, "mix": 1, "pass": 1}, lambda b, f: averaged(b, "NNM", f),
    ),
    "NormClipping(FedAvg)": Measured(
        lambda f: NormClipping(FedAvg(), "median"), {"pass": 3}  # noqa: ARG005
    ),
    "RobustLearningRate(FedAvg)": Measured(
        lambda f: RobustLearningRate(FedAvg(), f + 1), {"pass": 2}
    ),
    "SignGuard": Measured(lambda f: SignGuard(seed=0), {"pass": 2}),  # noqa: ARG005
    "TrimmedMean": Measured(
        lambda f: TrimmedMean(0.2),  # noqa: ARG005
        {"partition": 1}, lambda b, f: b("aggregators").TrMean(f),
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


def fill(models: Matrix) -> None:
    """Draw the models, always the same."""
    np.random.default_rng(0).standard_normal(out=models, dtype=np.float32)


def prepared(measured: Measured, models: Matrix) -> Callable[[], object]:
    """Return a function that plays a rule on models, with all that it imports loaded."""
    strategy, some = measured.rule((len(models) - 3) // 4), round_of(models[:, :100].copy())
    strategy._sent = some.sent
    if isinstance(strategy, Wrapper):
        strategy.inner._sent = some.sent
    strategy.aggregate(some)
    round = round_of(models)
    return lambda: strategy.aggregate(round.with_models(models))


def attempted(twin: Twin, models: NDArray[np.floating]) -> float:
    """Return how long it takes; infinitely, where it asks for more memory than there is."""
    try:
        return seconds(partial(twin, models))
    except MemoryError:
        return np.inf


def ratios(measured: Measured, models: Matrix, repeats: int) -> list[float]:
    """Return the median ratio of a rule to its bound; and byzfl's, in float32 and in float64.

    Byzfl's compute in the precision that they are given, ours in float64 whatever they are given.
    """
    work, taken = prepared(measured, models), []
    make = measured.byzfl if models.nbytes <= _PEERS else None
    twin = make and make(byzfl_module, (len(models) - 3) // 4)
    for _ in range(repeats):
        least = sum(
            times * seconds(partial(BOUNDS[name], models)) for name, times in measured.least.items()
        )
        own = [seconds(work)]
        fill(models)  # which a rule may overwrite
        if twin:
            own += [attempted(twin, models.astype(dtype)) for dtype in (np.float32, np.float64)]
        taken.append([time / least for time in own])
    return [median(column) for column in zip(*taken, strict=True)]


def table(sizes: list[tuple[int, int]], repeats: int) -> None:
    """Print a line for each number of clients, of parameters, and rule."""
    for n, width in sizes:
        models = np.empty((n, width), np.float32)
        fill(models)
        print(f"{n:,} clients, d = {width:,}")
        for name, measured in RULES.items():
            own, *others = ratios(measured, models, repeats)
            beside = "; byzfl {:.2f}, in float64 {:.2f}".format(*others) if others else ""
            least = " + ".join(f"{times} {name}" for name, times in measured.least.items())
            print(f"  {name:30} {own:6.2f} times {least}{beside}", flush=True)
