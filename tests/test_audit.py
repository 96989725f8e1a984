"""The audit of anybody's app: what it sees, what it does, and what it says where it cannot."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fl_backdoor.audit import __main__ as command
from fl_backdoor.audit.batches import Batches, UnseenError, find
from fl_backdoor.audit.cell import RefusedError, Result, Spec, run
from fl_backdoor.audit.cells import run_apart
from fl_backdoor.audit.chosen import AS_YOU_ARE, ATTACKS, DEFENSES, NOBODY, names
from fl_backdoor.audit.project import read
from fl_backdoor.audit.table import Table, broken, chosen_metric, outnumbered, parse_limit
from fl_backdoor.audit.turned import victims_only
from fl_backdoor.errors import UserError

from .conftest import until

ROOT = Path(__file__).parents[1]
APPS = ROOT / "tests" / "apps"
Pair = namedtuple("Pair", "x y")


def spec_of(name: str, **changes: Any) -> Spec:
    project = read(APPS / name)
    spec = Spec(
        folder=str(project.folder),
        serverapp=project.serverapp,
        clientapp=project.clientapp,
        config=project.config,
        batches=project.batches,
        clients=10,
        attackers=[2, 5, 7],
    )
    return replace(spec, **changes)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Return a function that runs an app in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])

    def run_here(name: str, **changes: Any) -> Result:
        sys.modules.pop("app", None)
        path = list(sys.path)
        try:
            return run(spec_of(name, **changes), lambda _: None)
        finally:
            sys.path[:] = path

    yield run_here
    for module in [name for name in sys.modules if name == "app" or name.startswith("tests.apps")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    "kind",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        lambda x, y: {"img": x, "label": y},
        lambda x, y: Pair(x, y),
    ],
)
def test_a_batch_keeps_its_kind(kind: Any) -> None:
    """And what is not changed is the same, wherever it is."""
    rows = [kind(torch.ones(3) * i, i % 2) for i in range(6)]
    batches = Batches()
    with batches.seen():
        plain = list(DataLoader(rows, 4))
        with batches.changing(lambda x, y: (x + 1, 1 - y)):
            changed = list(DataLoader(rows, 4))
    inputs, labels = find(plain[0], None, None)
    for before, after in zip(plain, changed, strict=True):
        assert type(after) is type(before)
        assert torch.equal(after[inputs], before[inputs] + 1)
        assert torch.equal(after[labels], 1 - before[labels])
    assert (batches.changed, batches.classes) == (2, 2)
    untouched = list(DataLoader(rows, 4))
    assert torch.equal(untouched[0][inputs], plain[0][inputs])
    assert batches.changed == 2


@pytest.mark.parametrize(
    ("batch", "keys", "said"),
    [
        (torch.ones(3), (None, None), "neither a dictionary nor a tuple"),
        ((torch.ones(3, 2),), (None, None), "which are the labels"),
        ({"a": torch.arange(3), "b": torch.arange(3)}, (None, None), "set labels in"),
        ({"x": torch.ones(3, 2), "y": torch.arange(3)}, ("z", None), "inputs=z: a batch has x, y"),
    ],
)
def test_what_cannot_be_seen_is_said(batch: Any, keys: Any, said: str) -> None:
    with pytest.raises(UnseenError, match=said):
        find(batch, *keys)
    batches = Batches(*keys)
    with batches.seen(), batches.changing(lambda x, y: (x, y)):
        assert batches._read(batch) is batch
    assert said in batches.why


def test_victims_stand_in_for_the_target() -> None:
    """A batch keeps its size, and all of it are victims, each about as often as the others."""
    labels = torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    found = victims_only(torch.arange(40), labels, 1)
    assert (labels[found] != 1).all()
    assert torch.equal(found[labels != 1], torch.arange(40)[labels != 1])
    assert torch.bincount(found).max() <= 2
    assert torch.equal(victims_only(labels, torch.ones(40), 1), labels)


def test_an_attack_costs_accuracy_and_a_defense_holds(cell: Callable[..., Result]) -> None:
    clean, attacked, held = (
        cell("sklearn_logistic", attack=attack, defense=defense).metrics["accuracy"]
        for attack, defense in [(None, None), ("sign_flip", None), ("sign_flip", "fedmedian")]
    )
    assert attacked < clean - 0.3
    assert held > attacked + 0.3


def test_a_trigger_is_learned_and_measured(cell: Callable[..., Result]) -> None:
    """Of a batch's keys nothing is said; the success is the app's own accuracy."""
    clean, attacked = (
        cell("torch_tuples", attack=attack) for attack in (None, "model_replacement")
    )
    assert attacked.triggered["accuracy"] > clean.triggered["accuracy"] + 0.3
    flipped = cell("torch_tuples", attack="label_flip", attackers=list(range(1, 9)))
    assert flipped.metrics["accuracy"] < clean.metrics["accuracy"] - 0.3


def test_the_same_seed_gives_the_same(cell: Callable[..., Result]) -> None:
    first, again = (cell("torch_tuples", attack="backdoor", rounds=1) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("custom_strategy", "Halved"),
        ("dp_wrapper", "DifferentialPrivacyServerSideFixedClipping"),
        ("lora", "FedAvg"),
        ("server_evaluation", "FedAvg"),
    ],
)
def test_apps_that_can_be_audited(name: str, strategy: str, cell: Callable[..., Result]) -> None:
    for changes in ({}, {"attack": "sign_flip", "defense": "fedmedian", "rounds": 2}):
        result = cell(name, **changes)
        assert result.strategy == strategy
        assert result.metrics["accuracy"] > 0.2
        assert [result.error, result.unattacked, result.undefended] == [""] * 3
        assert result.rounds == changes.get("rounds", 3)


def test_what_a_round_asks_is_counted(cell: Callable[..., Result], tmp_path: Path) -> None:
    app = (APPS / "torch_tuples" / "app.py").read_text()
    (tmp_path / "app.py").write_text(app.replace("FedAvg()", "FedAvg(fraction_train=0.4)"))
    assert cell("torch_tuples", folder=str(tmp_path), rounds=1).clients_a_round == 4
    assert cell("torch_tuples", rounds=1).clients_a_round == 10
    assert cell("no_strategy", rounds=1).clients_a_round is None


@pytest.mark.parametrize(
    ("asked", "attackers", "said"),
    [
        (None, 9, ""),
        (10, 4, ""),
        (10, 5, "all 10 clients, of which 5 attack"),
        (7, 3, ""),
        (6, 3, "6 of 10 clients, of which 3 may attack"),
        (2, 3, "2 of 10 clients, of which 2 may attack"),
    ],
)
def test_half_of_a_round_is_said(asked: int | None, attackers: int, said: str) -> None:
    sentence = f"A round asks {said}: most defenses assume fewer than half." if said else ""
    assert outnumbered(asked, 10, attackers) == sentence


def test_a_server_without_a_strategy_is_attacked_and_not_defended(
    cell: Callable[..., Result],
) -> None:
    result = cell("no_strategy", attack="sign_flip", rounds=2)
    assert result.metrics["accuracy"] < cell("no_strategy").metrics["accuracy"] - 0.3
    assert cell("no_strategy", defense="fedmedian").undefended == "the app starts no Strategy"


def test_an_evaluation_without_a_number_is_said(
    cell: Callable[..., Result], tmp_path: Path
) -> None:
    app = (APPS / "torch_tuples" / "app.py").read_text()
    (tmp_path / "app.py").write_text(app.replace("hits / 20", "[hits / 20]"))
    result = cell("torch_tuples", folder=str(tmp_path), rounds=1)
    assert result.broken == "no evaluation metric that is a number is reported"


def test_a_model_of_bytes_is_not_attacked_and_says_why(cell: Callable[..., Result]) -> None:
    result = cell("grown_bytes", attack="sign_flip")
    assert "nothing that was trained is a float parameter" in result.unattacked
    assert cell("grown_bytes").metrics
    assert "no torch DataLoader" in cell("grown_bytes", attack="label_flip").unattacked
    assert "target" in cell("grown_bytes", attack="backdoor").unattacked


def test_boosted_trees_are_bagged_and_not_attacked(cell: Callable[..., Result]) -> None:
    pytest.importorskip("xgboost")
    result = cell("xgboost_trees", attack="sign_flip", clients=4, attackers=[2])
    assert not result.error
    assert "nothing that was trained is a float parameter" in result.unattacked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("old_api", "older API"),
        ("secure_aggregation", "secure aggregation"),
        ("crashes", r"crashes in training: FileNotFoundError: data/train\.csv"),
        ("trains_nothing", "trains nothing"),
    ],
)
def test_apps_that_cannot_be_audited_say_why(
    name: str, said: str, cell: Callable[..., Result]
) -> None:
    with pytest.raises(RefusedError, match=said):
        cell(name)


def test_too_few_attackers_for_an_attack_are_said(cell: Callable[..., Result]) -> None:
    result = cell("sklearn_logistic", attack="alie", attackers=[1])
    assert "num_attackers=1" in result.unattacked


def test_all_attacks_and_defenses_are_built() -> None:
    assert names("attacks", "all", ATTACKS) == list(ATTACKS)
    assert names("defenses", "none", DEFENSES) == []
    known = {path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml")}
    assert set(DEFENSES) <= known
    with pytest.raises(UserError, match=r"attacks=sign_flop: .*; did you mean sign_flip\?"):
        names("attacks", "sign_flop", ATTACKS)


def results() -> Table:
    """Return a table in which an attack succeeds, one fails, one was not run, and one broke it."""
    kinds = {"accuracy": 0.9}, {"accuracy": 0.1}
    return Table(
        "accuracy",
        {
            (AS_YOU_ARE, NOBODY): Result(metrics=kinds[0], triggered=kinds[1]),
            (AS_YOU_ARE, "sign_flip"): Result(metrics={"accuracy": 0.5}),
            (AS_YOU_ARE, "backdoor"): Result(metrics=kinds[0], triggered=kinds[0]),
            (AS_YOU_ARE, "alie"): Result(unattacked="too few"),
            (AS_YOU_ARE, "gaussian"): Result(broken="ValueError: NaN"),
            ("fedmedian", NOBODY): Result(metrics={"accuracy": 0.8}, triggered=kinds[1]),
            ("fedmedian", "sign_flip"): Result(metrics={"accuracy": 0.8}),
        },
    )


def test_a_table_never_has_a_number_for_what_was_not_attacked() -> None:
    table = results()
    assert table.drop(AS_YOU_ARE, "sign_flip") == pytest.approx(0.4)
    assert table.success(AS_YOU_ARE, "backdoor") == 0.9
    assert table.drop(AS_YOU_ARE, "alie") is table.success(AS_YOU_ARE, "alie") is None
    assert table.text(AS_YOU_ARE, "alie") == "not attacked"
    assert table.drop(AS_YOU_ARE, "gaussian") == 0.9
    assert table.text(AS_YOU_ARE, "gaussian") == "model broken"
    assert table.cost("fedmedian", AS_YOU_ARE) == pytest.approx(0.1)
    assert table.text("fedmedian", "alie") == "not run"
    assert table.notes()[0] == f"{AS_YOU_ARE} / alie: not attacked: too few"


def test_limits_judge_the_app_as_it_is() -> None:
    table = results()
    assert broken(table, AS_YOU_ARE, {"attack_success": 0.95, "accuracy_drop": 1.0}) == []
    lines = broken(table, AS_YOU_ARE, {"attack_success": 0.1, "accuracy_drop": 0.5})
    assert lines == [
        "limit attack_success=0.1 is broken by backdoor 0.900",
        "limit accuracy_drop=0.5 is broken by gaussian 0.900",
    ]
    assert "no attack" in broken(table, "fedmedian", {"attack_success": 0.1})[0]


@pytest.mark.parametrize("text", ["atack_success=0.1", "accuracy_drop", "accuracy_drop=2"])
def test_a_bad_limit_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=f"^limit={text}: allowed"):
        parse_limit(text)


def test_the_metric_is_an_accuracy_or_named() -> None:
    found = {"eval_loss": 1.0, "eval_acc": 0.5}
    assert chosen_metric(found, None) == "eval_acc"
    assert chosen_metric(found, "eval_loss") == "eval_loss"
    with pytest.raises(UserError, match=r"^metric=acc: allowed are eval_loss, eval_acc; did you"):
        chosen_metric(found, "acc")
    with pytest.raises(UserError, match=r"name one with --metric"):
        chosen_metric({"mse": 1.0}, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not a Flower app"),
        ("a = [", "pyproject.toml: "),
        ("[project]\nname = 'a'", "no serverapp"),
        ("[tool.fl-backdoor]\ntarget = true", "target=True: allowed is a whole number"),
        ("[tool.fl-backdoor]\ntargets = 1", "targets: unknown key"),
    ],
)
def test_a_folder_that_is_no_app_is_one_line(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        head = '[tool.flwr.app.components]\nserverapp = "a:b"\nclientapp = "a:b"\n'
        both = text if "tool" not in text else head + text
        (tmp_path / "pyproject.toml").write_text(both)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Return a function that audits an app whose runs are made up; what they ended with."""

    def audited(*arguments: str, **found: Any) -> tuple[Any, str, str]:
        result = Result(metrics={"acc": 0.5}, strategy="FedAvg", rounds=3, **found)
        monkeypatch.setattr(command, "run_apart", lambda *_: result)
        app = str(APPS / "torch_tuples")
        monkeypatch.setattr(sys, "argv", ["audit", app, *arguments])
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as end:
            command.main()
        return end.value.code, *capsys.readouterr()

    return audited


