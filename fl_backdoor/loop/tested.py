"""The global model on the test set, and the clean twin's with a trigger that was learned."""

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord
from torch import Tensor

from clients import Goal
from clients.seat import Memory

from ..federation.horizontal import Federation
from ..files import Row
from ..measure.answers import answers
from ..measure.judged import attack_success_interval
from ..measure.metrics import Answers, attack_success_rate


class Tested:
    """Runs models on the test set, and on what the attack is after.

    Parameters
    ----------
    federation : Federation
        Has the network and the attack's goal.
    test_set : pair of Tensor
        Inputs and labels.
    """

    def __init__(self, federation: Federation, test_set: tuple[Tensor, Tensor]) -> None:
        self.federation = federation
        self.test_set = test_set

    def answers(self, arrays: ArrayRecord, memory: Memory, *, clean: bool) -> Answers:
        """Run a model; in the clean twin nobody learned a trigger that it could be run with."""
        goal = self.federation.goal
        return self._run(
            arrays, None if clean and goal is not None and goal.learned else goal, memory
        )

    def twin(self, row: Row, arrays: ArrayRecord, memory: Memory) -> Row:
        """Return the last row of the clean twin, measured with the trigger that was learned.

        Its models are not kept: the floor of the rounds before is left open.
        """
        goal = self.federation.goal
        if goal is None or not goal.learned:
            return row
        test = self._run(arrays, goal, memory)
        return row | {
            "attack_success_rate": attack_success_rate(test),
            "attack_success_interval": attack_success_interval(test),
        }

    def _run(self, arrays: ArrayRecord, goal: Goal | None, memory: Memory) -> Answers:
        model = self.federation.model
        model.load_state_dict(arrays.to_torch_state_dict())
        return answers(model, *self.test_set, goal, memory, len(self.federation.classes))


def learned(memory_of: Callable[[int], Memory], clients: Iterable[int]) -> Memory:
    """Return what the first of some clients remembers that remembers anything."""
    return next(filter(None, map(memory_of, clients)), {})
