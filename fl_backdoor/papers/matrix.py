"""The matrix: every defense against every attack, in three settings of ours."""

from collections.abc import Collection, Iterable, Mapping

from .plan import Part, Plan

Overrides = Mapping[str, str]

DEFENSES: dict[str, Overrides] = {
    "fedavg": {},
    "sniper": {},
    "sniper_auto": {},
    "norm_clipping": {},
    "gaussian_noise": {"strategy@strategy.strategy": "norm_clipping"},
    "krum": {},
    "multikrum": {},
    "bulyan": {"strategy.num_malicious": "4"},
    "fedmedian": {},
    "fedtrimmedavg": {},
    "geometric_median": {},
    "centered_clipping": {"strategy.tau": "0.5"},
    "dnc": {},
    "bucketing": {},
    "nearest_neighbor_mixing": {},
    "adaptive_clipping": {},
    "flame": {},
    "deepsight": {"strategy.num_inputs": "2000"},
    "robust_learning_rate": {"strategy.threshold": "10"},
    "foolsgold": {},
    "multi_metrics": {},
    "alignins": {},
    "lasa": {},
    "crfl": {"strategy.rho": "8"},
    "signguard": {},
    "auror": {"strategy.threshold": "0.3"},
    "fldetector": {"strategy.window": "3"},
    "fltrust": {},
}
"""By yaml; what an operator would have set for this model, with a look at clean runs only."""

TRIGGER = "{kind:patch,size:0.25,corner:[0.92,0.92],value:1.0}"
"""Of 8 x 8 pixels, four; of 28 x 28, 49."""


def around(attack: str, **more: str) -> Overrides:
    """Return an attack that carries the backdoor."""
    own = {f"attack.{key}": value for key, value in more.items()}
    return {"attack": attack, "attack.data.trigger": TRIGGER, **own}


ATTACKS: tuple[Overrides, ...] = (
    {"attack": "backdoor", "attack.trigger": TRIGGER},
    {"attack": "blended"},
    {"attack": "dba"},
    {"attack": "edge_case"},
    {"attack": "label_flipping", "attack.poisoning": "replace", "attack.poisoned_samples": "null"},
    {"attack": "label_flipping", "attack.kind": "all_to_one"},
    {"attack": "label_flipping", "attack.kind": "inverse"},
    around("model_replacement"),
    around("constrain_and_scale", factor="5"),
    {"attack": "norm_projection", "attack.data.data.trigger": TRIGGER},
    around("pgd"),
    around("neurotoxin"),
    {"attack": "a3fl", "attack.size": "3"},
    {"attack": "sign_flip", "attack.factor": "4"},
    {"attack": "gaussian"},
    {"attack": "alie"},
    {"attack": "alie", "attack.z": "1.5"},
    {"attack": "ipm"},
    {"attack": "ipm", "attack.epsilon": "5"},
    {"attack": "fang"},
    {"attack": "fang", "attack.rule": "trimmed_mean"},
    {"attack": "min_max"},
    {"attack": "min_sum"},
    {"attack": "mimic"},
    around("adaptive"),
    {"attack": "adaptive", "attack@attack.data": "none"},
)
"""Where 4 of 20 attack, a factor of n/P = 5 replaces the average. Clean twins have none."""

COHORT = ("fedavg", "norm_clipping", "sniper", "sniper_auto", "multikrum", "fedmedian", "flame",
          "fltrust")  # fmt: skip
COHORT_ATTACKS = ("backdoor", "neurotoxin", "model_replacement", "alie", "min_max", "adaptive")
MNIST = ("fedavg", "norm_clipping", "sniper", "sniper_auto", "multikrum", "fedmedian")
MNIST_ATTACKS = ("backdoor", "model_replacement", "alie", "min_max", "adaptive")
QUICK = ("fedavg", "norm_clipping", "multikrum", "sniper_auto", "fedmedian")
QUICK_ATTACKS = ("backdoor", "model_replacement", "alie", "min_max", "adaptive")


def pairs(
    experiment: str,
    defenses: Iterable[str],
    attacks: Collection[str],
    minutes: float,
    *,
    quick: bool = False,
) -> list[Part]:
    """Return a part for each attack and defense, the attacks of a defense beside each other."""
    return [
        Part(
            experiment,
            {"strategy": defense, **DEFENSES[defense], **attack},
            {"seed": "0"} if quick and defense in QUICK and attack["attack"] in QUICK_ATTACKS
            else None,
            minutes,
        )
        for defense in defenses
        for attack in ATTACKS
        if attack["attack"] in attacks
    ]  # fmt: skip


PLAN = Plan(
    "matrix",
    "Every defense against every attack",
    (
        *pairs("matrix_digits", DEFENSES, [a["attack"] for a in ATTACKS], 0.05, quick=True),
        *pairs("matrix_cohort", COHORT, COHORT_ATTACKS, 0.2),
        *pairs("matrix_mnist", MNIST, MNIST_ATTACKS, 1.7),
    ),
    "scikit-learn's digits",
)
