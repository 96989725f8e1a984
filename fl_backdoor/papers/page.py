"""The parts of a page that runs decide: tables of claims, put between marks."""

import re
from collections.abc import Mapping

import pandas as pd

from . import cao2019, cao2019_runs, liu2020
from .claims import markdown

PAPERS = {
    "cao2019": {
        "claims": lambda table: markdown(cao2019.claims(table)),
        "readings": cao2019_runs.readings,
        "choices": cao2019_runs.choices,
    },
    "liu2020": {"claims": lambda table: markdown(liu2020.claims(table))},
}
"""By plan, what is made of the table of its runs."""


def parts(plan: str, table: pd.DataFrame) -> dict[str, str]:
    """Return the parts of a paper's page by name, from the table of its runs; see `tidy`."""
    return {f"{plan} {name}": make(table) for name, make in PAPERS[plan].items()}


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Put each part where the page has the marks ``<!-- NAME -->`` and ``<!-- end -->``.

    Raises
    ------
    ValueError
        If the page lacks the marks of a part.
    """
    for name, part in parts.items():
        start, end = f"<!-- {name} -->", "<!-- end -->"
        place = re.search(re.escape(start) + ".*?" + re.escape(end), page, re.DOTALL)
        if place is None:
            raise ValueError(f"the page has no {start} ... {end}")
        page = f"{page[: place.start()]}{start}\n{part}\n{end}{page[place.end() :]}"
    return page
