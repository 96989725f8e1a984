"""Figures: curves, distances, scores. What draws is imported when there is something to draw."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import Row, Summary
from .measures import Measure


def draw_curves(
    rows: list[Row], path: Path, title: str, unit: str, measures: list[Measure]
) -> None:
    """Draw measures that have a color over the rounds or epochs; missing ones are left out.

    Parameters
    ----------
    rows : list of dict
        Of each round or epoch, numbered under the key ``unit``.
    path : Path
        PNG file to write.
    title, unit : str
        What was run, and what the rows are.
    measures : list of Measure
        What to draw, in percent.
    """
    figure, axes = new_axes(6.4, 3.6)
    numbers = [row[unit] for row in rows]
    for measure in measures:
        values = [measure.judged(row) for row in rows] if measure.color else [None]
        if any(value is not None for value in values):
            axes.plot(
                numbers,
                np.array(values, float) * 100,  # a gap where there is none
                "--" if measure.is_floor else "-",
                color=measure.color,
                marker=".",
                label=measure.title.strip(),
            )
    axes.set(xlabel=unit, ylabel="%", ylim=(-3, 103), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    save_figure(figure, path)


def draw_distances(
    distances: np.ndarray,
    clients: list[int],
    kept: list[int] | None,
    attackers: list[int],
    path: Path,
) -> None:
    """Draw the pairwise distances of the last round's local models, the clique framed.

    Kept clients stand first, so that the clique is one square; attackers are red.
    """
    from matplotlib.patches import Rectangle

    chosen = [] if kept is None else kept
    order = chosen + [client for client in clients if client not in chosen]
    places = np.searchsorted(clients, order)
    size = min(0.45 * len(clients) + 2.5, 14)
    figure, axes = new_axes(size * 1.15, size)
    shown = distances[np.ix_(places, places)]
    image = axes.imshow(np.ma.masked_invalid(shown), cmap="viridis_r")
    figure.colorbar(image, ax=axes, label="Euclidean distance")
    if len(clients) <= 15:
        middle = np.nanmin(shown) / 2 + np.nanmax(shown) / 2
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value):
                write_in_cell(axes, row, column, f"{value:.2f}", dark=value > middle)
    step = -(-len(clients) // 60)  # labels beyond that would stand on each other
    ticks = range(0, len(clients), step)
    axes.set_xticks(ticks, order[::step], rotation=90 if len(clients) > 15 else 0)
    axes.set_yticks(ticks, order[::step])
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_color("tab:red" if int(label.get_text()) in attackers else "black")
    if chosen:
        corner, width = (-0.5, -0.5), len(chosen)
        axes.add_patch(
            Rectangle(corner, width, width, fill=False, edgecolor="black", lw=3, clip_on=False)
        )
    axes.set(
        xlabel="client (attackers red)",
        ylabel="client",
        title="Distances between local models, last round"
        + (f"\nframe: the {len(chosen)} models kept" if chosen else ""),
    )
    save_figure(figure, path)


def draw_scores(summary: Summary, path: Path) -> None:
    """Draw the average prediction score of D_poison by class, normal and backdoor (Fig. 3)."""
    names = summary["classes"]
    figure, axes = new_axes(max(4.8, 0.7 * len(names) + 1.5), 3.6)
    places = np.arange(len(names))
    bars = {"backdoor training": summary["scores"], "normal training": summary["clean_scores"]}
    bars = {label: scores for label, scores in bars.items() if scores is not None}
    width = 0.8 / len(bars)
    for number, (label, scores) in enumerate(bars.items()):
        color = {"backdoor training": "tab:red", "normal training": "tab:blue"}[label]
        shift = (number - (len(bars) - 1) / 2) * width
        # Scores of a model that diverged are None, which becomes NaN: no bar.
        axes.bar(places + shift, np.array(scores, float), width, label=label, color=color)
    axes.set_xticks(places, names, rotation=turned(names, 0.7)[0])
    axes.set(
        ylim=(0, 1.02),
        xlabel=f"class (target {summary['target']})",
        ylabel="average prediction score",
        title="Test rows with the trigger",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def new_axes(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """Return a matplotlib figure of a size in inches, and its axes: an array if several."""
    # Without pyplot: no global state, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def turned(names: Sequence[str], room: float) -> tuple[int, float]:
    """Turn names of columns that are longer than their column, or many.

    Returns
    -------
    degrees : int
        90 or 0.
    height : float
        Inches that they need then, beyond a line.
    """
    length = 0.09 * max(map(len, names))
    return (90, length) if len(names) > 10 or length > room else (0, 0.0)


def write_in_cell(axes: Any, row: int, column: int, text: str, *, dark: bool) -> None:
    """Write a number into a cell of an image, white on dark ones."""
    color = "white" if dark else "black"
    number = axes.text(column, row, text, ha="center", va="center", size=7, color=color)
    number.set_in_layout(False)  # it stands within the axes; to measure it takes long


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG or SVG, whole or not at all; names stand there as they are."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    temporary = path.with_suffix(f".tmp{path.suffix}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # from the font: a box stands for it
        figure.savefig(temporary, dpi=150)
    temporary.replace(path)