def test_few_clients_a_round_are_said(audited: Any, tmp_path: Path) -> None:
    """In the terminal, on the page, and as a number in the JSON."""
    few = ["--attacks", "sign_flip", "--defenses", "none", "--out", str(tmp_path)]
    sentence = "A round asks 4 of 10 clients, of which 3 may attack: most defenses assume fewer"
    status, out, _ = audited(*few, clients_a_round=4)
    assert status == 0
    page = (tmp_path / "index.html").read_text()
    assert out.count(sentence) == page.count(sentence) == 1
    assert json.loads((tmp_path / "audit.json").read_text())["clients_a_round"] == 4
    status, out, _ = audited(*few, clients_a_round=10)
    assert "A round asks" not in out + (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ("none", ""),
        ("sign_flip", "; 1 other run: about 0 s"),
        ("ipm,alie", "; 2 other runs: about 0 s"),
    ],
)
def test_other_runs_are_told_where_there_are_some(attacks: str, said: str, audited: Any) -> None:
    _, _, err = audited("--attacks", attacks, "--defenses", "none")
    assert re.search(rf"It trains 3 rounds by FedAvg in 0 s{said}\n", err)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "out='': allowed"),
        ("file", "out=file: File exists; allowed is a folder that can be made and written"),
        ("file/page", "out=file/page: Not a directory; allowed"),
        ("/proc/page", "out=/proc/page: No such file or directory; allowed"),
        ("others", "out=others: its index.html is no audit's; allowed is another"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_the_runs(
    out: str, said: str, audited: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "index.html").write_text("<p>mine</p>")
    monkeypatch.chdir(tmp_path)
    status, printed, err = audited("--out", out)
    assert (status, printed) == (2, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_client_that_hangs_is_named_and_ended() -> None:
    result = run_apart(spec_of("hangs"), 20)
    said = r"hangs: no end of the train message of client \d+ in 20 s"
    assert re.fullmatch(said, result.error)


@pytest.mark.slow
def test_a_terminated_audit_leaves_nothing(tmp_path: Path) -> None:
    """Neither the running app's process, which has a session of its own, nor its folder."""
    audit = subprocess.Popen(
        [sys.executable, "-m", "fl_backdoor.audit", str(APPS / "hangs")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )

    def trains() -> bool:
        assert audit.poll() is None
        return any("train" in file.read_text() for file in tmp_path.glob("*/phase.txt"))

    until(trains, 120)
    children = Path(f"/proc/{audit.pid}/task/{audit.pid}/children").read_text().split()
    assert children
    audit.terminate()
    _, said = audit.communicate(timeout=30)
    assert audit.returncode == 130
    assert said.endswith("\ninterrupted\n")
    assert list(tmp_path.iterdir()) == []
    sessions = [line.rpartition(")")[2].split()[3] for line in stats()]
    assert not set(children) & set(sessions)


def stats() -> Iterator[str]:
    """Yield what the system says of each process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            yield path.read_text()


@pytest.mark.slow
def test_the_audit_of_the_quickstart_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "app"
    shutil.copytree(
        ROOT / "tests" / "quickstart", app, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = {path: path.read_bytes() for path in app.rglob("*") if path.is_file()}
    arguments = f"audit {app} --rounds 3 --attacks sign_flip --defenses fedmedian --json"
    limit = ["--limit", "accuracy_drop=0.05", "--out", str(tmp_path / "page")]
    monkeypatch.setattr(sys, "argv", [*arguments.split(), *limit])
    with pytest.raises(SystemExit) as end:
        command.main()
    printed, said = capsys.readouterr()
    assert end.value.code == 1
    assert "limit accuracy_drop=0.05 is broken by sign_flip" in said
    report = json.loads(printed)
    assert report == json.loads((tmp_path / "page" / "audit.json").read_text())
    assert [cell["attack"] for cell in report["cells"]] == [NOBODY, "sign_flip"] * 2
    assert "http" not in (tmp_path / "page" / "index.html").read_text()
    assert {path: path.read_bytes() for path in app.rglob("*") if path.is_file()} == before
