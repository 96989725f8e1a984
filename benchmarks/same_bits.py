"""The same bits as before: two trees run the same small experiments on this machine.

``python -m benchmarks.same_bits`` compares a commit with the tree that this file lies in, as it is:
models after every round, metric rows under their old names, summaries, distances and what is
printed. Configurations, times, memory files and images are not compared, and nothing is stored:
other machines have other bits. Each case is a line; the exit status is 1 if any differs.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from .same_bits_cases import Case, cases
from .same_bits_federation import supernodes

ROOT = Path(__file__).resolve().parents[1]
BASE = "83ad8d0"
"""The commit before the move."""

_ONCE = "replies are read once: metrics are averaged in the order in which they came"
ALLOWED: dict[tuple[str, str], str] = {
    ("vertical*", "out*:main accuracy *"): "a model at chance is marked",
    ("vertical*", "out*:attack success rate *"): "a rate has its interval beside it",
    ("NormClipping(FedAdam)", "*"): "clipped models stand in another order of content, in which "
    "Flower sums them in float32",
    ("*", "out*:*Setting: *"): "attacks are generic: a run names their class and keys",
    **{
        (case, "*:strategy:train-loss"): _ONCE
        for case in ("*noise*", "*clipping*", "NormClipping*")
    },
}
"""Differences meant: patterns of case and key, and the line of the issue that names the fault."""

CONFIGURATION = ("attack", "strategy", "defenses", "versions")
"""Of a summary; names of classes may change."""
UNDECIDED = ("status*", "out0:*Data: *", "*:attackers", "*:invalid", "*:failed")
FIRST = ("*:distance_honest_*", "*:distance_attacker_*", "*:update_norm_*")
"""What a rule does not decide, in any round and in the first."""


@dataclass(frozen=True)
class Difference:
    """What one tree has and the other has not.

    Attributes
    ----------
    key : str
        File and name of the value.
    round : int or None
        Round or epoch, if it is of one.
    old, new : object
        The values; of a model's array, bytes that differ.
    """

    key: str
    round: int | None
    old: Any
    new: Any

    def __str__(self) -> str:
        """Return one line."""
        when = "" if self.round is None else f" in round {self.round}"
        old, new = (str(value)[:120] for value in (self.old, self.new))
        return f"{self.key}{when}: {old} before, {new} now"


def values(key: str, old: Any, new: Any, number: int | None = None) -> Iterator[Difference]:
    """Compare what JSON holds; what is new is allowed in mappings only."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if not name.startswith(("seconds", "peak_memory")):
                yield from values(f"{key}:{name}", value, new.get(name, "nothing"), number)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from values(f"{key}[{place}]", *pair, number)
    elif old != new:
        yield Difference(key, number, old, new)


def load(path: Path) -> Any:
    """Read JSON, or a number; nothing if there is no file."""
    return json.loads(path.read_text()) if path.exists() else "nothing"


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a run's rows."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def models(old: Path, new: Path) -> Iterator[Difference]:
    """Compare two models by their arrays, in their order."""
    number = int(old.stem) if old.stem.isdecimal() else None
    key = f"{old.parent.name} model"
    if not new.exists():
        yield Difference(key, number, "a model", "nothing")
    elif old.read_bytes() != new.read_bytes():
        before, now = arrays(old), arrays(new)
        if list(before) != list(now):
            yield Difference(f"{key} names", number, list(before), list(now))
        for name in before.keys() & now.keys():
            a, b = before[name], now[name]
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                yield Difference(
                    f"{key} {name}", number, a.dtype.str + str(a.shape), b.dtype.str + str(b.shape)
                )
            elif a.tobytes() != b.tobytes():
                most = np.abs(a.astype(np.float64) - b).max()
                yield Difference(f"{key} {name}", number, "an array", f"one up to {most:.3g} away")


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read a model's arrays in the order that its file notes."""
    with safe_open(path, framework="numpy") as file:
        note = json.loads(file.metadata()["fl-backdoor"])
        return {name: file.get_tensor(name) for name in note["order"]}


def printed(path: Path, folder: Path) -> list[str]:
    """Return what a command printed, without times, paths, logs and the frames of tables."""
    if not path.exists():
        return []
    text = path.read_text().replace(str(folder), "FOLDER")
    text = re.sub(r"[^\S\n]*\d+\.\d s$", "", text, flags=re.MULTILINE)
    lines = (re.sub(r"[\s\u2500-\u257f]+", " ", line).strip() for line in text.splitlines())
    # Of a round at chance no success is printed any more; rows are compared whole.
    lines = (re.sub(r"^((?:round|epoch) .*? accuracy [\d.]+%).*", r"\1", line) for line in lines)
    return [line for line in lines if line and not line.startswith(("seconds", "WARNING"))]


def kept(folder: Path) -> list[Path]:
    """Return the models of a case: after every round, or at least the last ones."""
    every = sorted(folder.glob("models/**/*.safetensors"), key=lambda p: (p.parent, int(p.stem)))
    return every or sorted(folder.glob("run/**/model.safetensors"))


def last_words(folder: Path) -> str:
    """Return the last line of a command's errors."""
    lines = [line for path in sorted(folder.glob("err*")) for line in printed(path, folder)]
    return lines[-1] if lines else "nothing"


