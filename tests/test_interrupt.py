"""Ctrl-C at any time: one line and exit status 130."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_backdoor import interrupt
from fl_backdoor.papers import pool

from .test_experiment import TINY

ROOT = Path(__file__).parents[1]

# Python imports it as it starts; the interrupt comes as a module is about to be imported.
SITE = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it

def step(event, arguments):
    if event == "import" and arguments[0] == os.environ["MODULE"]:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(step)
"""


@pytest.mark.parametrize(
    ("module", "command", "arguments"),
    [
        ("hydra", "simulate", []),
        ("torch", "simulate", ["+experiment=sniper_goal1", *TINY]),  # composed, and at work
        ("pandas", "compare", ["runs"]),
        ("pandas", "report", ["runs", "--out", "report"]),
        ("rich", "reproduce", ["cao2019", "--quick"]),
        ("torch", "audit", [str(ROOT / "tests" / "quickstart")]),
        ("numpy", "calibrate", ["rounds.jsonl"]),
        ("omegaconf", "listing", ["attacks"]),
    ],
)
def test_interrupted_as_it_is_imported(
    module: str, command: str, arguments: list[str], tmp_path: Path
) -> None:
    """Without a traceback, though some of what is imported would swallow the interrupt."""
    interrupted_at(module, tmp_path, "-m", f"fl_backdoor.{command}", *arguments)


def test_the_one_command_too(tmp_path: Path) -> None:
    script = tmp_path / "fl-backdoor"
    script.write_text("from fl_backdoor.cli import main\n\nmain()\n")
    interrupted_at("hydra", tmp_path, str(script), "audit", "app")


def interrupted_at(module: str, folder: Path, *command: str) -> None:
    (folder / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(folder), str(ROOT)])
    ended = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "MODULE": module},
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


@pytest.fixture
def by_default() -> Iterator[None]:
    """Let an interrupt raise KeyboardInterrupt, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize(
    ("program", "argv", "handled"),
    [
        ("/bin/fl-backdoor", ["python", "/bin/fl-backdoor", "audit"], True),
        ("-m", ["python", "-m", "fl_backdoor.audit"], True),
        ("-m", ["python", "-m", "pytest"], False),
        ("app.py", ["python", "app.py", "fl_backdoor.audit"], False),
    ],
)
def test_only_a_command_of_the_suite_handles_interrupts(
    program: str, argv: list[str], handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", argv)
    interrupt.handle_interrupts()
    assert isinstance(signal.getsignal(signal.SIGINT), interrupt.Interrupt) == handled


@pytest.mark.usefixtures("by_default")
def test_an_interrupt_waits_until_the_processes_of_a_grid_are_started() -> None:
    """They begin with interrupts blocked: their imports end without a word of theirs."""
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    started = []

    def start() -> None:
        with pool._held():
            os.kill(os.getpid(), signal.SIGINT)
            started.append(subprocess.check_output([sys.executable, "-c", code], text=True))

    with pytest.raises(KeyboardInterrupt):
        start()
    assert started == ["True\n"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
