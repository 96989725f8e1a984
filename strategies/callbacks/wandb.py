"""Rounds in Weights & Biases: https://wandb.ai."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tracker import Tracker, needed


class WeightsAndBiases(Tracker):
    """Write the numbers of each round into a run of its own.

    Parameters
    ----------
    project : str (default: "federation")
        The project that the run belongs to.
    mode : {"online", "offline", "disabled"}, optional
        Whether it is sent, or kept in a folder; else W&B's own choice (``WANDB_MODE``).
    folder : str or Path, optional
        Where it is kept; else W&B's own choice.
    name : str, optional
        Of the run.

    Raises
    ------
    ImportError
        If wandb is missing.
    """

    def __init__(
        self,
        project: str = "federation",
        mode: str | None = None,
        folder: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        self.project, self.mode, self.folder, self.name = project, mode, folder, name
        with needed("WeightsAndBiases", "wandb"):
            import wandb
        self._wandb = wandb
        self._run: Any = None

    def open(self, number: int) -> None:  # noqa: ARG002
        """Begin a run."""
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=self.project,
            mode=self.mode,
            dir=None if self.folder is None else str(self.folder),
            name=self.name,
            config=dict(self.settings),
        )

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Add the numbers."""
        self._run.log(dict(values), step=number)

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
