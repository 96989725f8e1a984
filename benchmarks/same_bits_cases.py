"""The runs of `benchmarks.same_bits`: small ones, which together go every way through the suite."""

import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """One run, as the command line takes it.

    Attributes
    ----------
    name : str
        What it shows.
    arguments : list of str
        Of ``fl_backdoor.simulate``.
    interrupt : int
        Rounds or epochs, those of a clean twin included, after which the run is interrupted; then
        it is resumed. 0: it is not.
    hostile : bool
        From the second round on some clients answer what cannot be averaged.
    attackers : dict of str to bool
        What the node config of a partition says; the roster says the rest.
    own_rule : bool
        The rule is ours since the move and was Flower's before: what it decides may differ.
    sweep : bool
        Several runs by one command.
    """

    name: str
    arguments: list[str]
    interrupt: int = 0
    hostile: bool = False
    attackers: dict[str, bool] = field(default_factory=dict)
    own_rule: bool = False
    sweep: bool = False

    @property
    def folder(self) -> str:
        """Its name without what Hydra would read as its own."""
        return re.sub(r"[^\w.]+", "-", self.name)


COMMON = ["dataset.source=bundled", "engine=local"]
HORIZONTAL = [
    *COMMON,
    "dataset.samples_per_class=20",
    "dataset.test_samples_per_class=40",
    "model.channels=[4,8]",
    "num_rounds=3",
    "training.learning_rate=0.3",
]
FLIP = [*HORIZONTAL, "attack.poisoned_samples=30"]
REPLACE = [*HORIZONTAL, "attack.poisoned_samples=9", "attack.poisoning=replace"]
SNIPER = [*FLIP, "strategy=sniper", "strategy.threshold=0.09", "strategy.step=0.01"]
BACKDOOR = [*HORIZONTAL, "attack=backdoor", "dataset.digits=[2,6,7]"]
NESTED = [*FLIP, "strategy=gaussian_noise", "strategy@strategy.strategy.strategy=sniper"]

VERTICAL = [
    "protocol=vertical",
    "dataset=nuswide",
    "dataset.source=synthetic",
    "dataset.train_rows=300",
    "dataset.test_rows=200",
    "dataset.poisoned_train=40",
    "attack.target=animal",
    "bottom.hidden=6",
    "num_epochs=3",
    "training.learning_rate=0.1",
]
LOCALIZED = [*VERTICAL, "attack=localized_replacement", "attack.num_targets=4"]
DENSE = ["top=dense", "top.hidden=5"]
DEFENSES = {
    "clipping": ["defenses.clipping.max_norm=0.01"],
    "noise": ["defenses.noise.variance=0.0001"],
    "sparsification": ["defenses.sparsification.drop_rate=0.5"],
}
DEFENDED = ["defense=[clipping,noise,sparsification]", *(o for k in DEFENSES for o in DEFENSES[k])]

OWN_RULES = ("krum", "multikrum", "bulyan", "fedmedian", "fedtrimmedavg")
FLOWERS = {  # of which those with a memory have it set
    "FedMedian": [],
    "FedTrimmedAvg": ["+strategy.strategy.beta=0.2"],
    "Krum": ["+strategy.strategy.num_malicious_nodes=3"],
    "MultiKrum": [
        "+strategy.strategy.num_malicious_nodes=3",
        "+strategy.strategy.num_nodes_to_select=5",
    ],
    "Bulyan": ["+strategy.strategy.num_malicious_nodes=1"],
    "FedAvgM": ["+strategy.strategy.server_momentum=0.9"],
    "FedAdam": ["+strategy.strategy.eta=0.01"],
}
# Strategies that no yaml of the suite names, as a user's own --config-dir would.
YAML = {
    "flowers": """
_target_: strategies.Screened
strategy:
  _target_: flwr.serverapp.strategy.FedAvg
  min_train_nodes: ${num_clients}
  min_available_nodes: ${num_clients}
""",
    "aggregator": """
_target_: strategies.Aggregator
rule: {_target_: numpy.median, _partial_: true, axis: 0}
min_train_nodes: ${num_clients}
min_available_nodes: ${num_clients}
""",
}


def flowers(name: str) -> list[str]:
    """Return the overrides that put a strategy of Flower's behind the screen."""
    target = f"strategy.strategy._target_=flwr.serverapp.strategy.{name}"
    return [*FLIP, "strategy=flowers", target, *FLOWERS[name]]


