"""Split learning in one process, against a bare PyTorch loop and Flower's stock simulation.

All do the same steps of the same model on MNIST's shape (two parties, 392-32-10, batch 64). The
bare loop knows nothing of Flower, messages, state that outlives them, or hostile replies.

    python -m benchmarks.vertical [--repeats 5] [--stock-batches 20] [--rows 60000]
"""

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor, nn
from torch.nn import functional

from clients.vertical import PassiveParty, party_app
from fl_backdoor.federation.engines import LocalGrid, wait_for_nodes
from fl_backdoor.models.dense import DenseBottom
from strategies.vertical import ActiveParty, SumTop, enrol

from . import seconds

FEATURES, CLASSES, BATCH, RATE = 392, 10, 64, 0.01


@dataclass
class Work:
    """Random data of MNIST's shape: what is learned does not matter to the clock."""

    rows: int
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(CLASSES, (self.rows,), generator=generator)

    def block(self, party: int) -> Tensor:
        return torch.rand(self.rows, FEATURES, generator=torch.Generator().manual_seed(party + 1))

    @staticmethod
    def bottom(party: int) -> nn.Module:
        return DenseBottom(FEATURES, CLASSES, projection=True, seed=party)

    def app(self) -> ClientApp:
        parties: dict[int, PassiveParty] = {}

        def choose(message: Message, context: Context) -> PassiveParty:  # noqa: ARG001
            torch.set_num_threads(1)
            party = int(str(context.node_config["partition-id"]))
            if party not in parties:
                block = self.block(party)
                parties[party] = PassiveParty(
                    self.bottom(party),
                    block,
                    block[:1],
                    party=party,
                    train_digest="train",
                    test_digest="test",
                )
            return parties[party]

        return party_app(choose, checkpoints=True)

    def active(self, grid: Grid) -> ActiveParty:
        rows = {"train": (self.rows, "train"), "test": (1, "test")}
        parties = enrol(grid, 2, rows, timeout=600)
        top = SumTop([CLASSES] * 2, CLASSES)
        active = ActiveParty(top, self.labels, parties=parties, seed=0)  # as the bare loop's
        active.begin(grid)
        return active


class Bare:
    """The same steps as any PyTorch user would write them; ``select`` as one in a hurry would."""

    def __init__(self, work: Work, *, select: bool) -> None:
        self.work = work
        self.select = select
        self.blocks = [work.block(party) for party in range(2)]
        self.bottoms = [work.bottom(party) for party in range(2)]
        self.optimizers = [torch.optim.SGD(b.parameters(), lr=RATE) for b in self.bottoms]

    def epoch(self, number: int) -> None:
        order = np.random.default_rng([0, 31, number]).permutation(self.work.rows)
        for rows in torch.split(torch.from_numpy(order), BATCH):
            if self.select:
                taken = [block.index_select(0, rows) for block in self.blocks]
            else:
                taken = [block[rows] for block in self.blocks]
            sent = [bottom(x) for bottom, x in zip(self.bottoms, taken, strict=True)]
            received = [h.detach().requires_grad_() for h in sent]
            first, second = received
            loss = functional.cross_entropy(first + second, self.work.labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer, h, r in zip(self.optimizers, sent, received, strict=True):
                optimizer.zero_grad()
                h.backward(r.grad)
                optimizer.step()


@dataclass
class Ratio:
    """Epochs in this process against those of a bare loop.

    Attributes
    ----------
    name : str
        How the bare loop takes its rows.
    rows : int
        Of an epoch.
    ratios : list of float
        Seconds / seconds, one a repeat.
    same : bool
        Whether both end at the same weights, bit for bit.
    """

    name: str
    rows: int
    ratios: list[float]
    same: bool

    def __str__(self) -> str:
        return (
            f"epoch of {self.rows:,} rows, local / bare loop with {self.name}: median "
            f"{median(self.ratios):.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f}), same "
            f"weights bit for bit: {self.same}"
        )


def local_against_bare(rows: int, repeats: int) -> tuple[list[Ratio], float]:
    """Return the ratios of an epoch in this process to the bare loops', and a row's seconds."""
    work = Work(rows)
    bares = {"x[rows]": Bare(work, select=False), "index_select": Bare(work, select=True)}
    grid = LocalGrid(work.app(), 2)
    active = work.active(grid)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in bares}
    for number in range(1, repeats + 2):
        ours.append(seconds(partial(active.train_epoch, grid, number)))
        for name, bare in bares.items():
            theirs[name].append(seconds(partial(bare.epoch, number)))
    learned = [torch.from_numpy(a.numpy().copy()) for a in active.checkpoint(grid).values()]
    results = []
    for name, bare in bares.items():
        weights = [p for bottom in bare.bottoms for p in bottom.parameters()]
        same = all(torch.equal(a, b) for a, b in zip(learned, weights, strict=True))
        ratios = [o / t for o, t in zip(ours[1:], theirs[name][1:], strict=True)]  # warm by then
        results.append(Ratio(name, rows, ratios, same))
    return results, median(ours[1:]) / rows


def stock(batches: int) -> float:
    """Return the seconds that a batch takes in Flower's simulation as it comes."""
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    work = Work(batches * BATCH)
    taken: list[float] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        wait_for_nodes(grid.get_node_ids, 2, 60, "parties")
        active = work.active(grid)
        taken.append(seconds(partial(active.train_epoch, grid, 1)) / (batches + 1))

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        server_app,
        work.app(),
        num_supernodes=2,
        backend_config={"client_resources": resources},  # type: ignore[dict-item]
    )
    return taken[0]


MEMORY = """
import resource, torch
from hydra import compose, initialize_config_dir
from fl_backdoor.config import conf_directory, load
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.loop.epoch import answers
from fl_backdoor.federation.vertical import VerticalFederation, make_party_app
torch.set_num_threads(1)
with initialize_config_dir(str(conf_directory()), version_base="1.3"):
    config = load(compose("config", ["+experiment=vertical_nuswide", "dataset.source=synthetic"]))
federation = VerticalFederation(config)
federation.check()
grid = LocalGrid(make_party_app(config), 2)
active = federation.active_party(federation.enrol(grid), clean=False)
active.begin(grid)
active.train_epoch(grid, 1)
answers(active, grid, federation)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory() -> float:
    """Return the GiB that an epoch of NUS-WIDE's shape and its measurements take at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 2**30


def main(arguments: Sequence[str]) -> list[Ratio]:
    """Print and return the ratios of an epoch in one process to the bare loops'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stock-batches", type=int, default=20)
    parser.add_argument("--rows", type=int, default=60_000)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tenth = options.rows // 10 // BATCH * BATCH  # a power of two divides batches exactly alike
    few, small = local_against_bare(tenth, options.repeats)
    many, whole = local_against_bare(options.rows, options.repeats)
    print(*few, *many, sep="\n")
    print(f"a message with {options.rows:,} rows behind it / with {tenth:,}: {whole / small:.2f}")
    ratio = stock(options.stock_batches) / (whole * BATCH)
    print(f"a batch in Flower's stock simulation / local: {ratio:.0f}")
    print(f"NUS-WIDE's shape, 60,000 + 40,000 rows, an epoch: peak {peak_memory():.2f} GiB")
    return few + many


if __name__ == "__main__":
    main(sys.argv[1:])
