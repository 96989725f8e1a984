"""What a strategy can be given as ``on_round``: the rounds in files, on a page, in a tracker."""

from .files import Csv, JsonLines
from .mlflow import MLflow
from .page import Page
from .tensorboard import TensorBoard
from .tracker import Tracker, numbers
from .wandb import WeightsAndBiases

__all__ = [
    "Csv",
    "JsonLines",
    "MLflow",
    "Page",
    "TensorBoard",
    "Tracker",
    "WeightsAndBiases",
    "numbers",
]
