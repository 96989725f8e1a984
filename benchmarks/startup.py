"""What must be there before anything runs: help, and a run of one tiny round.

Help is measured against the import of hydra and rich, which nothing with this command line can do
without; the tiny run against the import of torch and Flower, without which nothing trains; so is
a later job of a sweep, from its start to its end: what each of two more adds to the first.

    python -m benchmarks.startup [--repeats 5]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median

TINY = (
    "+experiment=sniper_goal1 engine=local num_rounds=1 floor=false dataset.source=bundled "
    "model.channels=[4,8] dataset.samples_per_class=10 dataset.test_samples_per_class=10 "
    "attack.poisoned_samples=30"
)
COMMANDS = {
    "import hydra, rich": ["-c", "import hydra, rich"],
    "help": ["-m", "fl_backdoor.simulate", "--help"],
    "import torch, flwr": ["-c", "import torch, flwr.serverapp, flwr.clientapp"],
    "tiny run": ["-m", "fl_backdoor.simulate", *TINY.split()],
    "sweep of three": ["-m", "fl_backdoor.simulate", "-m", *TINY.split(), "seed=1,2,3"],
}
AGAINST = {
    "help": "import hydra, rich",
    "tiny run": "import torch, flwr",
    "later job": "import torch, flwr",
}


def process(arguments: Sequence[str]) -> float:
    """Return the seconds of a Python process; its files go to a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        ours = "fl_backdoor.simulate" in arguments
        places = [f"hydra.{kind}.dir={folder}/{kind}" for kind in ("run", "sweep") if ours]
        command = [sys.executable, *arguments, *places]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def main(arguments: Sequence[str]) -> dict[str, float]:
    """Print and return the median ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.repeats):
        for name, command in COMMANDS.items():
            taken[name].append(process(command))
    three, one = taken.pop("sweep of three"), taken["tiny run"]
    taken["later job"] = [(a - b) / 2 for a, b in zip(three, one, strict=True)]
    ratios = {}
    for name, against in AGAINST.items():
        pairs = zip(taken[name], taken[against], strict=True)
        ratios[name] = median(own / other for own, other in pairs)
        print(f"{name}: {ratios[name]:.2f} times `{against}`")
    return ratios


if __name__ == "__main__":
    main(sys.argv[1:])
