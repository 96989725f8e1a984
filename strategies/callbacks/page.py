"""Rounds on a page that a browser shows."""

from collections import deque
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from ..record import RoundRecord
from ..watch import RECENT, findings
from .files import replace
from .tracker import numbers, row

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="$seconds">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: right }
th:last-child, td:last-child { text-align: left }
.warning { background: #fff4d6; border-left: 4px solid #d98e00; margin: .5rem 0; padding: .5rem }
.curves { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0 } figcaption { font-size: 13px } polyline { fill: none; stroke: #1f77b4 }
</style></head><body>
<h1>$title</h1>
<p>$newest</p>
$warnings
<div class="curves">$curves</div>
<table><tr><th>round</th><th>valid</th><th>kept</th><th>dropped</th><th>invalid</th>
<th>norms</th><th>clients dropped; replies screened out</th></tr>
$rows</table>
</body></html>
""")


class Page:
    """Show the last rounds on a page of one file, which the browser loads anew by itself.

    Parameters
    ----------
    path : str or Path
        The file, ``watch.html`` say. It is replaced whole after each round.
    seconds : int (default: 10)
        After which a browser loads it again.
    """

    def __init__(self, path: str | Path, seconds: int = 10) -> None:
        self.path, self.seconds = Path(path), int(seconds)
        self._history: deque[RoundRecord] = deque(maxlen=RECENT)

    def __call__(self, record: RoundRecord) -> None:
        """Write the page with one more round."""
        self._history.append(record)
        replace(self.path, page(self._history, self.seconds))


def page(history: Sequence[RoundRecord], seconds: int) -> str:
    """Return the page of some rounds, of which the last is the newest; all text is escaped."""
    newest = history[-1]
    said = [f'<p class="warning">{_text(found.text)}</p>' for found in findings(history)]
    values = [numbers(row(record)) for record in history]
    names = [name for name in values[-1] if len({some.get(name) for some in values}) > 1]
    curves = [_curve(name, [some[name] for some in values if name in some]) for name in names]
    return _PAGE.substitute(
        seconds=seconds,
        title=_text(newest.strategy),
        newest=_text(newest.line),
        warnings="\n".join(said),
        curves="\n".join(curves),
        rows="\n".join(map(_row, reversed(history))),
    )


def _row(record: RoundRecord) -> str:
    clients = dict(zip(record.nodes, record.clients, strict=True))
    who = " ".join(str(clients[node]) for node in record.dropped or ())
    why = "; ".join(f"{node}: {reason}" for node, reason in record.invalid.items())
    cells = [
        record.number,
        f"{len(record.nodes)} of {record.asked}",
        "-" if record.kept is None else len(record.kept),
        "-" if record.dropped is None else len(record.dropped),
        len(record.invalid),
        f"{min(record.norms):.3g} to {max(record.norms):.3g}" if record.norms else "-",
        "; ".join(filter(None, (who, why))),
    ]
    return "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"


def _curve(name: str, values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    height = (high - low) or 1.0
    points = " ".join(
        f"{160 * i / max(1, len(values) - 1):.1f},{38 - 36 * (value - low) / height:.1f}"
        for i, value in enumerate(values)
    )
    return (
        f'<figure><svg width="160" height="40"><polyline points="{points}"/></svg>'
        f"<figcaption>{_text(name)} {values[-1]:.4g}</figcaption></figure>"
    )


def _text(what: object) -> str:
    """Return what may be somebody else's words as text of a page."""
    return escape(" ".join(str(what).split()))
