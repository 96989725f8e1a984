"""Rebuild ``docs/matrix.md``, and what ``docs/results.md`` says of it, from stored rows.

python -m benchmarks.matrix [RUNS...]

With runs of ``reproduce matrix``, their rows are added first; of the same run the new one stays.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from fl_backdoor.files import COMMAND, SUMMARY, TWIN, read_json
from fl_backdoor.measure.figures import save_figure
from fl_backdoor.papers.page import filled
from fl_backdoor.report.estimate import Estimate
from fl_backdoor.report.figures import draw_grid
from fl_backdoor.report.matrix import TARGETED, UNTARGETED, Cell, Matrix

DOCS = Path(__file__).parents[1] / "docs"
PAGE, TABLE = DOCS / "matrix.md", DOCS / "data" / "matrix.csv"
RESULTS, IMAGES = DOCS / "results.md", DOCS / "images"
SETTINGS = ("matrix_digits", "matrix_cohort", "matrix_mnist")
KEYS = ["setting", "defense", "attack", "seed"]
MEASURED = {
    "main_accuracy": "main_accuracy",
    "twin_accuracy": "main_accuracy_twin",
    "attack_success": "attack_success_rate",
    "floor": "attack_success_floor",
    "damage": "damage",
    "precision": "defense_precision",
    "recall": "defense_recall",
}
"""Columns in %, by what they are called in a summary."""
BESIDE = ("trigger", "poisoning", "poisoned_samples")
"""Keys that a column is not named by: they do not tell an attack from others of its yaml."""
ADAPTIVE = "adaptive"
KINDS = {kind.name: kind for kind in (TARGETED, UNTARGETED)}
BEATEN = {name: 100 * kind.beaten for name, kind in KINDS.items()}
"""Points of success above the floor, or of accuracy, from which a defense counts as beaten."""


def tidy(folders: Iterable[Path]) -> pd.DataFrame:
    """Return a row for each run of the matrix that has ended, with what it measured last, in %."""
    found = sorted(path.parent for folder in folders for path in folder.rglob(SUMMARY))
    rows = [_row(run) for run in found if run.name != TWIN]
    return pd.DataFrame(rows, columns=[*KEYS, *MEASURED, "at_chance"])


def _row(run: Path) -> dict[str, Any]:
    said = dict(text.lstrip("+").split("=", 1) for text in read_json(run / COMMAND)["arguments"])
    summary = read_json(run / SUMMARY)
    own = [
        f"{key.removeprefix('attack.')}={value}"
        for key, value in said.items()
        if key.startswith("attack.") and key.rpartition(".")[2] not in BESIDE
    ]
    own += [value for key, value in said.items() if key == "attack@attack.data"]
    values = {
        column: None if (value := summary.get(key)) is None else round(100 * value, 2)
        for column, key in MEASURED.items()
    }
    return {
        "setting": said["experiment"],
        "defense": said["strategy"],
        "attack": " ".join([said["attack"], *own]),
        "seed": int(said["seed"]),
        **values,
        "at_chance": int(bool(summary.get("at_chance"))),
    }


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with ``kind`` and ``effect``, in points; the effect of a model at chance is none.

    Where the attack leaves no skill there is no success, but all accuracy is lost: a targeted
    attack that ends at chance has missed its goal, and is shown so.
    """
    targeted = rows.groupby("attack")["floor"].transform(lambda floor: floor.notna().any())
    effect = (rows["attack_success"] - rows["floor"]).where(targeted, rows["damage"])
    kind = targeted.map({True: "targeted", False: "untargeted"})
    return rows.assign(kind=kind, effect=effect)


def matrix(rows: pd.DataFrame, kind: str) -> Matrix:
    """Return the cells of a kind of attack, as a report has them."""
    own = rows[rows["kind"] == kind]
    cells = {
        pair: Cell(
            Estimate.of(runs["main_accuracy"] / 100),
            Estimate.of(runs["effect"] / 100),
            len(runs),
            0,
            int(runs["at_chance"].sum()),
        )
        for pair, runs in own.groupby(["defense", "attack"])
    }
    return Matrix(KINDS[kind], sorted(set(own["defense"])), sorted(set(own["attack"])), cells)


def _points(found: tuple[str, Estimate] | None) -> float:
    """Return the mean of a worst case in points; infinite where there is none."""
    return math.inf if found is None or found[1].mean is None else 100 * found[1].mean


def table(rows: pd.DataFrame, kind: str) -> str:
    """Write defenses against the attacks of a kind: mean and deviation of the effect over seeds."""
    found, clean = matrix(rows, kind), _clean(rows)
    lines = [
        "| defense | clean | " + " | ".join(f"`{name}`" for name in found.attacks) + " | worst |",
        "| --- | --- | " + "--- | " * (len(found.attacks) + 1),
    ]
    for defense in found.by_worst():
        cells = [_cell(found.cells.get((defense, attack))) for attack in found.attacks]
        worst = _points(found.worst(defense))
        lines.append(f"| `{defense}` | {clean[defense]:.1f} | {' | '.join(cells)} | {worst:.1f} |")
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    """Write a cell; a mark for each run at chance."""
    if cell is None:
        return "-"
    chance = "†" * cell.at_chance
    return (chance or "-") if cell.success.mean is None else cell.success.text() + chance


