"""The configuration of split learning."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from .config import MAX_BATCH, CommonConfig, check_least, check_most


@dataclass
class VerticalTrainingConfig:
    """See ``conf/protocol/vertical.yaml``."""

    batch_size: int = MISSING
    learning_rate: float = MISSING
    local_steps: int = MISSING


@dataclass
class VerticalConfig(CommonConfig):
    """Vertical; the parts of type Any, and each defense, are built from their ``_target_``."""

    num_epochs: int = MISSING
    active_features: bool = MISSING
    training: VerticalTrainingConfig = field(default_factory=VerticalTrainingConfig)
    dataset: Any = MISSING
    bottom: Any = MISSING
    top: Any = MISSING
    attack: Any = MISSING
    defenses: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse values that are out of range."""
        super().check()
        training = self.training
        check_least(
            ("num_epochs", self.num_epochs, 1),
            ("training.batch_size", training.batch_size, 1),
            ("training.learning_rate", training.learning_rate, 0),
            ("training.local_steps", training.local_steps, 1),
        )
        check_most(("training.batch_size", training.batch_size, MAX_BATCH))


ConfigStore.instance().store(name="vertical_schema", node=VerticalConfig)
