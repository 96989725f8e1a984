"""Rebuild ``docs/matrix.md``, and what ``docs/results.md`` says of it, from stored rows.

python -m benchmarks.matrix [RUNS...]

With runs of ``reproduce matrix``, their rows are added first; of the same run the new one stays.
"""

import sys
from collections.abc import Iterable, Sequence
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


def table(rows: pd.DataFrame, kind: str) -> str:
    """Write defenses against the attacks of a kind: mean and deviation of the effect over seeds."""
    own = rows[rows["kind"] == kind]
    attacks = list(dict.fromkeys(own.sort_values("attack")["attack"]))
    lines = [
        "| defense | clean | " + " | ".join(f"`{name}`" for name in attacks) + " | worst |",
        "| --- | --- | " + "--- | " * (len(attacks) + 1),
    ]
    worst = own.groupby(["defense", "attack"])["effect"].mean().groupby("defense").max()
    clean = _clean(rows)
    for defense in worst.sort_values(kind="stable").index:
        cells = own[own["defense"] == defense]
        shown = [_cell(cells[cells["attack"] == attack]) for attack in attacks]
        lines.append(
            f"| `{defense}` | {clean[defense]:.1f} | {' | '.join(shown)} | {worst[defense]:.1f} |"
        )
    return "\n".join(lines)


def _cell(runs: pd.DataFrame) -> str:
    """Write a cell; a mark for each run at chance."""
    values, chance = runs["effect"].dropna(), "†" * int(runs["at_chance"].sum())
    if not len(values):
        return chance or "-"
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}{chance}"


def answer(rows: pd.DataFrame, kind: str) -> str:
    """Say in a list which defense fares best, and which attack beats most."""
    own = rows[rows["kind"] == kind]
    means = own.groupby(["defense", "attack"])["effect"].mean().unstack()
    worst = means.max(axis=1).sort_values(kind="stable")
    beats = (means >= BEATEN[kind]).sum().sort_values(ascending=False, kind="stable")
    held = [f"`{name}` ({value:.1f})" for name, value in worst.items() if value < BEATEN[kind]]
    total = len(means)
    first = (
        ", ".join(held) if held else f"none; the least is `{worst.index[0]}` ({worst.iloc[0]:.1f})"
    )
    most = ", ".join(f"`{name}` ({count} of {total})" for name, count in beats.head(3).items())
    least, what = f"{BEATEN[kind]:.0f} points", KINDS[kind].title
    return (
        f"- Defenses that hold every {kind} attack under {least} ({what}, mean over seeds, "
        f"worst attack in brackets): {first}.\n"
        f"- Attacks that take {least} or more from most defenses: {most}."
    )


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


def summary(rows: pd.DataFrame) -> str:
    """Write a line a defense: what it costs, its worst attacks, and what the adaptive one does."""
    rows = effects(rows)
    cost = _clean(rows)
    lines = [
        "| defense | clean accuracy | worst targeted | adaptive | worst untargeted | adaptive |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    means = rows.groupby(["kind", "defense", "attack"])["effect"].mean()
    order = means.groupby("defense").max().sort_values(kind="stable").index
    for defense in order:
        cells = [f"`{defense}`", f"{cost[defense]:.1f} ({cost[defense] - cost['fedavg']:+.1f})"]
        for kind in KINDS:
            cell = rows[(rows["kind"] == kind) & (rows["defense"] == defense)]
            own = cell.groupby("attack")["effect"].mean().dropna()
            if own.empty:
                cells += ["-", "-"]
                continue
            adaptive = own[own.index.str.startswith(ADAPTIVE)]
            others = own.drop(adaptive.index)
            cells.append(f"{others.max():.1f} (`{others.idxmax()}`)" if len(others) else "-")
            cells.append(f"{adaptive.max():.1f}" if len(adaptive) else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def walked(rows: pd.DataFrame) -> str:
    """Name the defenses that hold all attacks but the adaptive one, by kind."""
    rows, said = effects(rows), []
    for kind in KINDS:
        cells = rows[rows["kind"] == kind].groupby(["defense", "attack"])
        table = cells["effect"].mean().unstack()
        table = table[cells.size().unstack().notna().all(axis=1)]  # tried with all of them
        knows = table.columns.str.startswith(ADAPTIVE)
        held = table.loc[:, ~knows].max(axis=1) < BEATEN[kind]
        fallen = held & (table.loc[:, knows].max(axis=1) >= BEATEN[kind])
        names = ", ".join(f"`{name}`" for name in table.index[fallen]) or "none"
        whole = ", ".join(f"`{name}`" for name in table.index[held & ~fallen]) or "none"
        said.append(
            f"- {kind.capitalize()}, every attack stays under {BEATEN[kind]:.0f} points: {whole}; "
            f"every attack but the adaptive one: {names}."
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
