"""Thresholds for your own model: ``python -m fl_backdoor.calibrate RUN_OR_LOG``.

Norms and distances depend on the model, the data and the learning rate. This reads those that some
rounds have recorded, in a run directory or in a log of JSON lines (JsonLines of
strategies.callbacks), and proposes settings, with how many honest clients each would have touched.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from strategies.graph.majority import first_majority
from strategies.rules.sniper import AUTO_STEP, AUTO_THRESHOLD, honest_scale

from .arguments import Parser
from .config import ending
from .errors import UserError
from .files import DISTANCES, METRICS
from .screen import Screen

LAMBDA = 0.001
"""FLAME's: noise as part of the median norm (Nguyen et al. 2022)."""


@dataclass(frozen=True)
class Recorded:
    """What some rounds have recorded.

    Attributes
    ----------
    norms : tuple of arrays of shape (n,)
        Of each round the Euclidean norms of the updates that are taken for honest; of a run
        directory least, mean and greatest.
    each : bool
        Whether a norm is one client's.
    distances : array of shape (n, n), or None
        Between the models of the last round.
    honest : array of shape (n,), bool, or None
        Whose distances those are.
    known : bool
        Whether it is known who attacked; else all count as honest.
    """

    norms: tuple[NDArray[np.float64], ...]
    each: bool
    distances: NDArray[np.float64] | None
    honest: NDArray[np.bool_] | None
    known: bool


@dataclass(frozen=True)
class Proposal:
    """A setting, and what it would have done.

    Attributes
    ----------
    setting : str
        A key of ``conf/strategy``.
    value : float
        What is proposed, in units of the model's parameters.
    touched : float or None
        The part of the honest that it would have clipped or dropped, 0 to 1; None of noise.
    of : str
        Of what that is a part.
    """

    setting: str
    value: float
    touched: float | None
    of: str


def read(path: Path, attackers: Collection[int] = ()) -> Recorded:
    """Read a run directory or a log.

    Parameters
    ----------
    path : Path
        A run directory, or a file of JSON lines.
    attackers : collection of int
        Of a log: clients that are known to have attacked, and are left out.

    Raises
    ------
    UserError
        If there is no such thing, or it holds no norms.
    """
    if not path.exists():
        raise UserError(f"{path}: no such run directory or log")
    if path.is_dir():
        return _run(path)
    norms, missing = [], set(attackers)
    for row in _lines(path):
        found = row.get("norms") or row.get("update_norms")
        if not found:
            continue
        clients = row.get("clients") or row.get("nodes") or range(len(found))
        missing -= set(clients)
        norms.append([x for x, who in zip(found, clients, strict=False) if who not in attackers])
    if missing:
        raise UserError(f"attackers={min(missing)}: no such client in {path}")
    if not any(norms):
        raise UserError(f"{path}: no round has norms; allowed are logs of callbacks.JsonLines")
    kept = tuple(np.array(some, dtype=np.float64) for some in norms if some)
    return Recorded(kept, each=True, distances=None, honest=None, known=bool(attackers))


def _run(path: Path) -> Recorded:
    """Read what the rounds of a run directory say of those who are honest."""
    if not (path / METRICS).exists():
        raise UserError(f"{path}: not a run directory; allowed is one with {METRICS}")
    rows = list(_lines(path / METRICS))
    names = [f"update_norm_honest_{which}" for which in ("min", "mean", "max")]
    norms = [[row[name] for name in names] for row in rows if row.get(names[0]) is not None]
    if not norms:
        raise UserError(f"{path}: its rows have no norms of updates; allowed are horizontal runs")
    distances = honest = None
    if (path / DISTANCES).exists():
        distances = np.load(path / DISTANCES).astype(np.float64)
        honest = np.array([c not in rows[-1]["attackers"] for c in rows[-1]["cohort"]])
        answered = np.isfinite(distances).sum(axis=1) > 1
        if len(answered) != len(honest):
            distances = honest = None
        else:
            distances, honest = distances[np.ix_(answered, answered)], honest[answered]
    kept = tuple(np.array(some, dtype=np.float64) for some in norms)
    return Recorded(kept, each=False, distances=distances, honest=honest, known=True)


