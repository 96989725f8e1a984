"""The rows of a run in a tracker of experiments, beside the run directory."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from strategies.callbacks import Tracker, numbers
from strategies.watch import Guard

from ..config import accepted, build, one_line
from ..errors import UserError
from ..files import Row, flatten_config
from ..schema import CommonConfig


class Tracking:
    """What ``tracker=...`` stands for.

    Parameters
    ----------
    config : Config or VerticalConfig
        Of the run.
    path : Path
        The run directory.
    unit : {"round", "epoch"}
        What the rows are.

    Raises
    ------
    UserError
        If the tracker's package is missing, or a setting is none of its.
    """

    def __init__(self, config: CommonConfig, path: Path, unit: str) -> None:
        offered = {"folder": str(path / "tracker"), "name": config.name}
        arguments: Mapping[str, str] = accepted("tracker", config.tracker, offered)
        self._tracker: Tracker = build("tracker", config.tracker, Tracker, **arguments)
        self._tracker.settings = flatten_config(asdict(config))
        self._unit = unit
        self._guard = Guard()

    def begin(self, rows: list[Row]) -> None:
        """Begin before any training, with the rows that are there already.

        Raises
        ------
        UserError
            If the tracker cannot: its server is out of reach, say.
        """
        try:
            self._tracker.begin(1)
        except Exception as error:  # a package's own, of many kinds
            raise UserError(f"tracker: {one_line(error)}") from error
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add the row of a round or epoch; a failure is said once, and ends no training."""
        self._guard(self._tracker.write, row[self._unit], numbers(row))

    def close(self) -> None:
        """End, and say how often it failed."""
        self._guard(self._tracker.close)
        self._guard.report()