def horizontal() -> list[Case]:
    """Return the cases of Cao et al. 2019 and Sun et al. 2019."""
    return [
        Case("fedavg", [*FLIP, "strategy=fedavg"]),
        Case("fedavg, weighted, uneven", [*FLIP, "strategy.weighted=true", *DIRICHLET]),
        Case("fedavg, nobody attacks", [*HORIZONTAL, "+experiment=baseline", "num_clients=4"]),
        Case("sniper, clean twin", ["+experiment=sniper_goal1", *SNIPER]),
        Case("norm_clipping", [*FLIP, "strategy=norm_clipping"]),
        Case("norm_clipping by a number", [*FLIP, "strategy=norm_clipping", "strategy.max_norm=1"]),
        Case("gaussian_noise", [*FLIP, "strategy=gaussian_noise", "strategy.stddev=0.01"]),
        Case("noise around clipping around sniper", NESTED),
        *(Case(f"Screened({name})", flowers(name)) for name in FLOWERS),
        Case(
            "NormClipping(FedAdam)",
            [*flowers("FedAdam"), *CLIPPED],
        ),
        Case("Aggregator(numpy.median)", [*FLIP, "strategy=aggregator"]),
        *(Case(name, [*FLIP, f"strategy={name}"], own_rule=True) for name in OWN_RULES),
        Case("labels flipped, replace", REPLACE),
        Case("labels flipped, replace, sniper", [*SNIPER, *REPLACE[-2:]]),
        Case("backdoor", BACKDOOR),
        Case("backdoor, replacement", [*BACKDOOR, "attack.replacement=3.5", "floor=true"]),
        Case("backdoor, max_norm", [*BACKDOOR, "attack.max_norm=0.05"]),
        Case(
            "backdoor, replacement and max_norm against norm_clipping",
            [*BACKDOOR, "attack.replacement=3", "attack.max_norm=0.1", "strategy=norm_clipping"],
        ),
        Case("resumed in the twin", ["+experiment=sniper_goal1", *SNIPER], interrupt=1),
        Case("resumed after the twin", ["+experiment=sniper_goal1", *SNIPER], interrupt=4),
        Case("resumed, noise", NESTED, interrupt=1),
        Case("resumed, momentum", flowers("FedAvgM"), interrupt=1),
        Case("resumed, moments", flowers("FedAdam"), interrupt=2),
        Case("hostile replies", [*FLIP, "strategy=fedavg"], hostile=True),
        Case("hostile replies, sniper", SNIPER, hostile=True),
        Case("hostile replies, noise", NESTED, hostile=True),
        Case("hostile replies, Screened(FedAdam)", flowers("FedAdam"), hostile=True),
        Case("attackers by node config", SNIPER, attackers={"1": False, "7": True}),
        Case("ray", ["+experiment=sniper_goal1", *SNIPER, *RAY]),
        Case("a sweep", [*FLIP, "strategy=fedavg,sniper", "seed=0,1"], sweep=True),
    ]


DIRICHLET = [
    "dataset.partition=dirichlet",
    "dataset.samples_per_partition=40",
    "attack.roster=random",
    "attack.num_attackers=2",
    "attack.poisoned_samples=31",
    "attack.uneven_shares=true",
]
CLIPPED = ["strategy._target_=strategies.NormClipping", "+strategy.max_norm=median"]
RAY = ["engine=ray", "engine.num_workers=1"]


def vertical(data: Path) -> list[Case]:
    """Return the cases of Liu, Yi, Chen 2020."""
    plain = ("none", "gradient_replacement", "localized_replacement", "active_party")
    tops: dict[str, list[str]] = {"sum": [], "dense": DENSE}
    pairs = [*product(plain, tops), ("label_inference", "sum")]
    every = [*LOCALIZED, *DENSE, *DEFENDED, "floor=true"]
    return [
        *(
            Case(f"vertical, {attack}, {top}", [*VERTICAL, f"attack={attack}", *tops[top]])
            for attack, top in pairs
        ),
        *(
            Case(f"vertical, {name}", [*LOCALIZED, f"defense={name}", *values])
            for name, values in DEFENSES.items()
        ),
        Case("vertical, all defenses, clean twin", every),
        Case("vertical, blurred, 2 local steps", [*LOCALIZED, *DENSE, *STEPS]),
        Case(
            "vertical, mnist_rows",
            [*COMMON, *WHOLE, "attack=localized_replacement", "num_epochs=2"],
        ),
        Case("vertical, csv_parties", [*parties(data), "attack=gradient_replacement"]),
        Case("vertical, resumed", every, interrupt=4),
        Case("vertical, hostile", [*LOCALIZED, "training.batch_size=300"], hostile=True),
        Case("vertical, ray", [*every, *RAY, "num_epochs=1"]),
    ]


WHOLE = ["protocol=vertical", "training.batch_size=3000"]
STEPS = ["attack.blur_variance=0.01", "training.local_steps=2"]


def parties(folder: Path) -> list[str]:
    """Write three parties' CSV files, and return the overrides that split learning on them."""
    draw = np.random.default_rng(7)
    features = draw.normal(size=(160, 10)).round(3)
    labels = (features @ draw.normal(size=(10, 3))).argmax(axis=1)
    files = []
    for party, columns in enumerate([range(3), range(3, 8), range(8, 10)]):
        lines = [["id", *(f"f{column}" for column in columns), *["y"] * (party == 0)]]
        for row, label in enumerate(labels):
            cells = [f"r{row:03}", *(str(features[row, column]) for column in columns)]
            lines.append([*cells, *["abc"[label]] * (party == 0)])
        file = folder / f"party{party}.csv"
        file.write_text("".join(",".join(line) + "\n" for line in lines))
        files.append(str(file))
    return [
        "protocol=vertical",
        "dataset=csv_parties",
        f"dataset.files=[{','.join(files)}]",
        "dataset.trigger=[f4,f6]",
        "dataset.trigger_value=4",
        "dataset.poisoned_train=30",
        "dataset.poisoned_test=15",
        "attack.target=c",
        "bottom.hidden=6",
        "num_epochs=3",
    ]


def cases(data: Path) -> list[Case]:
    """Return all cases, after writing what they read into a folder."""
    strategies = data / "strategy"
    strategies.mkdir()
    for name, text in YAML.items():
        (strategies / f"{name}.yaml").write_text(text)
    return [*horizontal(), *vertical(data)]
