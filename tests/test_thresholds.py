"""Tests of the table of Sniper's thresholds: it is made of its stored rows."""

import pandas as pd

from benchmarks.thresholds import KEYS, PAGE, part, rebuilt, stored


def test_the_page_is_made_of_the_stored_rows() -> None:
    page = PAGE.read_text()
    assert rebuilt(page, stored()) == page, "python -m benchmarks.thresholds"


def test_a_line_has_both_thresholds_and_no_recall_without_attackers() -> None:
    rows = [
        dict(zip(KEYS, ("digits", "iid", 0, seed, threshold), strict=True))
        | {"accuracy": accuracy, "caught": None, "honest_left_out": 10.0}
        for seed in (0, 1)
        for threshold, accuracy in (("0.5", 80.0), ("auto", 91.0))
    ]
    line = part(pd.DataFrame(rows)).splitlines()[-1]
    assert line == "| `digits` | iid | 0 | 2 | - | 10 | 80 | - | 10 | 91 |"
