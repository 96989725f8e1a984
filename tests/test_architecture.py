"""`strategies` and `clients` are folders that anyone can copy into a Flower app."""

import ast
import importlib
import inspect
import io
import shutil
import sys
import tokenize
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "strategies": {"flwr", "networkx", "numpy", "scipy", "sklearn"},
    "strategies.callbacks": {"flwr", "mlflow", "numpy", "torch", "wandb"},
    "strategies.vertical": {"flwr", "numpy", "torch"},
    "clients": {"flwr", "numpy", "torch"},
    "clients.vertical": {"flwr", "numpy", "torch"},
}
FOLDERS = ("strategies", "clients")
MODULES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
EVERY = [*MODULES, *(ROOT / "fl_backdoor").rglob("*.py")]


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


def copied(folder, target):
    shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_what_their_package_promises(path):
    tree = ast.parse(path.read_text())
    names, levels = imports(tree)
    package = path.parent.relative_to(ROOT).parts
    allowed = ALLOWED.get(".".join(package[:2]), ALLOWED[package[0]])
    assert names - sys.stdlib_module_names <= allowed
    assert levels <= set(range(1, len(package) + 1))  # never beyond the folder that is copied
    assert ast.get_docstring(tree)
    hidden = {"__import__", "importlib", "exec", "eval"}
    assert not hidden & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def dotted(path):
    """Return a module's full name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets(path):
    """Return the full names that a module may mean where it imports as it is itself imported."""
    here = path.parent.relative_to(ROOT).parts
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            package = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{package}.{alias.name}", package) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)


def test_no_module_needs_itself():
    known = {dotted(path) for path in EVERY}
    arrows = nx.DiGraph()
    for path in EVERY:
        for name, package in targets(path):
            needed = name if name in known else package
            if needed in known - {dotted(path)}:
                arrows.add_edge(dotted(path), needed)
    assert len(arrows) > 200
    assert nx.is_directed_acyclic_graph(arrows), nx.find_cycle(arrows)


def test_no_file_is_longer_than_a_few_pages():
    longest = max(EVERY, key=lambda path: len(path.read_text().splitlines()))
    assert len(longest.read_text().splitlines()) <= 330, longest


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_copied_folder_works_alone(folder, tmp_path, isolated):
    """Including its subpackage, which alone of the strategies may need torch."""
    copied(folder, tmp_path / folder)
    missing = {"fl_backdoor", *FOLDERS} - {folder}
    kept_back = ({"torch"} - ALLOWED[folder]) | {"sklearn"}  # which few rules need, when they act
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


def test_copied_under_other_names_they_work_beside_an_apps_own(tmp_path, isolated):
    """One training of a copied client under a copied strategy, in an app with such folders."""
    for folder in FOLDERS:
        copied(folder, tmp_path / "app" / f"my_{folder}")
        (tmp_path / "app" / f"{folder}.py").write_text("mine = True\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "app")!r})
sys.modules["fl_backdoor"] = None
import clients, strategies
assert clients.mine and strategies.mine
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from my_app.clients import Colluders, HonestClient, LabelFlippingClient, model_replacement_mod
from my_app.strategies import Sniper

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
model, inputs, labels = torch.nn.Linear(4, 3), torch.randn(30, 4), torch.arange(30) % 3
apps = [ClientApp(), ClientApp(), ClientApp(mods=[model_replacement_mod(2)])]
apps[0].train()(HonestClient(model, inputs, labels).train)
apps[1].train()(HonestClient(model, inputs, labels, partition=1).train)
attacker = LabelFlippingClient(model, inputs, labels, source=1, target=2, poisoned_samples=5)
apps[2].train()(attacker.train)
start = ArrayRecord(model.state_dict())

class Grid:
    def get_node_ids(self):
        return range(1, 4)

    def send_and_receive(self, messages, timeout=None):
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(number)
            node = message.metadata.dst_node_id
            yield apps[node - 1](message, Context(1, node, {{}}, RecordDict(), {{}}))

result = Sniper(fraction_evaluate=0.0).start(grid=Grid(), initial_arrays=start, num_rounds=1)
assert result.arrays != start
assert not any(name.startswith(("clients.", "strategies.")) for name in sys.modules)
"""
    package = tmp_path / "app" / "my_app"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for folder in FOLDERS:
        (tmp_path / "app" / f"my_{folder}").rename(package / folder)
    isolated(code)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_copy_has_any_name(folder, tmp_path, isolated):
    copied(folder, tmp_path / f"my_{folder}")
    missing = dict.fromkeys(["fl_backdoor", *FOLDERS])
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
sys.modules.update({missing})
for package in {[package for package in ALLOWED if package.startswith(folder)]}:
    module = importlib.import_module("my_" + package)
    assert all(hasattr(module, name) for name in module.__all__)
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
    # As ruff sorts them: acronyms first.
    assert module.__all__ == sorted(
        set(module.__all__), key=lambda name: (not name.isupper(), name)
    )
    assert inspect.getdoc(module)
    for name in module.__all__:
        public = getattr(module, name)
        assert public.__doc__, name  # its own, not an inherited one
        assert public.__module__.startswith(f"{package}.")
        for method, function in inspect.getmembers(public, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith(package):
                assert inspect.getdoc(function), f"{name}.{method}"


LONGER = {
    "sniper": "Algorithm 2, its shrinking, and the threshold of any model",
    "fldetector": "predictions, scores over a window, and their clusters",
    "deepsight": "three measures of what a model learned, and their clusters",
    "server_optimizer": "three optimizers",
    "a3fl": "the learning of a trigger",
    "adaptive": "a search around any rule",
    "label_flipping": "three kinds, four readings of Algorithm 1, and a client",
    "backdoor": "triggers, their share, and a client",
}
"""Rules and attacks of more than a page, and what they hold."""


def code_lines(text: str) -> int:
    """Count lines without docstrings, comments and blank ones."""
    docs = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {
        number
        for token in tokens
        if token.type not in nothing and token.type != tokenize.ENDMARKER
        for number in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docs)


@pytest.mark.parametrize("folder", ["strategies/rules", "clients/attacks"])
def test_a_rule_or_an_attack_is_a_page_of_code(folder):
    found = {path.stem: code_lines(path.read_text()) for path in (ROOT / folder).glob("*.py")}
    too_long = {name for name, lines in found.items() if lines > 55}
    assert too_long <= LONGER.keys()
    assert all(found[name] > 55 for name in LONGER.keys() & found.keys()), "one is short by now"
    assert max(found.values()) <= 140