def _lines(path: Path) -> list[Mapping[str, Any]]:
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise UserError(f"{path}: line {number} is no JSON object")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: line {len(rows) + 1} is no JSON: {error}") from error
    return rows


def proposals(recorded: Recorded) -> list[Proposal]:
    """Return settings for norm clipping, noise and Sniper.

    The clipping norm M is the median, the 90th percentile and the maximum of what was recorded; the
    noise FLAME's part of the median; gamma 1.5 and 3 times the median distance within the tightest
    majority (`strategies.rules.sniper.honest_scale`).
    """
    everything = np.concatenate(recorded.norms)
    if recorded.each:
        sample, of = everything, "updates"
        touched = {m: float((everything > m).mean()) for m in _bounds(everything)}
    else:
        sample, of = np.array([some[1] for some in recorded.norms]), "rounds, one client or more"
        most = np.array([some[2] for some in recorded.norms])
        touched = {m: float((most > m).mean()) for m in _bounds(everything)}
    found = [Proposal("norm_clipping max_norm", m, part, of) for m, part in touched.items()]
    stddev = LAMBDA * float(np.median(sample))
    found.append(Proposal("gaussian_noise stddev", stddev, None, ""))
    if recorded.distances is not None and recorded.honest is not None:
        found += _gammas(recorded.distances, recorded.honest)
    return found


def _bounds(norms: NDArray[np.float64]) -> list[float]:
    """Return candidates for M, rounded up to three digits: one that is the maximum clips nobody."""
    return sorted({_up(float(np.quantile(norms, q))) for q in (0.5, 0.9, 1.0)})


def _up(value: float) -> float:
    """Round up to three significant digits."""
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit) * unit:.3g}")


def _gammas(distances: NDArray[np.float64], honest: NDArray[np.bool_]) -> list[Proposal]:
    """Return gammas, with the part of the honest that a majority clique would have left out."""
    majority = len(distances) // 2 + 1
    scale = honest_scale(distances, majority)
    found = []
    for times in (AUTO_THRESHOLD, 2 * AUTO_THRESHOLD):
        gamma = _up(times * scale)
        if not gamma > 0:
            continue
        clique, *_ = first_majority(lambda g: distances < g, gamma, AUTO_STEP * gamma, majority)
        kept = np.isin(np.arange(len(distances)), clique.members)
        left_out = float((~kept[honest]).mean()) if honest.any() else 0.0
        found.append(Proposal("sniper threshold", gamma, left_out, "clients of the last round"))
    return found


def main() -> None:
    """Calibrate from the command line; bad input is one line on stderr and exit status 2."""
    parser = Parser("calibrate", __doc__, "outputs/my_run")
    parser.add_argument("recorded", metavar="RUN_OR_LOG", help="run directory, or JSON lines")
    parser.add_argument(
        "--attackers", default="", metavar="A,B", help="clients of a log that are known to attack"
    )
    arguments = parser.parse_args()
    console = Screen()
    with ending(console.on_broken_pipe):
        recorded = read(Path(arguments.recorded), _numbers(arguments.attackers))
        console.print(drawn(proposals(recorded)))
    if not recorded.known:
        console.print("Who attacked is not known: all clients count as honest.")
    if recorded.distances is None:
        console.print("No distances are recorded: none is proposed for Sniper.")


def drawn(found: list[Proposal]) -> Table:
    """Draw proposals as a table."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("setting", "value", "honest touched", "of"):
        table.add_column(name)
    for one in found:
        touched = "-" if one.touched is None else f"{one.touched:.1%}"
        table.add_row(one.setting, f"{one.value:.3g}", touched, one.of)
    return table


def _numbers(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",") if part.strip()}
    except ValueError:
        raise UserError(f"attackers={text}: allowed are whole numbers, by commas") from None


if __name__ == "__main__":
    main()