def answer(rows: pd.DataFrame, kind: str) -> str:
    """Say in a list which defenses hold every attack, and which attacks beat most."""
    found, total = matrix(rows, kind), rows["defense"].nunique()
    worst = {defense: _points(found.worst(defense)) for defense in found.by_worst()}
    held = [f"`{name}` ({value:.1f})" for name, value in worst.items() if value < BEATEN[kind]]
    best = min(worst, key=lambda name: worst[name])
    first = ", ".join(held) or f"none; the least is `{best}` ({worst[best]:.1f})"
    beats = {a: sum(found.beaten(d, a) for d in found.defenses) for a in found.attacks}
    most = sorted(filter(beats.get, beats), key=lambda name: -beats[name])[:3]
    named = ", ".join(f"`{name}` ({beats[name]} of {total})" for name in most) or "none"
    least, what = f"{BEATEN[kind]:.0f} points", KINDS[kind].title
    return (
        f"- Defenses that hold every {kind} attack under {least} ({what}, mean over seeds, "
        f"worst attack in brackets): {first}. In every single run: "
        f"{_listed(_always(rows, kind, worst))}.\n"
        f"- Attacks that take {least} or more from the most defenses: {named}."
    )


def _always(rows: pd.DataFrame, kind: str, defenses: Iterable[str]) -> list[str]:
    """Return those of some defenses that no single run of a kind of attack has beaten."""
    most = rows[rows["kind"] == kind].groupby("defense")["effect"].max()
    return [name for name in defenses if most[name] < BEATEN[kind]]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def adaptive(found: Matrix) -> tuple[Matrix, Matrix]:
    """Part a matrix: the attacks that know the defense, and all others."""
    knows = [name for name in found.attacks if name.startswith(ADAPTIVE)]
    others = [name for name in found.attacks if name not in knows]
    return replace(found, attacks=knows), replace(found, attacks=others)


def summary(rows: pd.DataFrame) -> str:
    """Write a line a defense: what it costs, its worst attacks, and what the adaptive one does."""
    rows = effects(rows)
    cost, both = _clean(rows), [matrix(rows, kind) for kind in KINDS]
    lines = [
        "| defense | clean accuracy | worst targeted | adaptive | worst untargeted | adaptive |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    worst = {d: max(_points(m.worst(d)) for m in both if m.worst(d)) for d in cost.index}
    for defense in sorted(worst, key=lambda name: worst[name]):
        cells = [f"`{defense}`", f"{cost[defense]:.1f} ({cost[defense] - cost['fedavg']:+.1f})"]
        for known, others in map(adaptive, both):
            told = others.worst(defense)
            cells.append("-" if told is None else f"{_points(told):.1f} (`{told[0]}`)")
            told = known.worst(defense)
            cells.append("-" if told is None else f"{_points(told):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def walked(rows: pd.DataFrame) -> str:
    """Name the defenses that hold all attacks but the adaptive one, by kind."""
    rows, said = effects(rows), []
    for kind in KINDS:
        found = matrix(rows, kind)
        known, others = adaptive(found)
        tried = [d for d in found.defenses if all((d, a) in found.cells for a in found.attacks)]
        held = [d for d in tried if _points(others.worst(d)) < BEATEN[kind]]
        fallen = [d for d in held if any(known.beaten(d, a) for a in known.attacks)]
        whole = [name for name in held if name not in fallen]
        said.append(
            f"- {kind.capitalize()}, every attack stays under {BEATEN[kind]:.0f} points, in the "
            f"mean over seeds: {_listed(whole)}; every attack but the adaptive one: "
            f"{_listed(fallen)}; every attack in every single run: "
            f"{_listed(_always(rows, kind, tried))}."
        )
    return "\n".join(said)


def _clean(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the accuracy of each defense's clean twins, the mean over seeds."""
    seeds = rows.groupby(["defense", "seed"])["twin_accuracy"].first()
    return seeds.groupby("defense").mean()


def counted(rows: pd.DataFrame) -> str:
    """Say how many runs and seeds there are."""
    seeds = rows.groupby(["defense", "attack"])["seed"].nunique()
    span = f"{seeds.min()} to {seeds.max()}" if seeds.min() < seeds.max() else f"{seeds.max()}"
    return f"{len(rows):,} runs, {span} seed{'s' * (span != '1')} a cell."


def parts(rows: pd.DataFrame) -> dict[str, str]:
    """Return the parts of the page by name."""
    made = {}
    for setting in SETTINGS:
        own = effects(rows[rows["setting"] == setting])
        for kind in KINDS:
            some = bool((own["kind"] == kind).any())
            made[f"{setting} {kind} answer"] = answer(own, kind) if some else "Not run yet."
            image = f"![{KINDS[kind].title}](images/{setting}_{kind}.png)"
            made[f"{setting} {kind}"] = f"{image}\n\n{table(own, kind)}" if some else ""
        made[f"{setting} runs"] = counted(own) if len(own) else ""
    return made


def rebuilt(page: str, rows: pd.DataFrame) -> str:
    """Return the page with the parts that these rows make."""
    return filled(page, parts(rows))


def opened(page: str, rows: pd.DataFrame) -> str:
    """Return the page of results with what the first setting shows of every defense."""
    own = rows[rows["setting"] == SETTINGS[0]]
    said = f"{counted(own)} Differences of a few points are within the spread.\n\n{walked(own)}"
    return filled(page, {"matrix summary": summary(own), "matrix walked": said})


def main(arguments: Sequence[str]) -> None:
    """Store what there is, and rebuild the page."""
    if arguments:
        before = [pd.read_csv(TABLE)] if TABLE.exists() else []
        every = pd.concat([tidy(map(Path, arguments)), *before])
        every.drop_duplicates(KEYS).sort_values(KEYS).to_csv(TABLE, index=False)
    rows = pd.read_csv(TABLE)
    PAGE.write_text(rebuilt(PAGE.read_text(), rows))
    RESULTS.write_text(opened(RESULTS.read_text(), rows))
    for setting in sorted(set(rows["setting"])):
        own = effects(rows[rows["setting"] == setting])
        for kind in sorted(set(own["kind"])):
            save_figure(draw_grid(matrix(own, kind)), IMAGES / f"{setting}_{kind}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