def differences(old: Path, new: Path) -> Iterator[Difference]:
    """Compare what one case left behind in two folders."""
    for path in sorted(old.rglob("status*")):
        yield from values(path.name, load(path), load(new / path.name))
        error = f"err{path.name[-1]}"
        if load(path) == 2:  # bad input ends in one line
            before, now = (printed(tree / error, tree)[-1:] for tree in (old, new))
            yield from values(error, before, now)
    for path in kept(old):
        yield from models(path, new / path.relative_to(old))
    for path in sorted(old.rglob("metrics.jsonl")):
        later = rows(new / path.relative_to(old))
        for number, row in enumerate(rows(path), 1):
            same = later[number - 1] if number <= len(later) else "nothing"
            yield from values(path.parent.name, row, same, number)
    for path in sorted(old.rglob("summary.json")):
        now = load(new / path.relative_to(old))
        summary = {k: v for k, v in load(path).items() if k not in CONFIGURATION}
        if isinstance(now, dict) and now.get("at_chance"):  # what is called success then is none
            summary = {k: v for k, v in summary.items() if now.get(k, v) is not None}
        yield from values("summary.json", summary, now)
    for path in sorted(old.rglob("distances.npy")):
        there = new / path.relative_to(old)
        if not there.exists() or np.load(path).tobytes() != np.load(there).tobytes():
            yield Difference(path.name, None, "distances", "others")
    for path in sorted(old.glob("out*")):
        lines = iter(printed(new / path.name, new))
        for line in printed(path, old):  # others may stand between
            if line not in lines:
                yield Difference(f"{path.name}:{line}", None, "printed", "not, or elsewhere")
                break


def decided(difference: Difference) -> bool:
    """Say whether it is the rule that decides a value."""
    names = (*UNDECIDED, *(FIRST if difference.round == 1 else ()))
    return not any(fnmatch(difference.key, name) for name in names)


def verdict(case: Case, old: Path, new: Path) -> tuple[bool, str]:
    """Compare a case; return whether it is as it should be, and the line to print."""
    number = len(kept(old))
    found = list(differences(old, new))
    if not number:
        found.insert(0, Difference("no round", None, *(last_words(tree) for tree in (old, new))))
    allowed, note = set(), ""
    if case.own_rule:
        found = [difference for difference in found if not decided(difference)]
        same = sum(not list(models(path, new / path.relative_to(old))) for path in kept(old))
        note = f" (own rule: {same} of {number} rounds equal)"
    for difference in list(found):
        for (name, key), why in ALLOWED.items():
            if fnmatch(case.name, name) and fnmatch(difference.key, key):
                allowed.add(why)
                found.remove(difference)
                break
    note += "".join(f" (but for: {why})" for why in sorted(allowed))
    said = f"DIFFERS: {found[0]}" if found else "equal"
    return not found, f"{case.name:58} {number:3} rounds  {said}{note}"


def drive(tree: Path, output: Path, todo: list[Case], data: Path) -> None:
    """Run cases in a tree, one after the other.

    Raises
    ------
    RuntimeError
        If the tree cannot be imported.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FL_BACKDOOR_")}
    environment |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    driver = Path(__file__).with_name("same_bits_driver.py")
    done = subprocess.run(
        [sys.executable, "-P", str(driver), str(output), str(data)],
        input=json.dumps([asdict(case) | {"folder": case.folder} for case in todo]),
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{tree}: {done.stderr.strip()[-2000:]}")


def checkout(commit: str, folder: Path) -> Path:
    """Unpack a commit.

    Raises
    ------
    CalledProcessError
        If git does not have it.
    """
    command = ["git", "-C", str(ROOT), "archive", commit]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Run and compare; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare two trees bit for bit.")
    parser.add_argument("--base", default=BASE, metavar="COMMIT", help=f"default: {BASE}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases, by name or pattern")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--deployment", action="store_true", help="SuperNodes too (minutes)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="same-bits-") as name:
        work = Path(name)
        (work / "data").mkdir()
        todo = cases(work / "data")
        if options.only:
            todo = [case for case in todo if any(fnmatch(case.name, p) for p in options.only)]
        if options.list:
            print("\n".join(case.name for case in todo))
            return 0
        trees = {"old": checkout(options.base, work / "base"), "new": ROOT}
        parts = max(1, options.jobs // 2)
        with ThreadPoolExecutor(options.jobs) as pool:
            running = [
                pool.submit(drive, tree, work / which, todo[part::parts], work / "data")
                for part in range(parts)
                for which, tree in trees.items()
            ]
            if options.deployment:
                todo.append(Case("SuperNodes", []))
                running += [
                    pool.submit(supernodes, tree, work / which / "SuperNodes")
                    for which, tree in trees.items()
                ]
            good = [report(case, [work / which for which in trees], running) for case in todo]
    return int(not good or not all(good))


def report(case: Case, trees: list[Path], running: list[Future[None]]) -> bool:
    """Print how a case compares as soon as both trees are done with it."""
    old, new = (tree / case.folder for tree in trees)
    while not ((old / "seconds").exists() and (new / "seconds").exists()):
        wait(running, timeout=0.5)
        for future in running:
            if future.done():
                future.result()
    good, line = verdict(case, old, new)
    print(f"{line}  ({load(old / 'seconds')} + {load(new / 'seconds')} s)", flush=True)
    return good


if __name__ == "__main__":
    raise SystemExit(main())
