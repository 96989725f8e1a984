"""The runs of an audit, each in a process of its own with a time limit on every phase."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .cell import Result, Spec

LEFT_OUT = (".git", ".venv", "venv", "__pycache__", "outputs")
"""Folders of an app that its copies lack."""


def run_apart(spec: Spec, limit: float) -> Result:
    """Run the app of a spec on a copy of its folder, which nothing outlives.

    Parameters
    ----------
    spec : Spec
        With the app's own folder.
    limit : float
        Seconds that a phase may take: loading, one client's answer to one message, measuring, or
        what the server does between messages.

    Returns
    -------
    Result
        With an ``error`` if the process hung or died.
    """
    with tempfile.TemporaryDirectory(prefix="fl-backdoor-audit-") as name:
        place = Path(name)
        copy = place / "app"
        shutil.copytree(spec.folder, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        files = [place / part for part in ("spec.json", "result.json", "phase.txt")]
        files[0].write_text(json.dumps(asdict(spec) | {"folder": str(copy)}))
        with (place / "log.txt").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "fl_backdoor.audit.cell", *map(str, files)],
                cwd=copy,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(_paths())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                hung = _hung(child, files[2], limit)
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        if hung:
            return Result(error=f"hangs: no end of {hung} in {limit:g} s")
        if not files[1].exists():
            said = (place / "log.txt").read_text(errors="replace").strip().splitlines()
            return Result(error=f"dies with status {child.returncode}: {(said or [''])[-1][:200]}")
        return Result(**json.loads(files[1].read_text()))


def _paths() -> Iterator[str]:
    """Yield where this suite is found, wherever the app's process starts."""
    yield str(Path(__file__).resolve().parents[2])
    yield from filter(None, [os.environ.get("PYTHONPATH")])


def _hung(child: "subprocess.Popen[bytes]", phase: Path, limit: float) -> str:
    """Wait for the end, and return the phase that is over its limit, if one is."""
    since, before = time.monotonic(), ""
    while child.poll() is None:
        time.sleep(0.05)
        now = phase.read_text() if phase.exists() else ""
        if now != before:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > limit:
            return now.partition("\n")[2] or "starting"
    return ""
