"""Tests of ``docs/methods.md``: it is what docstrings and yaml say, and they say enough."""

import inspect
from typing import Any

import pytest

import clients.vertical
import strategies.vertical
from benchmarks.methods import ATTACK_TERMS, PAGE, TERMS, methods, prose, rebuilt, terms

from .test_contract_attacks import NAMES as ATTACKS
from .test_contract_strategies import NAMES as STRATEGIES


def kind(group: str, name: str) -> type[Any]:
    """Return the class of a method, of those that are composed once."""
    return {method.name: method.kind for method in methods(group)}[name]


def test_the_page_is_what_docstrings_and_yaml_say() -> None:
    page = PAGE.read_text()
    assert rebuilt(page) == page, "python -m benchmarks.methods"


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_defense_says_what_it_is_for_and_what_it_costs(name: str) -> None:
    optional = {"Remembers", "Guarantee"}
    missing = {*TERMS} - optional - terms(kind("strategy", name)).keys()
    assert not missing, f"{name}: notes of {sorted(missing)}"


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "none"])
def test_an_attack_says_what_it_knows_and_what_it_costs(name: str) -> None:
    missing = {*ATTACK_TERMS} - terms(kind("attack", name), ATTACK_TERMS).keys()
    assert not missing, f"{name}: words of {sorted(missing)}"


def test_so_do_those_of_split_learning() -> None:
    defended = ("Threat model", "Assumes", "Cost", "Known weaknesses")
    for package, base, words in (
        (clients.vertical, clients.vertical.PartyAttack, ATTACK_TERMS),
        (strategies.vertical, strategies.vertical.VerticalDefense, defended),
    ):
        public = (getattr(package, name) for name in package.__all__)
        kinds = [one for one in public if inspect.isclass(one) and issubclass(one, base)]
        assert len(kinds) > 3
        for one in kinds:
            missing = {*words} - terms(one, words).keys()
            assert one is base or not missing, f"{one.__name__}: words of {sorted(missing)}"


@pytest.mark.parametrize(
    ("group", "name"),
    [("strategy", name) for name in STRATEGIES]
    + [("attack", name) for name in ATTACKS if name != "none"],
)
def test_its_prose_has_no_section_left_in_it(group: str, name: str) -> None:
    said = prose(kind(group, name))
    assert "----" not in said
    assert "Parameters\n" not in said


def test_the_words_of_a_term_end_where_the_next_begins() -> None:
    class Rule:
        """Do something.

        Notes
        -----
        *Threat model*: few attack. *Assumes*
        nothing. *Cost*: little. *Known
        weaknesses*: many.

        More is said.
        """

    assert terms(Rule) == {
        "Threat model": "few attack.", "Assumes": "nothing.", "Cost": "little.",
        "Known weaknesses": "many.",
    }  # fmt: skip
