"""`strategies` and `clients` are folders that anyone can copy into a Flower app."""

import ast
import importlib
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "strategies": {"flwr", "networkx", "numpy", "scipy"},
    "strategies.vertical": {"flwr", "numpy", "torch"},
    "clients": {"flwr", "numpy", "torch"},
    "clients.vertical": {"flwr", "numpy", "torch"},
}
MODULES = [path for package in ("strategies", "clients") for path in (ROOT / package).rglob("*.py")]


def imports(tree: ast.AST) -> tuple[set[str], set[int]]:
    """Return the packages that are imported by name, and the levels of relative imports."""
    names, levels = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            levels.add(node.level)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names, levels


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_what_their_package_promises(path):
    tree = ast.parse(path.read_text())
    names, levels = imports(tree)
    package = path.parent.relative_to(ROOT).parts
    assert names - sys.stdlib_module_names <= ALLOWED[".".join(package)]
    assert levels <= set(range(1, len(package) + 1))  # never beyond the folder that is copied
    assert ast.get_docstring(tree)
    hidden = {"__import__", "importlib", "exec", "eval"}
    assert not hidden & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_copied_folder_works_alone(package, tmp_path):
    folder = package.partition(".")[0]
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    ours = sorted({"fl_backdoor", "strategies", "clients"} - {folder})
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.modules.update(dict.fromkeys({ours}))  # to import one of these is an ImportError
import {package}
assert {package}.__file__.startswith({str(tmp_path)!r}), {package}.__file__
assert all(hasattr({package}, name) for name in {package}.__all__)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ALLOWED)
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(set(module.__all__))
    assert inspect.getdoc(module)
    for name in module.__all__:
        public = getattr(module, name)
        assert public.__doc__, name  # its own, not an inherited one
        assert public.__module__.startswith(f"{package}.")
        for method, function in inspect.getmembers(public, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith(package):
                assert inspect.getdoc(function), f"{name}.{method}"
