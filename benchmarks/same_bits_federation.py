"""A run on SuperNodes for `benchmarks.same_bits`, each a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SETTING = (
    "num_clients=4 attack.num_attackers=0 num_rounds=2 dataset.source=bundled "
    "dataset.samples_per_class=20 dataset.test_samples_per_class=40 training.learning_rate=0.3 "
    "model.channels=[4,8] floor=false attack.poisoned_samples=30"
)


def free_ports(number: int) -> list[int]:
    """Find ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def supernodes(tree: Path, folder: Path) -> None:
    """Run one SuperLink, four SuperNodes of which the last attacks, and an experiment on them.

    Raises
    ------
    RuntimeError
        If the SuperLink does not start.
    """
    folder.mkdir(parents=True)
    link, *ports = free_ports(5)
    home = folder / "home"
    (home / ".flwr").mkdir(parents=True)
    (home / ".flwr" / "config.toml").write_text(
        f'[superlink.trial]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    programs = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FL_BACK"))}
    environment |= {
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    begun = time.monotonic()
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str, cwd: Path = home) -> subprocess.Popen[bytes]:
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(programs / name), *arguments],
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    try:
        runtime = "--disable-runtime-dependency-installation"
        start("flower-superlink", "--insecure", runtime, "--port", str(link))
        wait_for(f"http://127.0.0.1:{link}/health", folder / "log")
        for number, port in enumerate(ports):
            node = f"partition-id={number}" + (" attacker=true" if number == 3 else "")
            where = ("--superlink", f"127.0.0.1:{link}", "--port", str(port))
            start("flower-supernode", "--insecure", *where, "--node-config", node)
        config = f'experiment="sniper_goal1" overrides="{SETTING}" output="{folder / "run"}"'
        command = start("flwr", "run", ".", "trial", "--stream", "--run-config", config, cwd=tree)
        (folder / "status0").write_text(str(command.wait(timeout=600)))
        (folder / "seconds").write_text(f"{time.monotonic() - begun:.1f}")
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str, log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(log.read_text()[-2000:])
