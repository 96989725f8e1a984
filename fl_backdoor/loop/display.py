"""What a person sees of a run: progress, one table, two figures."""

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..config import Config
from .directory import Row, RunDirectory

CURVES = {
    "main accuracy": ("main_accuracy", "tab:blue", "-"),
    "attack success rate": ("attack_success_rate", "tab:red", "-"),
    "its floor (clean twin)": ("attack_success_floor", "tab:gray", "--"),
}

WIDE = 1000
"""Columns where there is no terminal: tables take as many of them as they need."""


class Screen(Console):
    """Standard output, for whatever is there to read it.

    Names are printed as they are, not as markup; characters that the encoding lacks are escaped; a
    table is not narrower than what it holds unless the terminal is; and when the reader has gone
    (``| head``) the work goes on without it.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        super().__init__(markup=False, emoji=False)
        if not self.is_terminal:
            self.width = WIDE

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Display:
    """The terminal side of a run.

    Parameters
    ----------
    console : rich.console.Console
        Where to write. On a terminal a progress bar stands below the rounds.
    prefix : str (default: "")
        Starts every line, to tell the runs of a parallel sweep apart.
    """

    def __init__(self, console: Console, prefix: str = "") -> None:
        self.console = console
        self.prefix = prefix
        self.total = 0
        self._progress: Progress | None = None

    def line(self, text: str) -> None:
        """Print one line as it is."""
        self.console.print(self.prefix + text, markup=False, highlight=False, soft_wrap=True)

    def setting(self, config: Config, attackers: tuple[int, ...], attack: str) -> None:
        """Say what is about to run."""
        who = "no attackers"
        if attackers:
            who = f"{counted(len(attackers), 'attacker')} {list(attackers)}"
        self.line(
            f"Setting: {counted(config.num_clients, 'client')}, {who}; {attack}; strategy "
            f"{class_name(config.strategy)}; {counted(config.num_rounds, 'round')}; "
            f"engine {config.engine.kind}; seed {config.seed}"
        )

    def begin(self, name: str, total: int, rows: list[Row]) -> None:
        """Start the progress of one training, from the rounds or epochs that are there already."""
        self.total = total
        self.line(name + (f" (resumed after {len(rows)} of {total})" if rows else ""))
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._progress.start()
            self._progress.add_task("training", total=total, completed=len(rows))

    def round(self, row: Row) -> None:
        """Print a finished round or epoch."""
        self.line(self.text(row))
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

    def text(self, row: Row) -> str:
        """Write a finished round."""
        floor = row["attack_success_floor"]
        text = (
            f"  round {row['round']:>{len(str(self.total))}}/{self.total}"
            f"  loss {loss(row['loss'])}"
            f"  accuracy {percent(row['main_accuracy']):>6}"
            f"  attack success {percent(row['attack_success_rate']):>6}"
        )
        if floor is not None:
            text += f" (floor {percent(floor)})"
        if row["dropped"] is not None:
            text += f"  dropped {_clients(row['dropped'])}"
        for what in ("invalid", "failed"):
            if row[what]:
                text += f"  {what} {_clients(row[what])}"
        return f"{text}  {row['seconds_round']:.1f} s"

    def end(self) -> None:
        """Take the progress bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def result(self, summary: dict[str, Any], directory: RunDirectory) -> None:
        """Draw the figures and print the table of a complete run; a sweep has one of its own."""
        self.draw(summary, directory)
        if not self.prefix:
            for table in self.tables(summary):
                self.console.print(table)
        self.line(f"Results: {directory.path}")

    def draw(self, summary: dict[str, Any], directory: RunDirectory) -> None:
        """Draw the figures of a complete run."""
        draw_curves(directory.rows, directory.path / "rounds.png", summary["name"], "round", CURVES)
        distances = directory.distances()
        if np.isfinite(distances).any():
            draw_distances(
                distances,
                directory.rows[-1]["kept"],
                summary["attackers"],
                directory.path / "distances.png",
            )

    def tables(self, summary: dict[str, Any]) -> list[Table]:
        """Write the tables of a complete run."""
        table = Table(title=f"{summary['name']}, seed {summary['seed']}", title_justify="left")
        table.add_column("after round " + str(summary["rounds"]))
        table.add_column("", justify="right")
        table.add_row("main accuracy", percent(summary["main_accuracy"]))
        table.add_row("attack success rate", percent(summary["attack_success_rate"]))
        table.add_row("  its floor (clean twin)", percent(summary["attack_success_floor"]))
        table.add_row("defense precision", percent(summary["defense_precision"]))
        table.add_row("defense recall", percent(summary["defense_recall"]))
        table.add_row("attackers", _clients(summary["attackers"]))
        table.add_row("seconds", f"{summary['seconds']:.0f}")
        return [table]


