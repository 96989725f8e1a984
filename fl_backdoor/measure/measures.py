"""Every measure, declared once: what it is of, what it is called, and where it is shown.

Rows, tables, lines, curves and comparisons read `MEASURES`. A new measure is a function in
`fl_backdoor.measure.metrics` and a line here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..files import Row
from . import judged as j
from . import metrics as m


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured of rounds, of runs, or of both.

    Attributes
    ----------
    name : str
        Its key in rows and summaries.
    of : callable, optional
        Returns its value in a round, given those of the parts of `measured` that it names as its
        parameters. None: it is no measure of rounds.
    whole : callable, optional
        Returns its value for a run, given all rows and its name. None: it is none of runs.
    per : {"round", "epoch"} or None
        Of which it is measured: rounds are horizontal, epochs vertical; None: of both.
    unit : {"%", "points", "s", "bytes", "count", "clients", "nats", ""}
        "%" is of a fraction, which is shown as a percentage; "points" of a difference of two.
    better : {"up", "down", ""}
        For whom the model belongs to.
    title, line, short : str
        What it is called in the table of a run, in the line of a round, and in comparisons; ""
        where it is not shown.
    color : str
        Of its curve over rounds; "" if it has none.
    optional : bool
        It is left out of the table of a run that has none, where others have a dash.
    note : callable, optional
        Says what else stands beside its value, given a round's row or a run's summary.
    spread : bool
        Its value is an array, of which minimum, mean and maximum are kept.
    """

    name: str
    of: Callable[..., Any] | None = None
    whole: Callable[[list[Row], str], Any] | None = m.last
    per: str | None = None
    unit: str = ""
    better: str = ""
    title: str = ""
    line: str = ""
    short: str = ""
    color: str = ""
    optional: bool = False
    note: Callable[[Row], str] = lambda _: ""
    spread: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts that there must be for it."""
        return () if self.of is None else tuple(signature(self.of).parameters)

    @property
    def is_floor(self) -> bool:
        """Whether it is what the clean twin has of another measure."""
        return self.needs == ("twin",)

    def columns(self, parts: Mapping[str, Any]) -> Row:
        """Return its part of a row; what cannot be measured is None."""
        given = [parts.get(need) for need in self.needs]
        value = None
        if self.of is not None and not any(part is None for part in given):
            value = self.of(*given)
        return spread(self.name, value) if self.spread else {self.name: value}

    @property
    def scale(self) -> float:
        """What its values are multiplied by to be shown in its unit."""
        return 100.0 if self.unit in ("%", "points") else 1.0

    def text(self, row: Row) -> str:
        """Write for people what a row, or a summary, has of it."""
        return text(row.get(self.name), self.unit) + self.note(row)

    def judged(self, row: Row) -> Any:
        """Return its value in a row; None of an attack on a model at chance: no success."""
        return None if self.needs_skill and row.get("at_chance") else row[self.name]

    @property
    def needs_skill(self) -> bool:
        """Whether its value says nothing where the model is at chance."""
        return self.whole is j.last_above_chance

    def allows(self, value: Any) -> bool:
        """Tell its value, or None where it does not apply, from anything else."""
        if value is None:
            return True
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (0 <= value <= 1 if self.unit == "%" else math.isfinite(value))

    @property
    def allowed(self) -> str:
        """Say what its values are."""
        return "from 0 to 1" if self.unit == "%" else "a number"


def spread(name: str, values: NDArray[np.float64] | None) -> Row:
    """Return minimum, mean and maximum; None where there are no values."""
    some = values is not None and values.size
    return {
        f"{name}_{how}": float(getattr(values, how)()) if some else None
        for how in ("min", "mean", "max")
    }


def text(value: Any, unit: str) -> str:
    """Write a value for people, and what does not apply as a dash."""
    from rich.filesize import decimal

    if value is None:
        return "-"
    match unit:
        case "%":
            return f"{100 * value:.1f}%"
        case "points":
            return f"{100 * value:+.1f} points"
        case "s":
            return f"{value:.0f}"
        case "bytes":
            return decimal(value)
        case "count":
            return f"{value:,}"
        case "clients":
            return " ".join(map(str, value)) or "none"
        case "nats":  # immense where the training has diverged
            return f"{value:.4f}" if value < 1e4 else f"{value:.0e}"
    return f"{value:.3g}"


def compared() -> list[Measure]:
    """Return the measures that runs are compared by."""
    return [measure for measure in MEASURES if measure.short]


def drawn(unit: str) -> list[Measure]:
    """Return the measures that are drawn over rounds or epochs, floors left out."""
    return [x for x in measures(unit) if x.color and not x.is_floor]


def measures(unit: str) -> list[Measure]:
    """Return the measures of rounds or of epochs, in the order in which they are shown."""
    return [measure for measure in MEASURES if measure.per in (None, unit)]


def measured(unit: str, parts: Mapping[str, Any]) -> Row:
    """Measure a round or an epoch.

    Parameters
    ----------
    unit : {"round", "epoch"}
        Which it is.
    parts : mapping
        What there is to be measured: ``test`` (`Answers`), ``twin`` (the row of the clean twin);
        of a round ``selection`` (`Selection`), ``replies`` (`Replies`), ``distances``
        (`Distances`) and ``honest`` (accuracies of the new model on honest clients' samples);
        of an epoch ``report`` (`EpochReport`), ``said`` (what the attacker reports) and ``leak``
        (the part of the labels that the gradients gave away).
    """
    row: Row = {}
    for measure in measures(unit):
        if measure.of is not None:
            row |= measure.columns(parts)
    return row


def summarized(unit: str, rows: list[Row]) -> Row:
    """Return the measures of a whole run."""
    return {x.name: x.whole(rows, x.name) for x in measures(unit) if x.whole is not None}


def _chance(row: Row) -> str:
    return " (chance)" if row.get("at_chance") else ""


def _interval(row: Row) -> str:
    interval = row.get("attack_success_interval")
    if interval is None or row.get("attack_success_rate") is None:
        return ""
    low, high = (text(bound, "%") for bound in interval)
    return f" ({low} to {high})"


def _outlived(row: Row) -> str:
    return ", and on" if row.get("backdoor_outlived") else ""


_FLOOR: Final = "  its floor (clean twin)"

MEASURES: list[Measure] = [
    Measure(name="train_loss", of=m.train_loss, per="epoch", unit="nats", better="down"),
    Measure(name="loss", of=m.loss, unit="nats", better="down", line="loss"),
    Measure(
        name="main_accuracy", of=m.main_accuracy, unit="%", better="up", title="main accuracy",
        line="accuracy", short="main accuracy", color="tab:blue", note=_chance,
    ),
    Measure(
        name="main_accuracy_twin", of=m.twins("main_accuracy"), unit="%",
        title="  of the clean twin", optional=True,
    ),
    Measure(
        name="damage", of=m.damage, unit="points", better="down", title="  damage",
        short="damage", optional=True,
    ),
    Measure(name="at_chance", of=j.at_chance),
    Measure(name="class_accuracy", of=j.class_accuracy),
    Measure(name="auc", of=j.auc, better="up", title="AUC", optional=True),
    Measure(
        name="worst_client_accuracy", of=m.worst_client_accuracy, per="round", unit="%",
        better="up", title="worst honest client",
    ),
    Measure(
        name="backdoor_accuracy", of=m.backdoor_accuracy, whole=j.last_above_chance,
        per="epoch", unit="%", better="down", title="backdoor accuracy", line="backdoor accuracy",
        short="backdoor accuracy", color="tab:orange",
    ),
    Measure(
        name="backdoor_accuracy_floor", of=m.twins("backdoor_accuracy"), per="epoch",
        unit="%", title=_FLOOR,
    ),
    Measure(
        name="attack_success_rate", of=m.attack_success_rate, whole=j.last_above_chance,
        unit="%", better="down", title="attack success rate", line="attack success",
        short="attack success", color="tab:red", note=_interval,
    ),
    Measure(
        name="attack_success_interval", of=j.attack_success_interval, whole=j.last_above_chance,
    ),
    Measure(
        name="attack_success_floor", of=m.twins("attack_success_rate"), unit="%", title=_FLOOR,
        line="floor", short="floor", color="tab:gray",
    ),
    Measure(name="attack_success_floor_interval", of=m.twins("attack_success_interval")),
    Measure(name="attack_success_above_floor", whole=j.above_floor, unit="points", better="down"),
    Measure(
        name="backdoor_lifespan", whole=j.backdoor_lifespan, per="round", unit="count",
        better="down", title="backdoor lifespan, rounds", optional=True, note=_outlived,
    ),
    Measure(name="backdoor_outlived", whole=j.backdoor_outlived, per="round"),
    Measure(name="scores", of=m.scores, per="epoch"),
    Measure(name="clean_scores", of=m.twins("scores"), per="epoch"),
    Measure(name="precision", of=m.precision, whole=None, per="round", unit="%"),
    Measure(name="recall", of=m.recall, whole=None, per="round", unit="%"),
    Measure(
        name="defense_precision", whole=m.defense_precision, per="round", unit="%",
        better="up", title="defense precision", short="precision",
    ),
    Measure(
        name="defense_recall", whole=m.defense_recall, per="round", unit="%",
        better="up", title="defense recall", short="recall",
    ),
    Measure(
        name="defense_false_positives", whole=m.defense_false_positives, per="round", unit="%",
        better="down", title="honest clients left out",
    ),
    Measure(name="cosine", of=lambda replies: replies.cosine, whole=None, per="round"),
    Measure(name="drift", of=lambda replies: replies.drift, whole=None, per="round"),
    *(
        Measure(name=of.__name__, of=of, whole=None, per="round", spread=True)
        for of in (
            m.distance_honest_honest, m.distance_honest_attacker, m.distance_attacker_attacker,
            m.distance_global_honest, m.distance_global_attacker,
            m.update_norm_honest, m.update_norm_attacker,
        )
    ),
    Measure(
        name="label_inference_accuracy", of=lambda leak: leak, per="epoch", unit="%",
        better="down", title="label inference accuracy",
    ),
    Measure(name="g_rec_norm", of=m.g_rec_norm, per="epoch", title="norm of g_rec"),
    Measure(
        name="bytes", of=lambda report: report.bytes, whole=m.total, per="epoch",
        unit="bytes", better="down", title="exchanged in training",
    ),
    Measure(
        name="round_trips", of=lambda report: report.round_trips, whole=m.total,
        per="epoch", unit="count", better="down", title="  round trips",
    ),
    Measure(
        name="attackers", of=lambda selection: selection.attackers, whole=m.everybody,
        per="round", unit="clients", title="attackers",
    ),
    Measure(name="seconds", whole=m.seconds, unit="s", better="down", title="seconds"),
]  # fmt: skip
