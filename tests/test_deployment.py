"""The commands of docs/deployment.md, in processes of their own: a SuperLink and its SuperNodes."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import until
from .test_experiment import rows
from .test_simulate import simulate

ROOT = Path(__file__).parents[1]
PORTS = ("8000", "9101", "9102", "9103", "9104", "6379")


def printed(name: str, page: str = "docs/deployment.md") -> str:
    """Return a command of the walk-through as it is printed."""
    text = (ROOT / page).read_text()
    found = re.search(rf"<!-- test: {name} -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert found, name
    return found[1]


class Machine:
    """Runs the commands of the walk-through, with free ports and a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        self.ports = {p: s.getsockname()[1] for p, s in zip(PORTS, sockets, strict=True)}
        for one in sockets:
            one.close()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("FLWR_")} | {
            "HOME": str(home),  # Flower's folder, with its configuration and the app
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, command: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start a command in a terminal of its own."""
        command = re.sub("|".join(PORTS), lambda port: str(self.ports[port[0]]), command)
        with (self.home / "log").open("a") as log:
            process = subprocess.Popen(
                ["bash", "-euc", command],
                cwd=folder or self.home,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def finish(self, command: str) -> None:
        """Run a command in the root of the repository."""
        assert self.start(command, ROOT).wait(timeout=400) == 0, self.log

    @property
    def log(self) -> str:
        """What all commands have printed."""
        return (self.home / "log").read_text()

    def wait_for(self, what: Callable[[], bool], seconds: float) -> None:
        until(what, seconds, lambda: self.log)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['8000']}/health", timeout=1):
                return True
        except OSError:
            return False


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command with all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Start a SuperLink; when the test is over nothing is left of it, nor of what joined it."""
    machine = Machine(tmp_path)
    try:
        machine.start(printed("superlink"))
        machine.finish(printed("connection"))
        machine.wait_for(machine.healthy, 60)
        yield machine
    finally:
        for process in machine.started:
            kill(process)


@pytest.mark.slow
def test_the_walk_through(machine: Machine) -> None:
    """Four nodes, of which one attacks, and is the one that Sniper drops."""
    machine.start(printed("supernodes"))
    machine.finish(printed("run"))
    run = machine.home / "outputs" / "trial"
    assert json.loads((run / "summary.json").read_text())["attackers"] == [3], machine.log
    assert rows(run)[-1]["dropped"] == [3]
    assert "Attackers by node config: [3]" in machine.log


@pytest.mark.exhaustive
def test_a_part_of_the_nodes_in_each_round(machine: Machine, tmp_path: Path) -> None:
    """The model of the command line, where the attacker is in some rounds only."""
    machine.start(printed("supernodes"))
    crowd = "seed=2 cohort.clients_per_round=3 attack.num_attackers=1 attack.roster=[3]"
    command = printed("run").replace("attack.num_attackers=0", crowd)
    machine.finish(command)
    run = machine.home / "outputs" / "trial"
    assert model(run) == model_here(command, tmp_path / "here")
    cohorts = [row["cohort"] for row in rows(run)]
    assert cohorts == [row["cohort"] for row in rows(tmp_path / "here")]
    assert {3 in cohort for cohort in cohorts} == {True, False}


@pytest.mark.slow
def test_two_nodes_of_ray(tmp_path: Path) -> None:
    """Started as on two machines; they end with the model of one process."""
    machine = Machine(tmp_path)
    command = printed("ray run")
    try:
        for count, name in enumerate(("ray head", "ray node"), start=1):
            machine.start(printed(name))
            machine.wait_for(lambda count=count: machine.log.count("block forever") == count, 90)
        assert machine.start(command).wait(timeout=400) == 0, machine.log
    finally:
        for process in reversed(machine.started[:2]):
            process.terminate()  # else what it has started would stay
            process.wait(timeout=60)
    overrides = shlex.split(command.replace("\\\n", " "))[3:]
    local = [part for part in overrides if not part.startswith(("engine", "hydra"))]
    done = simulate(*local, "engine=local", f"hydra.run.dir={tmp_path / 'local'}")
    assert done.returncode == 0, done.stderr
    models = [tmp_path / run / "model.safetensors" for run in ("outputs/two_nodes", "local")]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.slow
def test_the_walk_through_of_split_learning(machine: Machine, tmp_path: Path) -> None:
    """It ends with the model of the command line."""
    machine.start(printed("parties"))
    command = printed("split learning")
    machine.finish(command)
    assert model(machine.home / "outputs" / "split") == model_here(command, tmp_path / "here")


@pytest.mark.exhaustive
def test_the_simulation(tmp_path: Path) -> None:
    """As docs/flower.md has it; `flwr` starts a SuperLink, which stays."""
    machine = Machine(tmp_path)
    _, http, control, *_ = map(str, machine.ports.values())
    machine.environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] = http
    machine.environment["FLWR_LOCAL_CONTROL_API_PORT"] = control
    command = printed("simulation", "docs/flower.md")
    try:
        machine.finish(command)
    finally:
        subprocess.run(["pkill", "-KILL", "-f", f"flower-superlink.*{tmp_path}"], check=False)
    found = re.search(r"^Results: (.*)", machine.log, re.MULTILINE)
    assert found, machine.log
    run = shutil.move(found[1], tmp_path / "run")  # it began where the command did
    assert model(run) == model_here(command, tmp_path / "here")


@pytest.mark.exhaustive
def test_a_node_that_is_killed_and_one_that_comes_late(machine: Machine) -> None:
    """In the second of three rounds, while it trains; in its place another one."""
    *others, last = re.findall("flower-supernode [^&]*", printed("supernodes"))
    for node in others:
        machine.start(node)
    victim = machine.start(last)
    command = machine.start(printed("run"), ROOT)
    run = machine.home / "outputs" / "trial"
    machine.wait_for(lambda: (run / "model.safetensors").exists(), 200)
    sent = machine.log.count("Sending: train message")
    machine.wait_for(lambda: machine.log.count("Sending: train message") > sent, 60)
    kill(victim)
    machine.start(last)
    assert command.wait(timeout=400) == 0, machine.log
    assert [row["failed"] for row in rows(run)] == [[], [3], []], machine.log
    assert (run / "summary.json").exists()


@pytest.mark.exhaustive
def test_a_party_that_is_killed_and_comes_back(machine: Machine, tmp_path: Path) -> None:
    """The run ends in a line that names it; resumed, it ends with the bits of one undisturbed."""
    first, second = re.findall("flower-supernode [^&]*", printed("parties"))
    machine.start(first)
    victim = machine.start(second)
    text = printed("split learning").replace("num_epochs=1", "num_epochs=2")
    command = machine.start(text, ROOT)
    run = machine.home / "outputs" / "split"
    machine.wait_for(lambda: (run / "model.safetensors").exists(), 300)
    kill(victim)
    command.wait(timeout=200)
    assert re.search("raised an exception: party 1: failed at epoch 2, .*Unavailable", machine.log)
    assert len(rows(run)) == 1
    machine.start(second)
    machine.finish(text.replace("num_epochs=2", "num_epochs=2 resume=true"))
    assert model(run) == model_here(text, tmp_path / "here")


def model(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def model_here(command: str, path: Path) -> bytes:
    """Return the model that the same experiment ends with on the command line, in one process."""
    named = dict(re.findall('(experiment|overrides)="(.*?)"', command))
    arguments = [f"+experiment={named['experiment']}", *named["overrides"].split()]
    done = simulate(*arguments, "engine=local", f"hydra.run.dir={path}")
    assert done.returncode == 0, done.stderr
    return model(path)
