"""The one loop of both protocols: train the clean twin and the run, keep, show, resume."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from numpy.typing import NDArray

from ..federation.engines import launch
from ..files import FORMAT, TWIN, Row, Summary, stored_source
from ..measure.measures import summarized
from ..schema import CommonConfig, Config, VerticalConfig
from .directory import RunDirectory
from .display import Display
from .machine import peak_memory, versions
from .tracking import Tracking


class Training(Protocol):
    """One training from the first to the last round: the run, or its clean twin."""

    name: str
    total: int
    """Rounds or epochs."""

    def begin(self, directory: RunDirectory) -> None:
        """Go on from what the directory holds, which may be nothing."""

    def step(
        self, number: int, twin: Row | None
    ) -> tuple[Row, ArrayRecord, Mapping[str, NDArray[Any]]]:
        """Do a round: return its row, the model after it, and what is to be remembered.

        Parameters
        ----------
        number : int
            Counted from 1.
        twin : dict or None
            The row that the clean twin has of it.
        """

    def summary(self, rows: list[Row]) -> Summary:
        """Return what the summary says beside the measures.

        Raises
        ------
        UserError
            If all rounds are done, and there is no result all the same.
        """


class Experiment(Protocol):
    """What a protocol makes of a configuration; it has been checked once it is there."""

    unit: ClassVar[str]
    """What a round is called: "round" or "epoch"."""
    nodes: int
    """Clients or passive parties."""

    def describe_data(self) -> str:
        """Say in one line which data are used."""

    def describe(self) -> str:
        """Say in one line what is about to run."""

    def draw(self, path: Path) -> None:
        """Draw what belongs to the setting, beside the results, into a folder."""

    def check(self) -> None:
        """Build every part once, so that bad input shows before any training.

        Raises
        ------
        UserError
            Naming the key at fault.
        """

    def client_app(self) -> ClientApp:
        """Return what every node runs."""

    def training(self, *, clean: bool) -> Training:
        """Return the training of the run, or of its clean twin."""

    def meet(self, grid: Grid, workers: int, say: Callable[[str], None]) -> None:
        """Find out who takes part."""


def run(
    config: CommonConfig,
    path: Path,
    display: Display,
    grid: Grid | None = None,
    twins: Path | None = None,
) -> Summary:
    """Run one experiment from its configuration to its summary and figures.

    Parameters
    ----------
    config : Config or VerticalConfig
        What to run.
    path : Path
        The run directory.
    display : Display
        What the user sees.
    grid : Grid, optional
        A federation that is already there. None: one is launched, as ``config.engine`` says.
    twins : Path, optional
        The folder in which horizontal runs that are made there share their clean twins.

    Raises
    ------
    UserError
        On bad input, before any training starts. When a round lacks nodes, a party fails, or no
        reply was ever valid; the rounds that are done are kept.
    """
    if config.resume:
        config.dataset = config.dataset | stored_source(path, config.dataset)
    experiment = _experiment(config, twins)
    display.line(f"Data: {experiment.describe_data()}")
    experiment.check()
    trainings = [experiment.training(clean=clean) for clean in [True] * config.floor + [False]]
    unit, resolved = experiment.unit, asdict(config)
    tracking, tracked = Tracking(config, path, unit), ExitStack()
    directory = RunDirectory(path, resolved, resume=config.resume, unit=unit)
    directories = [directory]
    if config.floor:
        twin = RunDirectory(path / TWIN, resolved, resume=config.resume, unit=unit)
        directories.insert(0, twin)
    display.line(
        f"Setting: {experiment.describe()}; engine {config.engine.kind}; seed {config.seed}"
    )

    def main(grid: Grid, workers: int) -> None:
        experiment.meet(grid, workers, display.line)
        twin_rows: list[Row] = []
        for training, directory in zip(trainings, directories, strict=True):
            add = tracking.add if training is trainings[-1] else None
            train(training, directory, display, twin_rows, add)
            rows = twin_rows = directory.rows
            head = {"name": config.name, "seed": config.seed, f"{unit}s": len(rows)}
            made = {"versions": versions(), "peak_memory": peak_memory(), "format": FORMAT}
            rest = training.summary(rows) | made
            directory.finish(head | summarized(unit, rows) | rest)
        tracked.close()
        show()  # before the federation is left, which may fail

    def show() -> None:
        if display.figures:
            experiment.draw(path)
        display.result(directory.summary(), directory)

    if directory.complete:
        show()
    else:
        with tracked:
            tracking.begin(directory.rows)
            tracked.callback(tracking.close)
            launch(config.engine, experiment.client_app(), experiment.nodes, main, grid)
    return directory.summary()


def train(
    training: Training,
    directory: RunDirectory,
    display: Display,
    twin_rows: list[Row],
    track: Callable[[Row], None] | None = None,
) -> None:
    """Do the rounds that are still missing, and keep, show and track each as it is done."""
    done = len(directory.rows)
    display.begin(training.name, directory.unit, training.total, directory.rows)
    try:
        training.begin(directory)
        for number in range(done + 1, training.total + 1):
            twin = twin_rows[number - 1] if twin_rows else None
            row, arrays, memory = training.step(number, twin)
            directory.append(row, arrays, memory)
            display.round(row)
            if track is not None:
                track(directory.rows[-1])
    finally:
        display.end()


def _experiment(config: CommonConfig, twins: Path | None) -> Experiment:
    if isinstance(config, VerticalConfig):
        from .epoch import Vertical

        return Vertical(config)
    from .horizontal import Horizontal

    assert isinstance(config, Config)
    return Horizontal(config, twins)
