"""The grids of both papers, and the matrix."""

from collections.abc import Mapping

from . import matrix
from .plan import Part, Plan

HALF = {
    "seed": "0",
    "dataset.source": "bundled",
    "dataset.samples_per_class": "125",
    "model": "lenet5",
    "num_rounds": "8",
    "attack.poisoned_samples": "150,250",
}
"""Half of the samples, of digits that are always there, and a network that learns sooner."""
THREE = HALF | {"seed": "range(3)", "dataset.digits": "[2,6]", "attack.poisoned_samples": "250"}

CORNER = {
    "seed": "range(3)",
    "attack.num_attackers": "3",
    "attack.poisoned_samples": "500",
}
OPEN = (
    ("num_rounds", 5, 0.8),
    ("num_rounds", 20, 3.0),
    ("training.epochs", 2, 3.0),
    ("training.decay", 0.0, 1.5),
    ("model.shrink", "max_pool", 3.0),
)
"""Choices that Cao et al. leave open: key, value, minutes."""

ROWS = {"seed": "0", "dataset.source": "bundled", "num_epochs": "2"}
STAND_IN = {
    "seed": "0",
    "dataset.source": "synthetic",
    "dataset.train_rows": "20000",
    "dataset.test_rows": "4000",
    "num_epochs": "4",
}

THREE_SEEDS = {"seed": "range(3)"}
TWENTY = THREE_SEEDS | {"num_epochs": "20", "floor": "false"}
WORKS = {"attack": "localized_replacement"}
"""The attack that Fig. 4 and 5 are repeated with."""


Settings = Mapping[str, str]


def _vertical(
    figure: str, quick: Settings | None = None, overrides: Settings | None = None
) -> list[Part]:
    """Return a figure on both data sets; a quick one of the settings given."""
    return [
        Part(
            f"vertical_{figure}_{name}",
            overrides or {},
            None if quick is None else {**data, **quick},
            minutes=minutes,
        )
        for name, data, minutes in (("mnist", ROWS, 1.2), ("nuswide", STAND_IN, 4.0))
    ]


PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            "cao2019",
            "Cao et al. 2019, Understanding Distributed Poisoning Attack in Federated Learning",
            (
                Part("cao_grid", quick=HALF | {"attack.num_attackers": "1,3"}),
                Part("cao_fig8", quick=HALF | {"attack.num_attackers": "1,3"}),
                Part(
                    "cao_readings",
                    quick=HALF | {"attack.num_attackers": "3", "dataset.digits": "[2,6]"},
                ),
                Part("cao_readings", {"attack.poisoning": "add", "attack.num_attackers": "1"}),
                *(
                    Part("cao_grid", CORNER | {key: str(value)}, minutes=minutes)
                    for key, value, minutes in OPEN
                ),
                Part("cao_fig3", quick=THREE | {"seed": "0", "attack.num_attackers": "0,4,6"}),
                Part("cao_baseline", quick=THREE),
                Part("cao_single", quick=THREE, minutes=0.4),
            ),
            "bundled digits enlarged by jitter, half of the samples, LeNet-5, 8 rounds",
        ),
        Plan(
            "liu2020",
            "Liu, Yi, Chen 2020, Backdoor attacks and defenses in feature-partitioned "
            "collaborative learning",
            (
                *_vertical("table1"),
                *_vertical("table2", {"top": "sum,dense"}),
                *_vertical("fig3", {}, overrides=THREE_SEEDS),
                *_vertical("fig4", {"attack.gamma": "10"}),
                *_vertical("fig4", {"attack.gamma": "10"}, overrides=WORKS),
                *_vertical("fig4_literal"),
                *_vertical("fig5", {"attack.gamma": "10"}),
                *_vertical("fig5", {"attack.gamma": "10"}, overrides=WORKS),
                *_vertical(
                    "fig6",
                    {
                        "defenses.noise.distribution": "gaussian",
                        "defenses.noise.variance": "0.001,0.05",
                    },
                ),
                *_vertical(
                    "fig7", {"top": "dense", "defenses.sparsification.drop_rate": "0.5,0.99"}
                ),
                Part("vertical_mnist", TWENTY | {"attack": "label_inference"}),
                Part("vertical_mnist", TWENTY | {"top": "dense", "defense": "clipping"}),
                *_vertical("combined", overrides=THREE_SEEDS),
            ),
            "bundled digits enlarged by jitter, a synthetic stand-in of NUS-WIDE, a few epochs",
        ),
        matrix.PLAN,
    )
}
