"""The commands of docs/sweeps.md, where ``fl-backdoor[cluster]`` is, and the code of python.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .test_deployment import printed
from .test_docs import noted

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "plugin", "left"),
    [
        ("submitit", "hydra_plugins.hydra_submitit_launcher", "submitted/*/*/summary.json"),
        ("optuna", "hydra_plugins.hydra_optuna_sweeper", "searched/optimization_results.yaml"),
    ],
)
def test_a_launcher_and_a_sweeper(mark: str, plugin: str, left: str, tmp_path: Path) -> None:
    """They print what the page says that they print."""
    pytest.importorskip(plugin)
    (command,) = noted(printed(mark, "docs/sweeps.md"))
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob(left))
    page = (ROOT / "docs/sweeps.md").read_text().partition(f"test: {mark} ")[2]
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert shown
    assert shown[1] in done.stdout


@pytest.mark.slow
def test_the_code_of_the_page_on_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["result"]["main_accuracy"] > 0.1  # type: ignore[index]
    assert (tmp_path / "page" / "index.html").exists()
    functions = re.findall(r"\| `(\w+)\(", page)
    assert set(functions) == {name for name in names if name in functions}
