"""The figure of a partition: how many rows of each class each client holds."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .figures import new_axes, save_figure, turned, write_in_cell

MOST: Final = 40
"""Rows and columns of the figure; more clients or classes are drawn in groups."""
WRITTEN: Final = 20
"""Up to so many of each, the numbers stand in the cells."""
LONGEST: Final = 24
"""Letters of a class's name that are written."""


def draw_shares(counts: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Draw the rows of each client and class, from white (none) to black (most).

    Parameters
    ----------
    counts : array of shape (clients, classes)
        Rows.
    classes : sequence of str
        Their names.
    path : Path
        PNG file to write. More than `MOST` clients are put in order of the class that they have
        most of and drawn in groups, by their mean; classes are grouped as they stand.
    """
    many = len(counts) > MOST
    if many:
        counts = counts[np.argsort(counts.argmax(axis=1), kind="stable")]
    clients = grouped(len(counts))
    labels = grouped(len(classes))
    shown = np.array([[counts[a:b, c:d].mean() for c, d in labels] for a, b in clients])
    names = [_span(a, b, classes) for a, b in labels]
    width = max(4.8, 0.5 * len(labels) + 2.5)
    degrees, room = turned(names, (width - 1.8) / len(names))
    figure, axes = new_axes(width, max(3.6, 0.3 * len(clients) + 1.8 + room))
    image = axes.imshow(shown, cmap="Greys", vmin=0, aspect="auto")
    alone = not many and len(labels) == len(classes)
    figure.colorbar(image, ax=axes, label="rows" if alone else "rows, mean of a group")
    if max(shown.shape) <= WRITTEN:
        for (row, column), value in np.ndenumerate(shown):
            write_in_cell(axes, row, column, f"{value:.0f}", dark=value > shown.max() / 2)
    axes.set_xticks(range(len(names)), names, rotation=degrees)
    groups = [f"{b - a:,} clients" if many else str(a) for a, b in clients]
    axes.set_yticks(range(len(groups)), groups)
    sizes = counts.sum(axis=1)
    axes.set(
        xlabel="class",
        ylabel="by the class that they have most of" if many else "client",
        title=f"{len(counts):,} clients of {sizes.min():,} to {sizes.max():,} rows",
    )
    save_figure(figure, path)


def grouped(count: int) -> list[tuple[int, int]]:
    """Cut 0 to count - 1 into `MOST` groups or fewer: of each the first, and one past the last."""
    edges = np.linspace(0, count, min(count, MOST) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def _span(first: int, end: int, names: Sequence[Any]) -> str:
    """Name a group by its first and last member, as far as there is room."""
    name = str(names[first])
    name = name if end - first == 1 else f"{name}-{names[end - 1]}"
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
