"""What an experiment's malicious party does; who it is follows from where the trigger lies."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.vertical import (
    GradientReplacementParty,
    LabelInferenceParty,
    LocalizedReplacementParty,
    PassiveParty,
)
from strategies.vertical import ActiveParty, BackdoorActiveParty, SumTop

from ..errors import UserError


@dataclass(frozen=True)
class Setting:
    """What an attack may know.

    Attributes
    ----------
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    trigger_columns : list of int
        Where the trigger lies in the attacker's block.
    target : int
        tau, the class that triggered rows shall get.
    labels : Tensor of shape (N,)
        Of the train rows: attacks take from them only what their threat model says they know.
    seed : int
        Of the experiment.
    """

    poisoned_rows: Tensor
    trigger_columns: list[int]
    target: int
    labels: Tensor
    seed: int


@dataclass(kw_only=True)
class VerticalAttack(ABC):
    """An attack by the passive party that holds the trigger, or by the active party.

    Attributes
    ----------
    target : str
        Name of the class that triggered rows shall get.
    """

    target: str

    @abstractmethod
    def describe(self, party: int) -> str:
        """Say in a few words who does what; ``party`` is the one that holds the trigger."""

    def passive_party(
        self,
        setting: Setting,  # noqa: ARG002
        model: nn.Module,
        train: Tensor,
        test: Tensor,
        **options: Any,
    ) -> PassiveParty:
        """Build the passive party that holds the trigger; arguments as for `PassiveParty`."""
        return PassiveParty(model, train, test, **options)

    def active_party(
        self,
        setting: Setting,  # noqa: ARG002
        top: nn.Module,
        labels: Tensor,
        **options: Any,
    ) -> ActiveParty:
        """Build the active party; arguments as for `ActiveParty`."""
        return ActiveParty(top, labels, **options)

    def check(self, setting: Setting, top: nn.Module) -> None:  # noqa: B027
        """Refuse a setting in which the attack cannot work.

        Raises
        ------
        UserError
            Naming the key at fault.
        """


@dataclass(kw_only=True)
class NoAttack(VerticalAttack):
    """Nobody attacks; the metrics of the backdoor are measured all the same."""

    def describe(self, party: int) -> str:  # noqa: ARG002
        """Say so."""
        return "nobody attacks"


@dataclass(kw_only=True)
class GradientReplacement(VerticalAttack):
    """Section 5.3, Algorithms 2 and 3.

    Attributes
    ----------
    gamma : float
        Factor on the recorded gradient.
    num_targets : int
        Known samples of the target class, D_target: a seeded draw.
    blur_variance : float or None
        Variance of the vectors sent for poisoned rows (Algorithm 3); None: none are.
    """

    gamma: float = 10.0
    num_targets: int = 1
    blur_variance: float | None = None

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if not 0 <= self.gamma < float("inf"):
            raise UserError(f"attack.gamma={self.gamma}: allowed is 0 or more")
        if self.num_targets < 1:
            raise UserError(f"attack.num_targets={self.num_targets}: allowed is 1 or more")
        if self.blur_variance is not None and not 0 <= self.blur_variance < float("inf"):
            raise UserError(
                f"attack.blur_variance={self.blur_variance}: allowed is null, or 0 or more"
            )

    def describe(self, party: int) -> str:
        """Name the algorithm and gamma."""
        blurred = "" if self.blur_variance is None else ", blurs activations"
        return f"party {party} replaces gradients, gamma {self.gamma:g}{blurred}"

    def target_rows(self, setting: Setting) -> Tensor:
        """Draw D_target: train rows of the target class without the trigger."""
        rows = np.flatnonzero(setting.labels.numpy() == setting.target)
        clean = np.setdiff1d(rows, setting.poisoned_rows.numpy())
        rng = np.random.default_rng([setting.seed, 22])
        return torch.from_numpy(np.sort(rng.permutation(clean)[: self.num_targets]))

    def check(self, setting: Setting, top: nn.Module) -> None:  # noqa: ARG002
        """Refuse more known samples than there are."""
        found = len(self.target_rows(setting))
        if found < self.num_targets:
            allowed = f"allowed are 1 to {found}" if found else "there are none"
            raise UserError(
                f"attack.num_targets={self.num_targets}: {allowed}, the train rows of "
                f"{self.target} without the trigger"
            )

    def passive_party(
        self, setting: Setting, model: nn.Module, train: Tensor, test: Tensor, **options: Any
    ) -> PassiveParty:
        """Build the attacker."""
        return GradientReplacementParty(model, train, test, **self._arguments(setting), **options)

    def _arguments(self, setting: Setting) -> dict[str, Any]:
        return {
            "target_rows": self.target_rows(setting),
            "poisoned_rows": setting.poisoned_rows,
            "gamma": self.gamma,
            "blur_variance": self.blur_variance,
        }


@dataclass(kw_only=True)
class LocalizedReplacement(GradientReplacement):
    """The reliable variant; see `clients.vertical.LocalizedReplacementParty`."""

    blur_variance: float | None = 1e-6

    def describe(self, party: int) -> str:
        """Name the variant."""
        return f"{super().describe(party)}, moves the trigger's weights only"

    def passive_party(
        self, setting: Setting, model: nn.Module, train: Tensor, test: Tensor, **options: Any
    ) -> PassiveParty:
        """Build the attacker."""
        return LocalizedReplacementParty(
            model,
            train,
            test,
            trigger_columns=setting.trigger_columns,
            **self._arguments(setting),
            **options,
        )


@dataclass(kw_only=True)
class LabelInference(VerticalAttack):
    """Section 5.3: read labels off the gradients' signs, replace the gradients directly."""

    def describe(self, party: int) -> str:
        """Name the attack."""
        return f"party {party} infers labels and replaces gradients directly"

    def check(self, setting: Setting, top: nn.Module) -> None:  # noqa: ARG002
        """Refuse a top that hides the labels."""
        if not isinstance(top, SumTop):
            raise UserError(
                f"attack=label_inference: {type(top).__name__} sends no gradients of the classes' "
                "scores; allowed is top=sum"
            )

    def passive_party(
        self, setting: Setting, model: nn.Module, train: Tensor, test: Tensor, **options: Any
    ) -> PassiveParty:
        """Build the attacker."""
        return LabelInferenceParty(
            model,
            train,
            test,
            poisoned_rows=setting.poisoned_rows,
            target=setting.target,
            **options,
        )


@dataclass(kw_only=True)
class ActivePartyBackdoor(VerticalAttack):
    """Section 5.2: the active party sends the gradient of the backdoor's loss."""

    def describe(self, party: int) -> str:  # noqa: ARG002
        """Name the attack."""
        return "the active party sends the gradients of its backdoor"

    def active_party(
        self, setting: Setting, top: nn.Module, labels: Tensor, **options: Any
    ) -> ActiveParty:
        """Build the attacker."""
        return BackdoorActiveParty(
            top, labels, poisoned_rows=setting.poisoned_rows, target=setting.target, **options
        )
