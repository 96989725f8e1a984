"""Rounds in MLflow: https://mlflow.org."""

import time
from collections.abc import Mapping
from typing import Any

from .tracker import Tracker, needed

LONGEST = 500
"""Characters of a setting, which every version of a server takes."""


class MLflow(Tracker):
    """Write the numbers of each round as metrics of a run of its own.

    Parameters
    ----------
    experiment : str (default: "federation")
        The experiment that the run belongs to; it is made if there is none.
    uri : str, optional
        Of the tracking server or folder; else MLflow's own choice (``MLFLOW_TRACKING_URI``).
    name : str, optional
        Of the run.

    Raises
    ------
    ImportError
        If mlflow, or mlflow-skinny, is missing.
    """

    def __init__(
        self,
        experiment: str = "federation",
        uri: str | None = None,
        name: str | None = None,
    ) -> None:
        self.experiment, self.uri, self.name = experiment, uri, name
        with needed("MLflow", "mlflow"):
            import mlflow
        self._mlflow = mlflow
        self._client: Any = None

    def open(self, number: int) -> None:  # noqa: ARG002
        """Begin a run."""
        client, entities = self._mlflow.MlflowClient(self.uri), self._mlflow.entities
        found = client.get_experiment_by_name(self.experiment)
        key = client.create_experiment(self.experiment) if found is None else found.experiment_id
        self._run = client.create_run(key, run_name=self.name).info.run_id
        self._client = client
        settings = [entities.Param(k, str(v)[:LONGEST]) for k, v in self.settings.items()]
        for start in range(0, len(settings), 100):  # as many as a server takes at once
            client.log_batch(self._run, params=settings[start : start + 100])

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Add metrics."""
        metric, now = self._mlflow.entities.Metric, int(1000 * time.time())
        metrics = [metric(name, value, now, number) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """End the run."""
        if self._client is not None:
            self._client.set_terminated(self._run)
