"""`strategies` and `clients` are folders that anyone can copy into a Flower app."""

import ast
import importlib
import inspect
import shutil
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
FOLDERS = ("strategies", "clients")
MODULES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


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
    vertical = [".".join(package[:2])] if package[1:2] == ("vertical",) else []
    assert names - sys.stdlib_module_names <= ALLOWED[[package[0], *vertical][-1]]
    assert levels <= set(range(1, len(package) + 1))  # never beyond the folder that is copied
    assert ast.get_docstring(tree)
    hidden = {"__import__", "importlib", "exec", "eval"}
    assert not hidden & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_copied_folder_works_alone(folder, tmp_path, isolated):
    """Including its subpackage, which alone of the strategies may need torch."""
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    missing = {"fl_backdoor", *FOLDERS} - {folder}
    kept_back = {"torch"} - ALLOWED[folder]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
# To import one of these is an ImportError.
sys.modules.update(dict.fromkeys({sorted(missing | kept_back)}))
for package in {[package for package in ALLOWED if package.startswith(folder)]}:
    module = importlib.import_module(package)
    assert module.__file__.startswith({str(tmp_path)!r}), module.__file__
    assert all(hasattr(module, name) for name in module.__all__)
    for name in {sorted(kept_back)}:
        sys.modules.pop(name, None)
"""
    isolated(code)


def test_a_folder_imports_its_subpackage_only_if_asked():
    for path in MODULES:
        if path.parent.name in FOLDERS:
            relative = {
                (node.module or "").partition(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom)
            }
            assert "vertical" not in relative, path


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
