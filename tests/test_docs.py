"""Every command of the README and the docs is run: here, made tiny, or by a test that is named.

A code block without a mark (``<!-- test: NAME -->``) is read by bash, in which ``python`` notes its
arguments and does nothing else. So variables, functions and quotes are bash's, and any other
program is an error: it needs a mark, and an entry in `ELSEWHERE`.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from fl_backdoor import app
from fl_backdoor.config import conf_directory

from . import test_deployment as deployment
from .test_config import loaded, names
from .test_simulate import simulate

ROOT = Path(__file__).parents[1]

ELSEWHERE = {
    "README.md ci: run": ".ci/run",
    "README.md ci: tests": ".ci/run",
    "docs/flower.md test: simulation": "tests/test_deployment.py test_the_simulation",
    # The same command without --run-config, and so ten rounds with a clean twin.
    "docs/deployment.md test: whole simulation": "tests/test_deployment.py test_the_simulation",
    "docs/data.md test: hub": "tests/test_sources.py test_without_the_hub_it_says_what_to_do",
    **{
        f"docs/extending.md test: own {what}": "tests/test_extending.py test_every_file_runs"
        for what in ("data", "model", "defense", "attack", "measure", "partition")
    },
    # Hours; there a small grid.
    "docs/reproduction.md test: whole papers": "tests/test_reproduce.py "
    "test_a_grid_runs_ends_in_the_report_and_goes_on",
    "docs/matrix.md test: whole matrix": "tests/test_reproduce.py "
    "test_a_command_that_is_killed_leaves_no_process",
    "docs/sweeps.md test: submitit": "tests/test_launchers.py test_a_launcher_and_a_sweeper",
    "docs/sweeps.md test: optuna": "tests/test_launchers.py test_a_launcher_and_a_sweeper",
    "docs/deployment.md test: superlink": "tests/test_deployment.py machine",
    "docs/deployment.md test: connection": "tests/test_deployment.py machine",
    "docs/deployment.md test: supernodes": "tests/test_deployment.py test_the_walk_through",
    "docs/deployment.md test: run": "tests/test_deployment.py test_the_walk_through",
    "docs/deployment.md test: parties": "tests/test_deployment.py "
    "test_the_walk_through_of_split_learning",
    "docs/deployment.md test: split learning": "tests/test_deployment.py "
    "test_the_walk_through_of_split_learning",
    "docs/deployment.md test: ray head": "tests/test_deployment.py test_two_nodes_of_ray",
    "docs/deployment.md test: ray node": "tests/test_deployment.py test_two_nodes_of_ray",
    "docs/deployment.md test: ray run": "tests/test_deployment.py test_two_nodes_of_ray",
    "docs/deployment.md test: tracker": "tests/test_tracker.py "
    "test_the_rows_of_a_run_are_those_that_the_tracker_gets",
    "README.md test: audit": "tests/test_audit.py "
    "test_the_audit_of_the_quickstart_ends_with_a_table",
    "docs/production.md test: audit": "tests/test_audit.py "
    "test_the_audit_of_the_quickstart_ends_with_a_table",
    "docs/production.md test: calibrate": "tests/test_calibrate.py "
    "test_a_run_directory_knows_its_attackers",
    "docs/deployment.md test: certificates": "tests/test_docs.py test_a_node_joins_over_tls",
    "docs/deployment.md test: tls": "tests/test_docs.py test_a_node_joins_over_tls",
}
"""Blocks that have a mark, and who runs them."""

PLACEHOLDERS = {"strategy=S ": "strategy=sniper ", '/usr/bin/time -f "%M KiB" ': ""}
"""What stands in the docs for a choice, and a program that few machines have."""

SLOW = pytest.mark.slow

TINY = {
    "horizontal": [
        "dataset.source=bundled",
        "dataset.samples_per_class=20",
        "dataset.test_samples_per_class=40",
        "model.channels=[4,8]",
        "num_clients=12",
        "num_rounds=1",
    ],
    "mnist_rows": ["dataset.source=bundled", "training.batch_size=6000", "num_epochs=1"],
    "csv_parties": ["num_epochs=1"],
    "cut": ["num_epochs=1"],
    "other": ["num_rounds=1"],
}
"""Keys that a command is given here instead of its own; of a list of values see `shortened`."""


@dataclass(frozen=True)
class Block:
    """Commands as a page has them."""

    page: str
    mark: str
    text: str

    def __str__(self) -> str:
        """Return where it stands."""
        return f"{self.page} {self.mark or ' '.join(self.text.split()[:6])}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), mark, text)
    for page in pages()
    for mark, text in re.findall(
        r"(?:<!-- (\w+: [\w ]+) -->\n)?```(?:bash|sh|shell|console)\n(.*?)```",
        page.read_text(),
        re.DOTALL,
    )
]
INLINE = sorted({code for p in pages() for code in re.findall("`([^`\n]+)`", p.read_text())})
OURS = [block for block in BLOCKS if not block.mark]


@cache
def noted(text: str) -> list[list[str]]:
    """Return the arguments of every ``python`` that bash would start.

    Raises
    ------
    CalledProcessError
        If bash would start anything else.
    """
    for placeholder, choice in PLACEHOLDERS.items():
        text = text.replace(placeholder, choice)
    note = "{ printf '%s\\037' \"$@\"; echo; }"
    functions = f"python() {note}\n.venv/bin/python() {note}\n"
    bash = shutil.which("bash")
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(bash), "-euc", functions + text],
            env={"PATH": "/nowhere"},
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [line.split("\037")[:-1] for line in done.stdout.splitlines()]


def modules(block: Block, name: str) -> list[list[str]]:
    """Return the arguments of every ``python -m NAME`` of a block."""
    return [command[2:] for command in noted(block.text) if command[:2] == ["-m", name]]


def choices(argument: str) -> tuple[str, list[str]]:
    """Split ``key=a,b`` into its key and the values that a sweep takes in turn."""
    key, _, value = argument.partition("=")
    return key, [value] if value[:1] in tuple("[{'\"") else value.split(",")


def shortened(arguments: list[str]) -> list[str]:
    """Make a command tiny: of the first list of values two are left, of others one.

    Split learning, of which there are many commands, is swept in one process.
    """
    vertical = "protocol=vertical" in arguments
    data = next((a.removeprefix("dataset=") for a in arguments if a.startswith("dataset=")), "")
    kind = "horizontal" if data in ("", "mnist") else "other"
    if vertical or "vertical_" in " ".join(arguments):
        kind = data if data in TINY else "mnist_rows"
    scheduled = any(argument.startswith("attack.schedule") for argument in arguments)
    tiny = [key for key in TINY[kind] if not (scheduled and key.startswith("num_rounds"))]
    replaced = {choices(argument)[0] for argument in tiny}
    short, left = [], 2
    for argument in arguments:
        key, values = choices(argument)
        if key in replaced or (vertical and key.startswith("hydra")):
            continue
        if len(values) > 1:
            argument = f"{key}={','.join(values[:left])}"
            left = 1
        short.append(argument)
    return [*short, *tiny]


def test_every_block_has_a_test() -> None:
    """And every entry names a block that is there, and a test that is."""
    assert sorted(str(block) for block in BLOCKS if block.mark) == sorted(ELSEWHERE)
    for where, who in ELSEWHERE.items():
        file, _, name = who.partition(" ")
        text = (ROOT / file).read_text()
        assert f"def {name}(" in text or not name, who
        assert (where.rpartition(": ")[2] in text) or "whole" in where, who
    whole, part = (
        next(block.text for block in BLOCKS if str(block).endswith(mark))
        for mark in ("test: whole simulation", "test: simulation")
    )
    assert whole.strip() in part


@pytest.mark.parametrize("text", ["flwr run .", "python -m fl_backdoor.compare a | head", "x=$y"])
def test_a_new_command_needs_an_entry(text: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        noted(text)


def test_bash_reads_the_commands() -> None:
    text = 'run() { A=1 python -m a x=${S:-0,1} "$@"; }\nk=\'b c\'\nS=2 run "$k" [d]  # e\nrun'
    assert noted(text) == [["-m", "a", "x=2", "b c", "[d]"], ["-m", "a", "x=0,1"]]


def test_a_sweep_is_shortened() -> None:
    command = ["-m", "a=1,2,3", "b=[x,y]", "num_rounds=9", "c=4,5"]
    assert shortened(command) == ["-m", "a=1,2", "b=[x,y]", "c=4", *TINY["horizontal"]]


@pytest.mark.parametrize("block", OURS, ids=str)
def test_every_command_composes(block: Block) -> None:
    """Each with the first and with the last of its values, and with each choice of a group."""
    for command in noted(block.text):
        assert command[0] == "-m"
        assert find_spec(command[1]), command
    for command in modules(block, "fl_backdoor.simulate"):
        swept = [choices(a) for a in takewhile(lambda a: a != "--resume", command) if "=" in a]
        swept = [(key, values) for key, values in swept if not key.startswith("hydra")]
        tried = [[f"{key}={values[place]}" for key, values in swept] for place in (0, -1)]
        for place, (key, values) in enumerate(swept):
            if names(key.lstrip("+")):
                one = [f"{key}={value}" for value in values[1:-1]]
                tried += [[*tried[0][:place], o, *tried[0][place + 1 :]] for o in one]
        for overrides in {tuple(one): one for one in tried}.values():
            loaded(*overrides)


def test_a_command_imports_what_it_composes(tmp_path: Path) -> None:
    """Here something else may have imported it."""
    done = simulate("protocol=vertical", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if "--run-config" in b.text], ids=str)
def test_every_run_config_composes(block: Block) -> None:
    named = dict(re.findall('(experiment|overrides)="(.*?)"', block.text))
    app.compose_config(named["experiment"], named["overrides"])


def test_commands_between_the_lines_are_of_modules_and_tests_that_are_there() -> None:
    found = [code for code in INLINE if re.search(r"\b(pytest|python -m)\b", code)]
    assert found
    for code in found:
        for module in re.findall(r"python -m ([\w.]+)", code):
            assert find_spec(module), code
        for path in re.findall(r"tests/[\w/.]+", code):
            assert (ROOT / path).exists(), code


def test_the_page_lists_the_experiments_and_the_groups() -> None:
    """All of them, and no others."""
    tables = re.findall(
        r"\| (experiment|group) \|.*\n\|.*\n((?:\|.*\n)+)",
        (ROOT / "docs" / "running.md").read_text(),
    )
    experiments, groups = (table for _, table in sorted(tables))
    listed = re.findall("`(.+?)`", " ".join(row.split("|")[1] for row in experiments.splitlines()))
    matched = {name: [n for n in names("experiment") if fnmatch(n, name)] for name in listed}
    assert all(matched.values())
    assert {name for some in matched.values() for name in some} == set(names("experiment"))
    for row in groups.splitlines():
        of, said = row.split("|")[1:3]
        there = {name for group in re.findall("`(.+?)`", of) for name in names(group)}
        assert there <= set(re.findall("`(.+?)`", said)), row
    folders = {path.name for path in conf_directory().iterdir() if path.is_dir()}
    assert folders - {"experiment", "attackers"} == set(
        re.findall("`(.+?)`", " ".join(row.split("|")[1] for row in groups.splitlines()))
    )


def write_shops(folder: Path) -> None:
    """Write the two files of the CSV example of docs/running.md."""
    for name, columns in (("bank", ("id", "x1", "x2", "y")), ("shop", ("id", "x3", "x4"))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in range(1500):
                cells = {"id": row, "y": row % 2}
                writer.writerow(cells.get(column, (7 * row) % 11) for column in columns)


def write_own_data(folder: Path) -> None:
    """Write the files that docs/data.md speaks of."""
    rows = [f"{k % 7},{'abc'[k % 3]},north{k % 9},{'ny'[k % 2]}" for k in range(200)]
    (folder / "customers.csv").write_text("\n".join(["age,kind,branch,leaves", *rows]))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 9, 9, 3), np.uint8)
    np.savez(folder / "pictures.npz", x=images, y=np.arange(200) % 4)
    (folder / "my_data.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def two_sets():\n"
        "    rows = [(torch.randn(n, 5), torch.arange(n) % 3) for n in (200, 60)]\n"
        "    return [TensorDataset(*pair) for pair in rows]\n"
    )


MANY = 12
"""Commands of a block, beyond which it takes minutes however small each is made."""


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b, marks=pytest.mark.exhaustive if len(noted(b.text)) > MANY else SLOW)
        for b in OURS
        if noted(b.text)
    ],
    ids=str,
)
def test_every_command_runs(block: Block, tmp_path: Path) -> None:
    write_shops(tmp_path)
    write_own_data(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in noted(block.text):
        if command[1] == "fl_backdoor.simulate":
            arguments = shortened(command[2:])
        else:
            paths = [sorted(tmp_path.glob(a)) if "*" in a else [a] for a in command[2:]]
            arguments = [str(path) for some in paths for path in some]
        before = len(list(tmp_path.rglob("summary.json")))
        done = subprocess.run(
            [sys.executable, *command[:2], *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command[1] == "fl_backdoor.simulate":
            assert len(list(tmp_path.rglob("summary.json"))) > before, command
        else:
            assert done.stdout


@pytest.mark.slow
def test_a_node_joins_over_tls(tmp_path: Path) -> None:
    """With the certificates of the walk-through; here the SuperLink's name is localhost."""
    machine = deployment.Machine(tmp_path)
    try:
        assert machine.start(deployment.printed("certificates")).wait(timeout=120) == 0, machine.log
        link, node = re.findall(r"flower-super(?:\\\n|.)*", deployment.printed("tls"))
        machine.start(link)
        machine.start(
            node.replace("superlink.example.org", "localhost").replace(
                "--node-config", "--port 9101 --node-config"
            )
        )
        machine.wait_for(lambda: "SuperNode ID" in machine.log, 60)
        assert "running on https://" in machine.log
    finally:
        for process in machine.started:
            deployment.kill(process)
