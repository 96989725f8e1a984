"""What none of our modules may use, anything that runs what it reads, and what all may rely on.

``pytest -m exhaustive tests/test_supply.py`` installs the lowest versions that ``pyproject.toml``
allows and runs the tests on them; an ordinary installation gets the highest.
"""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path
    for name in ("fl_backdoor", "strategies", "clients")
    for path in (ROOT / name).rglob("*.py")
)
NAMES = {"eval", "exec", "compile", "__import__"}
PACKAGES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
LOADERS = {f"{owner}.load" for owner in ("torch", "yaml", "jit")}
LOADERS |= {"torch.package", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}
FLAGS = {"allow_pickle", "shell"}
EXCEPTIONS = {"fl_backdoor/models/checkpoint.py": ["torch.load"]}
"""What is used all the same, and how: of tensors alone, ``weights_only=True``."""


def forbidden(source: str) -> Iterator[str]:
    """Name what a module uses and must not, line by line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) if name in NAMES:
                yield name
            case ast.Import(names=aliases):
                yield from {a.name.partition(".")[0] for a in aliases} & PACKAGES
            case ast.ImportFrom(module=str(module), names=aliases):
                yield from {module.partition(".")[0]} & PACKAGES
                yield from {f"{module}.{alias.name}" for alias in aliases} & LOADERS
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                yield from {f"{owner}.{attribute}"} & LOADERS
            case ast.Attribute(value=ast.Attribute(attr=owner), attr=attribute):
                yield from {f"{owner}.{attribute}"} & LOADERS
            case ast.keyword(arg=str(name), value=value) if name in FLAGS:
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    exceptions = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), [])
    assert list(forbidden(path.read_text())) == exceptions


@pytest.mark.parametrize("path", EXCEPTIONS)
def test_the_exception_reads_weights_only(path: str) -> None:
    calls = [
        {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        for call in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load"
    ]
    assert [call["weights_only"] for call in calls] == [True]


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "exec(x)",
        "import pickle",
        "import numpy, dill",
        "from pickle import loads",
        "from torch import load",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "torch.jit.load(f)",
        "yaml.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_walk_finds_what_is_forbidden(source: str) -> None:
    assert list(forbidden(source))


def test_the_walk_lets_pass_what_is_harmless() -> None:
    assert list(forbidden("model.eval(); np.load(f, allow_pickle=False); json.load(f)")) == []


def lowest() -> Iterator[Requirement]:
    """Pin each of our direct requirements to its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        declared = Requirement(line)
        [bound] = (s.version for s in declared.specifier if s.operator in {">=", "=="})
        yield Requirement(f"{declared.name}=={bound.removesuffix('.*')}")


@pytest.mark.exhaustive
def test_the_lowest_versions_pass_the_tests(tmp_path: Path) -> None:
    ignored = (ROOT / ".gitignore").read_text().replace("/", "").split()
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored))
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(map(str, lowest())))
    venv = tmp_path / "venv"

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, timeout=45 * 60, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    run(sys.executable, "-m", "venv", venv)
    pip = (venv / "bin" / "python", "-m", "pip")
    run(*pip, "install", "-c", constraints, "-e", ".[dev]")
    packages = json.loads(run(*pip, "list", "--format=json"))
    installed = {canonicalize_name(package["name"]): package["version"] for package in packages}
    for pin in lowest():
        assert installed[canonicalize_name(pin.name)] in pin.specifier, pin
    run(venv / "bin" / "python", "-m", "pytest")
    shutil.rmtree(venv)  # 2 GB
