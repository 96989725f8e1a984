"""What a person sees of split learning: progress, one table, two figures."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal
from rich.table import Table

from ..federation.vertical import VerticalFederation
from ..schema import VerticalConfig
from .directory import Row, RunDirectory
from .display import Display, class_name, counted, draw_curves, loss, new_axes, percent, save_figure

CURVES = {
    "main accuracy": ("main_accuracy", "tab:blue", "-"),
    "backdoor accuracy": ("backdoor_accuracy", "tab:orange", "-"),
    "attack success rate": ("attack_success_rate", "tab:red", "-"),
    "its floor (clean twin)": ("attack_success_floor", "tab:gray", "--"),
}


class VerticalDisplay(Display):
    """The terminal side of a vertical run."""

    def vertical_setting(self, config: VerticalConfig, federation: VerticalFederation) -> None:
        """Say what is about to run."""
        defenses = " + ".join(map(class_name, config.defenses.values())) or "no defense"
        attack = federation.describe_attack()
        self.line(
            f"Setting: {federation.num_parties} passive parties, top "
            f"{class_name(config.top)}; {attack}, target {federation.attack.target}; {defenses}; "
            f"{counted(config.num_epochs, 'epoch')}; engine {config.engine.kind}; "
            f"seed {config.seed}"
        )

    def text(self, row: Row) -> str:
        """Write a finished epoch."""
        text = (
            f"  epoch {row['epoch']:>{len(str(self.total))}}/{self.total}"
            f"  loss {loss(row['loss'])}"
            f"  accuracy {percent(row['main_accuracy']):>6}"
            f"  backdoor accuracy {percent(row['backdoor_accuracy']):>6}"
            f"  attack success {percent(row['attack_success_rate']):>6}"
        )
        if row["attack_success_floor"] is not None:
            text += f" (floor {percent(row['attack_success_floor'])})"
        return f"{text}  {row['seconds_epoch']:.1f} s"

    def draw(self, summary: dict[str, Any], directory: RunDirectory) -> None:
        """Draw the figures of a complete run."""
        title = f"{summary['name']}, seed {summary['seed']}"
        draw_curves(directory.rows, directory.path / "epochs.png", title, "epoch", CURVES)
        draw_scores(summary, directory.path / "scores.png")

    def tables(self, summary: dict[str, Any]) -> list[Table]:
        """Write the tables of a complete run."""
        table = Table(title=f"{summary['name']}, seed {summary['seed']}", title_justify="left")
        table.add_column(f"after epoch {summary['epochs']}")
        table.add_column("", justify="right")
        table.add_row("main accuracy", percent(summary["main_accuracy"]))
        table.add_row("backdoor accuracy", percent(summary["backdoor_accuracy"]))
        table.add_row("  its floor (clean twin)", percent(summary["backdoor_accuracy_floor"]))
        table.add_row("attack success rate", percent(summary["attack_success_rate"]))
        table.add_row("  its floor (clean twin)", percent(summary["attack_success_floor"]))
        table.add_row("label inference accuracy", percent(summary["label_inference_accuracy"]))
        norm = summary["g_rec_norm"]
        table.add_row("norm of g_rec", "-" if norm is None else f"{norm:.3g}")
        table.add_row("exchanged in training", decimal(summary["bytes"]))
        table.add_row("  round trips", f"{summary['round_trips']:,}")
        table.add_row("seconds", f"{summary['seconds']:.0f}")
        return [table, poisoned_table(summary)]


def poisoned_table(summary: dict[str, Any]) -> Table:
    """Write Table 1 and Fig. 3 of the paper: the triggered rows by class, and what they score."""
    table = Table(title="rows with the trigger, by class", title_justify="left")
    for title in ("class", "train", "test", "score", "score, clean twin"):
        table.add_column(title, justify="left" if title == "class" else "right")
    clean = summary["clean_scores"] or [None] * len(summary["classes"])
    for number, name in enumerate(summary["classes"]):
        counts = [summary["poisoned_rows"][split][number] for split in ("train", "test")]
        target = " (target)" if name == summary["target"] else ""
        table.add_row(
            name + target,
            *(f"{poisoned:,} / {whole:,}" for poisoned, whole in counts),
            percent(summary["scores"][number]),
            percent(clean[number]),
        )
    return table


def draw_scores(summary: dict[str, Any], path: Path) -> None:
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
    axes.set_xticks(places, names)
    axes.set(
        ylim=(0, 1.02),
        xlabel=f"class (target {summary['target']})",
        ylabel="average prediction score",
        title="Test rows with the trigger",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    save_figure(figure, path)
