"""Who attacks in an experiment of split learning, and what the attack is told."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from hydra.errors import HydraException
from hydra.utils import get_object
from torch import Tensor, nn

from clients import Attack
from clients.vertical import PartyAttack
from strategies.vertical import ActiveParty, BackdoorActiveParty, SumTop

from ..config import build, one_line
from ..errors import UserError

TOLD = {"poisoned_rows", "target", "target_rows", "trigger_columns"}
"""What an attack is told by the experiment and not by its own keys."""


@dataclass(frozen=True)
class Setting:
    """What an attack may know.

    Attributes
    ----------
    poisoned_rows : Tensor of shape (p,)
        D_poison: train rows that carry the trigger.
    target : int
        tau, the class that triggered rows shall get.
    labels : Tensor of shape (N,)
        Of the train rows: attacks are told of them only what their threat model says they know.
    seed : int
        Of the experiment.
    """

    poisoned_rows: Tensor
    target: int
    labels: Tensor
    seed: int


@dataclass(kw_only=True)
class VerticalAttack(ABC):
    """An attack on split learning: by passive parties, by the active party, by nobody.

    Attributes
    ----------
    target : str
        Name of the class that triggered rows shall get.
    """

    target: str

    @property
    def adaptive(self) -> bool:
        """Whether it reckons with the defenses that it meets."""
        return False

    @abstractmethod
    def describe(self, setting: Setting, parties: Sequence[int]) -> str:
        """Say in a few words who does what; ``parties`` are the passive ones that attack."""

    def attackers(self, num_parties: int, trigger_party: int) -> list[int]:  # noqa: ARG002
        """Return the passive parties that attack: none."""
        return []

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

    def describe(self, setting: Setting, parties: Sequence[int]) -> str:  # noqa: ARG002
        """Say so."""
        return "nobody attacks"


@dataclass(kw_only=True)
class ActivePartyBackdoor(VerticalAttack):
    """Section 5.2: the active party sends the gradient of the backdoor's loss."""

    def describe(self, setting: Setting, parties: Sequence[int]) -> str:  # noqa: ARG002
        """Name the attack."""
        return "the active party sends the gradients of its backdoor"

    def active_party(
        self, setting: Setting, top: nn.Module, labels: Tensor, **options: Any
    ) -> ActiveParty:
        """Build the attacker."""
        return BackdoorActiveParty(
            top, labels, poisoned_rows=setting.poisoned_rows, target=setting.target, **options
        )


