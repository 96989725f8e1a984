"""Rebuild ``docs/reproduction.md`` from the tables in ``docs/data``.

python -m benchmarks.reproduction [cao2019|liu2020 RUNS...]

With runs, those are added to the table of the paper first; of the same setting the new one stays.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fl_backdoor.papers.page import PAPERS, filled, parts
from fl_backdoor.papers.tidy import store, stored, tidy, united

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "reproduction.md"


def tables() -> dict[str, pd.DataFrame]:
    """Read the stored table of each paper."""
    return {plan: stored(DOCS / "data" / f"{plan}.csv") for plan in PAPERS}


def rebuilt(page: str) -> str:
    """Return the page with the parts that the stored tables make."""
    for plan, table in tables().items():
        page = filled(page, parts(plan, table))
    return page


def main(arguments: Sequence[str]) -> None:
    """Store what there is, and rebuild the page."""
    if arguments:
        plan, *runs = arguments
        path = DOCS / "data" / f"{plan}.csv"
        before = [stored(path)] if path.exists() else []
        store(united(tidy(map(Path, runs)), *before), path)
    PAGE.write_text(rebuilt(PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
