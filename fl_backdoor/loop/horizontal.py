"""The horizontal experiment: data, a crowd of clients, and the training of a run and its twin."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from strategies import Robust

from ..data.base import Source
from ..data.partition import class_counts
from ..federation.horizontal import Federation, make_client_app
from ..federation.node import settle_data
from ..federation.roll import Roll
from ..federation.strategy import needed, new_strategy
from ..measure.own import add_own
from ..schema import Config
from ..screen import class_name, counted
from .means import Means
from .round import Rounds
from .twins import SharedTwin
from .twins import key as twin_key

MOST_LISTED = 20
"""Attackers that are listed in the first lines of a run."""


class Horizontal:
    """Clients that hold samples, and the strategy that averages their models.

    Parameters
    ----------
    config : Config
        What to run.
    twins : Path, optional
        Where runs share their clean twins; see `SharedTwin`.
    """

    unit: ClassVar[str] = "round"

    def __init__(self, config: Config, twins: Path | None = None) -> None:
        self.config = settle_data(config, Source)
        self.twins = twins
        self.federation = Federation(config)
        self.nodes = config.num_clients
        self.workers = 1
        self.twin: Rounds | None = None

    def describe_data(self) -> str:
        """Say which data are used."""
        return self.federation.data.description

    def describe(self) -> str:
        """Say who trains and who attacks."""
        config, attackers = self.config, self.federation.attackers
        who = "no attackers"
        if attackers:
            listed = f" {list(attackers)}" if len(attackers) <= MOST_LISTED else ""
            who = f"{counted(len(attackers), 'attacker')}{listed}"
        crowd, size = counted(config.num_clients, "client"), self.federation.cohort.size
        if size(config.num_clients) < config.num_clients:
            crowd += f", {size(config.num_clients)} a round"
        samples = config.root.samples
        root = f", {counted(samples, 'root sample')} at the server" if samples else ""
        return (
            f"{crowd}, {who}{root}; {self.federation.describe_attack()}; "
            f"strategy {class_name(config.strategy)}; {counted(config.num_rounds, 'round')}"
        )

    def draw(self, path: Path) -> None:
        """Draw who holds how many rows of each class."""
        from ..measure.shares import draw_shares

        federation = self.federation
        labels, classes = federation.data.train.labels.numpy(), federation.classes
        counts = class_counts(labels, federation.partitions, len(classes))
        draw_shares(counts, classes, path / "partition.png")

    def check(self) -> None:
        """Build every attacker once, and draw the test set."""
        config, federation = self.config, self.federation
        add_own("measure.extra", config.measure.extra)
        federation.check()
        strategy = self.new_strategy()
        federation.cohort.check(
            config.num_clients, config.num_rounds, len(federation.attackers), needed(strategy)
        )
        self.test_set = federation.test_set()

    def client_app(self) -> ClientApp:
        """Return what every node runs."""
        return make_client_app(self.config)

    def training(self, *, clean: bool) -> "Rounds | SharedTwin":
        """Return the training of the run, or of its clean twin, with a strategy of its own."""
        rounds = Rounds(self, self.new_strategy(), clean=clean)
        if clean:
            self.twin = rounds
            if self.twins is not None:
                return SharedTwin(rounds, self.twins / twin_key(self.config))
        return rounds

    def new_strategy(self) -> Robust:
        """Build the strategy, with all that a rule may need of an app."""
        return new_strategy(self.config, Means(self.federation))

    def meet(self, grid: Grid, workers: int, say: Callable[[str], None]) -> None:
        """Call the roll, by which nodes may say that they attack."""
        config, federation, self.workers = self.config, self.federation, workers
        self.roll = Roll(grid, config.num_clients, federation.data.name, config.round_timeout)
        if self.roll.attackers != federation.attackers:
            say(f"Attackers by node config: {list(self.roll.attackers)}")
            federation.enlist(self.roll.attackers)
            federation.check()
