"""Tiny real runs on a GPU, where there is one: every attack, rule and model, to the same bits."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import fl_backdoor.loop.loop as experiment
from fl_backdoor.loop.display import Display

from .test_config import composed
from .test_contract_attacks import NAMES as ATTACKS
from .test_contract_strategies import NAMES as STRATEGIES
from .test_experiment import TINY, untimed

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.usefixtures("undrawn"),
]

FEW = [*TINY, "training.device=cuda", "num_rounds=2", "dataset.samples_per_class=10"]
OWN = {
    "a3fl": ["attack.steps=2"],
    "edge_case": ["attack.source=6", "attack.target=2"],
    "fang": ["attack.rule=trimmed_mean"],
}
WHOLE = [key for key in FEW if not key.startswith("model.")]
Ran = tuple[list[dict[str, Any]], dict[str, torch.Tensor]]


class Stopping(Display):
    """Ends a run after its second round, before the row is shown."""

    def round(self, row: Mapping[str, Any]) -> None:
        if row["round"] == 2:
            raise KeyboardInterrupt


def run(path: Path, *overrides: str, display: type[Display] = Display) -> Ran:
    """Run a tiny experiment on the GPU; return its rows and its model."""
    experiment.run(composed(*overrides), path, display(Console(file=StringIO())))
    return untimed(path), load_file(path / "model.safetensors")


def assert_equal(one: Ran, other: Ran) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_repeats_to_the_same_bits(name: str, tmp_path: Path) -> None:
    settings = [*FEW, f"attack={name}", *OWN.get(name, [])]
    first = run(tmp_path / "a", *settings)
    assert all(tensor.isfinite().all() for tensor in first[1].values())
    assert_equal(first, run(tmp_path / "b", *settings))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_rule_aggregates_what_the_gpu_trained(name: str, tmp_path: Path) -> None:
    _, model = run(tmp_path, *FEW, f"strategy={name}", "num_clients=13", "root=held_out")
    assert all(tensor.isfinite().all() for tensor in model.values())


@pytest.mark.parametrize("name", ["cao2019", "lenet5", "resnet18", "mlp", "logistic"])
def test_a_model_resumes_on_the_gpu_to_the_same_bits(name: str, tmp_path: Path) -> None:
    settings = [*WHOLE, f"model={name}", "attack=backdoor", "num_rounds=3", "floor=false"]
    whole = run(tmp_path / "whole", *settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", *settings, display=Stopping)
    assert_equal(whole, run(tmp_path / "parts", *settings, "resume=true"))


@pytest.mark.parametrize("name", ["cao2019", "resnet18"])
def test_a_round_is_that_of_the_cpu_up_to_rounding(name: str, tmp_path: Path) -> None:
    settings = [
        *WHOLE,
        f"model={name}",
        "attack=none",
        "num_rounds=1",
        "training.learning_rate=0.01",
    ]
    _, gpu = run(tmp_path / "gpu", *settings)
    _, cpu = run(tmp_path / "cpu", *settings, "training.device=cpu")
    for key, tensor in cpu.items():
        assert torch.allclose(gpu[key].double(), tensor.double(), rtol=1e-3, atol=1e-3), key
