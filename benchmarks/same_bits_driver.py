"""Runs cases of `benchmarks.same_bits` in the tree it finds itself in.

``python -P same_bits_driver.py OUTPUT CONFIG < CASES`` with the tree as working directory and
first on ``PYTHONPATH``. Of the tree it knows the command line, `RunDirectory.append`, and that
clients are Flower's ClientApps; the imports are done once, and each command is a fork.
"""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from matplotlib.figure import Figure

SLOW = ("torch._dynamo", "seaborn", "scipy.stats", "matplotlib.pyplot")
"""What takes seconds to import, and is needed only once a run is under way."""
HOSTILE = {1: "nan", 5: "extra array", 7: "shape", 9: "error"}
"""What the client of a partition answers from the second round on."""


def import_suite() -> tuple[ModuleType, type[Any]]:
    """Return the command's module and the class of run directories, wherever it is.

    What else the command needs it has to import itself.
    """
    command = importlib.import_module("fl_backdoor.simulate")
    package = Path(str(command.__file__)).resolve().parent
    assert package.parent == Path.cwd().resolve(), f"{package} is not of {Path.cwd()}"
    (where,) = (p for p in package.rglob("*.py") if "\nclass RunDirectory" in p.read_text())
    name = ".".join(where.relative_to(package.parent).with_suffix("").parts)
    for slow in SLOW:
        importlib.import_module(slow)
    return command, importlib.import_module(name).RunDirectory


def keep_models(kind: type[Any], run: Path, models: Path, interrupt: int) -> None:
    """Copy the model after each round; end the run after the round of this number, if any."""
    append: Callable[..., None] = kind.append
    kept: list[Path] = []

    def append_and_keep(self: Any, *arguments: Any, **named: Any) -> None:
        append(self, *arguments, **named)
        path = Path(self.path).resolve()
        number = len((path / "metrics.jsonl").read_text().splitlines())
        target = models / path.relative_to(run.resolve()) / f"{number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path / "model.safetensors", target)
        kept.append(target)
        if len(kept) == interrupt:
            raise KeyboardInterrupt

    kind.append = append_and_keep


def draw_nothing() -> None:
    """Save empty figures: images are not compared, and are half of what a small run takes."""
    Figure.draw = lambda *_: None  # type: ignore[method-assign]


def change_clients(attackers: dict[str, bool], *, hostile: bool) -> None:
    """Give nodes a config of their own, and replies that cannot be averaged."""
    answer = ClientApp.__call__
    asked: dict[tuple[str, int], int] = {}

    def changed(self: ClientApp, message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        if str(partition) in attackers:
            context.node_config["attacker"] = attackers[str(partition)]
        reply = answer(self, message, context)
        kind = (message.metadata.message_type, partition)
        asked[kind] = asked.get(kind, 0) + 1
        if hostile and kind[0].startswith("train") and asked[kind] > 1 and partition in HOSTILE:
            spoil(reply, HOSTILE[partition])
        return reply

    ClientApp.__call__ = changed  # type: ignore[method-assign]


def spoil(reply: Message, how: str) -> None:
    """Make an honest reply a hostile one."""
    if how == "error":
        raise RuntimeError("a client that fails")
    for name, record in list(reply.content.array_records.items()):
        arrays = {key: np.array(array.numpy()) for key, array in record.items()}
        first = next(iter(arrays))
        if how == "nan":
            arrays[first].flat[0] = np.nan
        elif how == "shape":
            arrays[first] = arrays[first][..., :-1]
        else:
            arrays["extra"] = np.ones(3, np.float32)
        reply.content[name] = ArrayRecord({key: Array(array) for key, array in arrays.items()})
    for config in reply.content.config_records.values():  # activations travel as bytes
        for key, value in config.items():
            if isinstance(value, bytes) and how == "nan":
                config[key] = np.float32(np.nan).tobytes() + value[4:]


def run(case: dict[str, Any], step: int, folder: Path, config: str, suite: Any, kind: Any) -> None:
    """Run one command of a case; what it prints is in ``outN`` and ``errN``."""
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{name}{step}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    path = folder / "run"
    keep_models(kind, path, folder / "models", case["interrupt"] if step == 0 else 0)
    if case["attackers"] or case["hostile"]:
        change_clients(case["attackers"], hostile=case["hostile"])
    draw_nothing()
    where = ["-m", f"hydra.sweep.dir={path}"] if case["sweep"] else [f"hydra.run.dir={path}"]
    first = [*where[:-1], "--config-dir", config, *case["arguments"], where[-1]]
    sys.argv[1:] = first if step == 0 else ["--resume", str(path)]
    suite.main()


def main() -> None:
    """Run the cases that stand on the standard input."""
    output, config = Path(sys.argv[1]), sys.argv[2]
    todo = json.load(sys.stdin)
    suite, kind = import_suite()
    for case in todo:
        folder = output / case["folder"]
        folder.mkdir(parents=True)
        seconds = 0.0
        for step in range(2 if case["interrupt"] else 1):
            child = os.fork()
            if child == 0:
                run(case, step, folder, config, suite, kind)
                return
            _, code, used = os.wait4(child, 0)
            seconds += used.ru_utime + used.ru_stime
            status = os.waitstatus_to_exitcode(code)
            (folder / f"status{step}").write_text(str(status))
        (folder / "seconds").write_text(f"{seconds:.1f}")  # at last: the case is done


if __name__ == "__main__":
    main()
