"""Tests of `clients.ModelReplacement`: its factor follows from who takes part in a round."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients import MaliciousClient, ModelReplacement, Seat
from fl_backdoor.federation.cohort import Cohort
from fl_backdoor.federation.horizontal import Federation

from .test_experiment import tiny


@given(clients=st.integers(2, 30), data=st.data())
def test_the_average_becomes_the_attackers_model(clients: int, data: st.DataObject) -> None:
    """With honest updates of 0, and everybody there."""
    attackers = data.draw(st.integers(1, clients))
    told = Cohort().clients_per_attacker(clients, attackers)
    update = {"w": np.random.default_rng(0).normal(size=5)}
    sent = ModelReplacement().craft(update, Seat(clients_per_attacker=told))
    average = attackers * sent["w"] / clients
    np.testing.assert_allclose(average, update["w"])


@pytest.mark.parametrize("attackers", [1, 2, 4])
@pytest.mark.parametrize("m", [1, 3, 6])
def test_a_part_of_the_crowd_has_as_many_attackers_as_all_its_rounds_on_average(
    m: int, attackers: int
) -> None:
    """A slow twin: all rounds of m of 6 clients in which attacker 0 takes part."""
    rounds = [drawn for drawn in combinations(range(6), m) if 0 in drawn]
    met = [sum(client < attackers for client in drawn) for drawn in rounds]
    told = Cohort(clients_per_round=m).clients_per_attacker(6, attackers)
    assert told == pytest.approx(m / np.mean(met))


def test_where_their_number_is_fixed_it_is_that() -> None:
    assert Cohort(clients_per_round=6, attackers_per_round=2).clients_per_attacker(20, 5) == 3
    assert Cohort(clients_per_round=6, attackers_per_round=0).clients_per_attacker(20, 1) == 6
    assert Cohort().clients_per_attacker(1, 1) == 1


def test_a_federation_tells_its_attackers() -> None:
    own = ["attack=model_replacement", "cohort.clients_per_round=4", "cohort.attackers_per_round=2"]
    federation = Federation(tiny(*own))
    attacker = federation.client(0)
    assert isinstance(attacker, MaliciousClient)
    assert attacker.seat.clients_per_attacker == 2
    federation.enlist((0, 1, 2))
    assert isinstance(federation.client(1), MaliciousClient)


def test_one_who_is_not_told_must_be_given_it(train_message: Callable[..., Message]) -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    data = torch.ones(4, 2), torch.tensor([0, 1, 0, 1])
    alone = MaliciousClient(nn.Linear(2, 2), *data, attack=ModelReplacement())
    with pytest.raises(ValueError, match="factor=None: allowed is a number where"):
        alone.train(train_message(ArrayRecord(alone.model.state_dict())), context)
