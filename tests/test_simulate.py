"""The command line, as a user meets it: exit status, one line of error, resumption."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fl_backdoor.federation.vertical_attacks import NoAttack
from fl_backdoor.simulate import _flags_first

from . import test_vertical_experiment as vertical
from .test_experiment import TINY, TINY_ATTACK, run


class Unexpected(NoAttack):
    """A fault of the suite."""

    def describe(self, setting: object, parties: object) -> str:
        return str(1 // 0)


COMMAND = [sys.executable, "-m", "fl_backdoor.simulate"]
SNIPER = ["+experiment=sniper_goal1", *TINY, *TINY_ATTACK, "floor=false"]


def simulate(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["num_round=3"], "num_round", marks=pytest.mark.slow),
        (["+experiment=snipper"], "snipper"),
        pytest.param(["attack.num_attackers=4"], "attack.num_attackers=4", marks=pytest.mark.slow),
        (["dataset.source=idx", "dataset.root=/nowhere"], "/nowhere"),
        (["--resume", "/nowhere"], "/nowhere"),
        pytest.param(["--resume=/nowhere"], "/nowhere", marks=pytest.mark.slow),
        (["attack=null"], "label_flipping"),
        pytest.param(["=1"], "", marks=pytest.mark.slow),
        pytest.param(["model._target_=foo.Bar"], "foo", marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = simulate(*SNIPER[1:], *arguments, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = simulate(*SNIPER, f"hydra.run.dir={tmp_path}/file/run")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "file" in done.stderr


def test_help_shows_usage_and_groups() -> None:
    done = simulate("--help")
    assert done.returncode == 0
    assert "+experiment=sniper_goal1" in done.stdout
    assert "backdoor_norm_clipping" in done.stdout


@pytest.mark.slow
def test_a_sweep_keeps_its_runs_apart(tmp_path: Path) -> None:
    done = simulate(
        "-m", *SNIPER, "num_rounds=1", "strategy=fedavg,sniper", "seed=0,1",
        f"hydra.sweep.dir={tmp_path}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    models = {}
    for path in tmp_path.glob("*/*/summary.json"):
        summary = json.loads(path.read_text())
        strategy = summary["strategy"]["_target_"].rpartition(".")[2].lower()
        models[strategy, summary["seed"]] = path.with_name("model.safetensors").read_bytes()
    assert models.keys() == {("fedavg", 0), ("fedavg", 1), ("sniper", 0), ("sniper", 1)}
    for (strategy, seed), model in models.items():
        alone = tmp_path / f"{strategy}-{seed}"
        run(alone, *SNIPER, "num_rounds=1", f"strategy={strategy}", f"seed={seed}")
        assert (alone / "model.safetensors").read_bytes() == model


@pytest.mark.slow
def test_a_sweep_goes_on_when_a_run_of_it_fails(tmp_path: Path) -> None:
    """The experiment's file makes it a sweep, over gamma and seed.

    A learning rate that diverges ends a run in training, a target too many before it begins.
    """
    done = simulate(
        "+experiment=vertical_fig4_nuswide", *vertical.TINY, "num_epochs=2", "seed=0",
        "attack.gamma=1", "attack.num_targets=1,301", "training.learning_rate=0.1,1e30",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 2
    *errors, last = done.stderr.splitlines()
    assert len(errors) == 3
    assert sum("attack.num_targets=301" in line for line in errors) == 2
    assert sum("not finite" in line for line in errors) == 1
    failed = sorted(tmp_path.rglob("error.txt"))
    assert last == f"error: 3 runs ended early: {' '.join(map(str, failed))}"
    for path in failed:
        (text,) = path.read_text().splitlines()
        assert any(line.endswith(f"error: {text}") for line in errors)
    (summary,) = tmp_path.rglob("summary.json")
    assert not summary.with_name("error.txt").exists()
    assert "ended early" in done.stdout
    assert f"Figure: {tmp_path / 'epochs.png'}" in done.stdout
    assert (tmp_path / "epochs.png").stat().st_size > 10_000
    assert "Traceback" not in done.stdout + done.stderr
    before = json.loads(summary.read_text())
    summary.unlink()
    assert simulate("--resume", str(summary.parent)).returncode == 0  # this run alone
    assert json.loads(summary.read_text()).keys() == before.keys()


@pytest.mark.slow
def test_a_refused_command_costs_no_resumption(tmp_path: Path) -> None:
    """Neither of another run nor of this one, wherever the resuming process stands."""
    (tmp_path / "b").mkdir()
    for file, column in (("a.csv", "f,y"), ("b/b.csv", "g")):
        lines = [f"{n},{n % 3}" + (f",{n % 2}" if file == "a.csv" else "") for n in range(40)]
        (tmp_path / file).write_text("\n".join([f"id,{column}", *lines]))
    command = [
        "protocol=vertical", "dataset=csv_parties", "dataset.files=[a.csv,b/b.csv]",
        "dataset.trigger=[g]", "attack.target=1", "dataset.poisoned_train=3",
        "dataset.poisoned_test=2", "num_epochs=2", "hydra.run.dir='it\\'s, = one'",
    ]  # fmt: skip

    done = simulate(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "it's, = one"
    for file in ("summary.json", "model.safetensors"):
        (run / file).unlink()
    for other in (["seed=5"], ["seed=5", "resume=true"]):
        refused = simulate(*command, *other, cwd=tmp_path)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
    for beside in ("hydra.run.dir=x", "-m"):
        refused = simulate("--resume", "it's, = one", beside, cwd=tmp_path)
        assert refused.stderr == (
            f"error: --resume {run} {beside}: allowed beside it are key=value\n"
        )
    done = simulate("--resume", "../it's, = one", cwd=tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert (run / "summary.json").exists()


@pytest.mark.slow
def test_a_sweep_survives_faults_long_names_and_another_start(tmp_path: Path) -> None:
    """One run has a class that fails in a way nobody expects."""
    nobody = "fl_backdoor.federation.vertical_attacks.NoAttack"
    target = f"attack._target_=tests.test_simulate.Unexpected,{nobody}"
    sweep = [
        "-m", *vertical.TINY, "num_epochs=1", "name=" + 30 * "long name ", target,
        "attack=none", f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    done = simulate(*sweep)
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 1 run ended early: ")
    assert len(list(tmp_path.rglob("summary.json"))) == 1
    again = simulate(*sweep)
    assert again.returncode == 2
    assert "holds a run already" in again.stderr


def test_flags_may_stand_between_overrides() -> None:
    given = ["a=b", "--multirun", "+c=1,2", "--config-dir", "x/y", "~d", "e@f.g=h"]
    assert _flags_first(given) == [
        "--multirun",
        "--config-dir",
        "x/y",
        "a=b",
        "+c=1,2",
        "~d",
        "e@f.g=h",
    ]
