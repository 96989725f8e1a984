"""What is installed: the wheel, in a new environment, and the two folders by both names."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
BLOCKED = ("torch", "sklearn", "networkx")

TINY = [
    "+experiment=sniper_goal1", "engine=local", "dataset.source=bundled", "num_rounds=1",
    "dataset.samples_per_class=20", "dataset.test_samples_per_class=40", "floor=false",
    "model.channels=[4,8]", "attack.poisoned_samples=30", "hydra.run.dir=run",
]  # fmt: skip


def test_strategies_need_neither_torch_nor_scikit_learn_nor_networkx(tmp_path: Path) -> None:
    """All rules are imported and made; those that cannot act without one say so as they are."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))  # to import one of these is an ImportError
sys.path.insert(0, {str(ROOT)!r})
import strategies
for name in strategies.__all__:
    rule = getattr(strategies, name)
    if isinstance(rule, type) and issubclass(rule, strategies.Robust):
        try:
            rule()
        except ImportError as error:
            print(name, error)
        except TypeError:  # it wraps another one, or needs to be told something
            pass
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, check=True,
        capture_output=True, text=True, env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )  # fmt: skip
    needs = "needs scikit-learn: pip install scikit-learn"
    assert done.stdout.splitlines() == [
        f"{name} {name} {needs}" for name in ("FLAME", "DeepSight", "SignGuard")
    ]


def test_both_folders_are_the_same_modules_by_both_names(isolated: Any) -> None:
    isolated(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import fl_backdoor.strategies.rules.sniper as long
from fl_backdoor.clients.vertical import Villain
from fl_backdoor import clients, strategies
import strategies as short
assert strategies is short and short.rules.sniper is long
assert short.__spec__.name == "strategies"
import clients.vertical
assert clients.vertical.Villain is Villain
try:
    import fl_backdoor.strategies.nothing
except ModuleNotFoundError as error:
    assert "strategies.nothing" in str(error)
else:
    raise AssertionError
""")


def test_beside_an_apps_folder_of_that_name_ours_has_the_longer_one(
    tmp_path: Path, isolated: Any
) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "__init__.py").write_text("mine = True\n")
    isolated(f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]
from fl_backdoor.strategies import Sniper
from fl_backdoor.strategies.rules import sniper
import strategies
assert strategies.mine
assert sniper.Sniper is Sniper and Sniper.__module__ == "fl_backdoor.strategies.rules.sniper"
""")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_command_runs_where_an_app_has_folders_of_those_names(
    engine: str, tmp_path: Path
) -> None:
    """With a rule from beside them as well."""
    for name in ("strategies", "clients"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    rule = 'from strategies import Krum\n\n\nclass Mine(Krum):\n    """Krum, by another name."""\n'
    (tmp_path / "rules_of_mine.py").write_text(rule)
    own = [
        *("dataset=digits", "model=mlp", "num_clients=5", "num_rounds=1", f"engine={engine}"),
        *("attack=sign_flip", "attack.num_attackers=1", "hydra.run.dir=run"),
        *("strategy=krum", "strategy._target_=rules_of_mine.Mine"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "fl_backdoor.simulate", *own], cwd=tmp_path, check=False,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it: in this environment, without a network."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    for target, place in (("sdist", ROOT), ("wheel", None)):
        if place is None:
            (source,) = out.glob("*.tar.gz")
            with tarfile.open(source) as archive:
                archive.extractall(out, filter="data")
            (place,) = (path for path in out.iterdir() if path.is_dir())
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
            cwd=place, check=True, capture_output=True,
        )  # fmt: skip
    return out


@pytest.mark.slow
def test_the_wheel_holds_all_that_runs_and_no_more(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(ZipFile(wheel).namelist())
    for folder in ("fl_backdoor", "strategies", "clients"):
        files = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.py")}
        assert files | {f"{folder}/py.typed"} <= names
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / "conf").rglob("*.yaml")}
    assert {f"fl_backdoor/{name}" for name in configs} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops - {"fl_backdoor", "strategies", "clients"} == {
        name.partition("/")[0] for name in names if ".dist-info/" in name
    }


@pytest.mark.slow
def test_installed_it_works_anywhere(built: Path, tmp_path: Path) -> None:
    """In a new environment that sees this one's packages, but not this repository."""
    (wheel,) = built.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, symlinks=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install",
         "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    # After its own, and without what .pth files there lead to, one of which is the repository.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (purelib / "others.pth").write_text("\n".join(others))

    def installed(*arguments: str) -> str:
        done = subprocess.run(
            [str(home / "bin" / "fl-backdoor"), *arguments], cwd=tmp_path,
            capture_output=True, text=True, check=False,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "label_flipping" in installed("list", "attacks")
    assert "main accuracy" in installed("simulate", *TINY)
    assert (tmp_path / "run" / "summary.json").exists()
    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import fl_backdoor; print(fl_backdoor.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert where.stdout.startswith(str(home))
