"""Models that the experiments train."""

from .cao2019 import Cao2019CNN
from .dense import DenseBottom
from .lenet5 import LeNet5
from .mlp import MLP
from .resnet18 import ResNet18
from .text import TextClassifier

__all__ = ["MLP", "Cao2019CNN", "DenseBottom", "LeNet5", "ResNet18", "TextClassifier"]