def show_warnings(console: Console) -> None:
    """Show the warnings of this suite, and silence what its libraries say of themselves."""
    ours = Path(__file__).resolve().parents[2]
    folders = tuple(str(ours / name) for name in ("fl_backdoor", "strategies", "clients"))
    handler = RichHandler(
        logging.WARNING, console, show_time=False, show_path=False, markup=False, highlighter=None
    )
    handler.addFilter(lambda record: record.pathname.startswith(folders))
    logger = logging.getLogger("flwr")
    logger.handlers = [handler]
    logger.propagate = False


def percent(value: float | None) -> str:
    """Write a fraction as a percentage, and what does not apply as a dash."""
    return "-" if value is None else f"{100 * value:.1f}%"


def loss(value: float | None) -> str:
    """Write a loss, which is missing or immense where the training has diverged."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1e4 else f"{value:.0e}"


def draw_curves(
    rows: list[Row], path: Path, title: str, unit: str, curves: dict[str, tuple[str, str, str]]
) -> None:
    """Draw measures over the rounds or epochs; those that are missing are left out.

    Parameters
    ----------
    rows : list of dict
        Metrics of each round or epoch, numbered under the key ``unit``.
    path : Path
        PNG file to write.
    title, unit : str
        What was run, and what the rows are.
    curves : dict from label to (key, color, line style)
        What to draw.
    """
    figure, axes = new_axes(6.4, 3.6)
    numbers = [row[unit] for row in rows]
    for label, (key, color, line) in curves.items():
        values = [row[key] for row in rows]
        if None not in values:
            axes.plot(numbers, np.array(values) * 100, line, color=color, marker=".", label=label)
    axes.set(xlabel=unit, ylabel="%", ylim=(-3, 103), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    save_figure(figure, path)


def draw_distances(
    distances: np.ndarray, kept: list[int] | None, attackers: list[int], path: Path
) -> None:
    """Draw the pairwise distances of the last round's local models, the clique framed.

    Kept clients stand first, so that the clique is one square; attackers are red.
    """
    import seaborn
    from matplotlib.patches import Rectangle

    clients = list(range(len(distances)))
    chosen = [] if kept is None else kept
    order = chosen + [client for client in clients if client not in chosen]
    size = min(0.45 * len(clients) + 2.5, 14)
    figure, axes = new_axes(size * 1.15, size)
    seaborn.heatmap(
        distances[np.ix_(order, order)],
        ax=axes,
        annot=len(clients) <= 15,
        fmt=".2f",
        annot_kws={"size": 7},
        cmap="viridis_r",
        square=True,
        xticklabels=order,
        yticklabels=order,
        cbar_kws={"label": "Euclidean distance"},
    )
    axes.tick_params(axis="y", rotation=0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_color("tab:red" if int(label.get_text()) in attackers else "black")
    if chosen:
        axes.add_patch(
            Rectangle(
                (0, 0), len(chosen), len(chosen), fill=False, edgecolor="black", lw=3, clip_on=False
            )
        )
    axes.set(
        xlabel="client (attackers red)",
        ylabel="client",
        title="Distances between local models, last round"
        + (f"\nframe: the {len(chosen)} models kept" if chosen else ""),
    )
    save_figure(figure, path)


def new_axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a matplotlib figure of a size in inches, and its axes: an array if several."""
    # Without pyplot: no global state, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; names stand there as they are."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    temporary = path.with_suffix(".tmp.png")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # from the font: a box stands for it
        figure.savefig(temporary, dpi=150)
    temporary.replace(path)


def counted(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def class_name(node: dict[str, Any]) -> str:
    """Name what a config node builds, and what that wraps."""
    name = str(node["_target_"]).rpartition(".")[2]
    inner = node.get("strategy")
    return f"{name}({class_name(inner)})" if inner else name


def _clients(clients: list[int]) -> str:
    return " ".join(map(str, clients)) or "none"
