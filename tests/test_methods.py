"""Tests of ``docs/methods.md``: it is what docstrings and yaml say, and they say enough."""

import pytest

from benchmarks.methods import PAGE, TERMS, Method, methods, prose, rebuilt, terms

OWN = [method for group in ("strategy", "attack") for method in methods(group)]


def test_the_page_is_what_docstrings_and_yaml_say() -> None:
    page = PAGE.read_text()
    assert rebuilt(page) == page, "python -m benchmarks.methods"


@pytest.mark.parametrize("method", methods("strategy"), ids=lambda method: method.name)
def test_a_defense_says_what_it_is_for_and_what_it_costs(method: Method) -> None:
    optional = {"Remembers", "Guarantee"}
    missing = {*TERMS} - optional - terms(method.kind).keys()
    assert not missing, f"{method.kind.__name__}: notes of {sorted(missing)}"


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_its_prose_has_no_section_left_in_it(method: Method) -> None:
    assert "----" not in prose(method.kind)
    assert "Parameters\n" not in prose(method.kind)


def test_the_words_of_a_term_end_where_the_next_begins() -> None:
    class Rule:
        """Do something.

        Notes
        -----
        *Threat model*: few attack. *Assumes*
        nothing. *Cost*: little.

        More is said.
        """

    assert terms(Rule) == {
        "Threat model": "few attack.", "Assumes": "nothing.", "Cost": "little."
    }  # fmt: skip
