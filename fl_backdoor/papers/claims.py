"""What a paper says beside what runs show, and a verdict that follows from both by rule."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

REPRODUCED, TREND, NOT, UNKNOWN = "reproduced", "same trend", "not reproduced", "can't tell"

ENOUGH = 3
"""Seeds, below which nothing is judged."""


@dataclass(frozen=True)
class Claim:
    """A row of the page.

    Attributes
    ----------
    where : str
        The figure, table, proposition or sentence.
    paper, ours : str
        What the paper says, and what the runs do.
    seeds : int
        Least number of seeds behind ``ours``.
    verdict : str
        `REPRODUCED`, `TREND`, `NOT` or `UNKNOWN`.
    reason : str
        Why we think so.
    command : str
        Experiment whose runs show it.
    """

    where: str
    paper: str
    ours: str
    seeds: int
    verdict: str
    reason: str
    command: str


def judged(
    where: str,
    paper: str,
    ours: str,
    seeds: int,
    *,
    holds: bool | None,
    trend: bool = False,
    reason: str,
    command: str,
    needs: int = ENOUGH,
) -> Claim:
    """Make a claim with its verdict.

    Parameters
    ----------
    holds : bool or None
        Whether the paper's statement holds; None where the runs cannot show it.
    trend : bool
        Whether its direction does, where the statement itself does not.
    needs : int
        Seeds below which it is not judged.
    """
    if seeds == 0:
        ours, verdict, reason = "not run yet", UNKNOWN, "no runs so far"
    elif seeds < needs:
        verdict, reason = UNKNOWN, f"{seeds} of {needs} seeds so far"
    elif holds is None:
        verdict = UNKNOWN
    else:
        verdict = REPRODUCED if holds else TREND if trend else NOT
    return Claim(where, paper, ours, seeds, verdict, reason, command)


def spread(values: pd.Series, unit: str = "%", digits: int = 2) -> str:
    """Write mean and standard deviation over seeds; fractions as percentages."""
    known = values.dropna() * (100 if unit == "%" else 1)
    if not len(known):
        return "-"
    text = f"{known.mean():.{digits}f}"
    return text + (f" ± {known.std():.{digits}f}" if len(known) > 1 else "")


def seeds(*tables: pd.DataFrame) -> int:
    """Return the least number of seeds that have a result, over some tables; 0 of none."""
    return min((len(set(table["seed"])) for table in tables), default=0)


def chosen(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows with some values in some columns; None is a cell that is empty."""
    rows = np.ones(len(table), bool)
    for name, value in values.items():
        column = table[name]
        rows &= (column.isna() if value is None else column == value).to_numpy(bool)
    return table[rows]


def in_all(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows whose seed every value of a column has: means of others differ by seeds."""
    found = table.groupby("seed")[column].transform("nunique")
    return table[found == table[column].nunique()]


def markdown(claims: Iterable[Claim]) -> str:
    """Write claims as a table."""
    lines = [
        "| what | paper | here | seeds | verdict | why | runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for claim in claims:
        cells = (
            claim.where, claim.paper, claim.ours, str(claim.seeds), f"**{claim.verdict}**",
            claim.reason, f"`{claim.command}`",
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)