@dataclass(kw_only=True)
class PassiveAttack(VerticalAttack):
    """A `clients.vertical.PartyAttack` by one passive party or more (section 5.1).

    Its constructor is told what it has an argument for of ``poisoned_rows``, ``target``,
    ``target_rows`` (D_target, a seeded draw of ``num_targets``) and ``trigger_columns`` (the
    trigger's part in the attacker's block, which may be empty).

    Attributes
    ----------
    kind : str
        The class that each of them runs.
    parties : list of int or None
        Who; None: the party that holds the trigger.
    num_targets : int
        Known samples of the target class.
    options : dict
        The other arguments of ``kind``.
    """

    kind: str
    parties: list[int] | None = None
    num_targets: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the keys that need no data."""
        if self.num_targets < 1:
            raise UserError(f"attack.num_targets={self.num_targets}: allowed is 1 or more")
        self._kind: type[PartyAttack] = get_object(self.kind)

    @property
    def adaptive(self) -> bool:
        """Whether the attack of the parties does."""
        return self._kind.adaptive

    def describe(self, setting: Setting, parties: Sequence[int]) -> str:
        """Name the attackers and what they do."""
        what = self.party_attack(setting, []).describe()
        if len(parties) == 1:
            return f"party {parties[0]} {what}"
        return f"parties {', '.join(map(str, parties))}: each {what}"

    def attackers(self, num_parties: int, trigger_party: int) -> list[int]:
        """Return the passive parties that attack.

        Raises
        ------
        UserError
            If one is named that is not there, or twice.
        """
        parties = [trigger_party] if self.parties is None else self.parties
        there = set(range(num_parties))
        if not parties or len(set(parties)) < len(parties) or not set(parties) <= there:
            raise UserError(
                f"attack.parties={parties}: allowed are different ones of 0 to {num_parties - 1}, "
                "one at least, or null for the party that holds the trigger"
            )
        return sorted(parties)

    def party_attack(self, setting: Setting, trigger_columns: list[int]) -> PartyAttack:
        """Build the attack of one of them.

        Raises
        ------
        UserError
            Naming the key that the attack refuses.
        """
        told = {
            "poisoned_rows": setting.poisoned_rows,
            "target": setting.target,
            "target_rows": self._target_rows(setting),
            "trigger_columns": trigger_columns,
        }
        arguments = {name: told[name] for name in told.keys() & arguments_of(self._kind)}
        try:
            return self._kind(**arguments, **self.options)
        except (TypeError, ValueError) as error:
            text = one_line(error)
            named = text.partition("=")[0] in self.options
            raise UserError(f"attack.{text}" if named else f"attack: {text}") from error

    def check(self, setting: Setting, top: nn.Module) -> None:
        """Refuse a top that hides what the attack needs, and more known samples than there are."""
        if self._kind.needs_scores and not isinstance(top, SumTop):
            name = re.sub("(?<!^)(?=[A-Z])", "_", self._kind.__name__).lower()
            raise UserError(
                f"attack={name}: {type(top).__name__} sends no gradients of the classes' scores; "
                "allowed is top=sum"
            )
        found = len(self._target_rows(setting))
        if found < self.num_targets and "target_rows" in arguments_of(self._kind):
            allowed = f"allowed are 1 to {found}" if found else "there are none"
            raise UserError(
                f"attack.num_targets={self.num_targets}: {allowed}, the train rows of "
                f"{self.target} without the trigger"
            )

    def _target_rows(self, setting: Setting) -> Tensor:
        """Draw D_target: train rows of the target class without the trigger."""
        rows = np.flatnonzero(setting.labels.numpy() == setting.target)
        clean = np.setdiff1d(rows, setting.poisoned_rows.numpy())
        rng = np.random.default_rng([setting.seed, 22])
        return torch.from_numpy(np.sort(rng.permutation(clean)[: self.num_targets]))


def build_attack(node: Any) -> VerticalAttack:
    """Build the attack that a config node names: a `VerticalAttack`, or any `PartyAttack`.

    Raises
    ------
    UserError
        If it is neither, or a key is unknown or of a wrong type.
    """
    try:
        kind = get_object(node["_target_"])
    except (HydraException, ImportError, ValueError, TypeError, KeyError, AttributeError):
        kind = None  # build says what is wrong
    if isinstance(kind, type) and issubclass(kind, Attack):
        raise UserError(f"attack._target_={node['_target_']}: allowed with protocol=horizontal")
    if isinstance(kind, type) and issubclass(kind, PartyAttack):
        arguments = arguments_of(kind)
        own = {"target", "parties"} | ({"num_targets"} if "target_rows" in arguments else set())
        allowed = own | (arguments - TOLD)
        for name in sorted(node.keys() - allowed - {"_target_"}):
            raise UserError(f"attack.{name}: unknown key; allowed are {', '.join(sorted(allowed))}")
        whole = {name: node[name] for name in own & node.keys()}
        whole["options"] = {name: node[name] for name in node.keys() - own - {"_target_"}}
        passive = f"{PassiveAttack.__module__}.{PassiveAttack.__name__}"
        node = {"_target_": passive, "kind": node["_target_"], **whole}
    attack: VerticalAttack = build("attack", node, VerticalAttack)
    return attack


def arguments_of(kind: type[PartyAttack]) -> set[str]:
    """Return the arguments of a class and of those that it passes its options on to."""
    names: set[str] = set()
    for base in kind.__mro__:
        parameters = signature(base).parameters.values()
        own = {
            parameter.name
            for parameter in parameters
            if parameter.kind is not Parameter.VAR_KEYWORD
        }
        names |= own
        if len(own) == len(parameters):
            break
    return names
