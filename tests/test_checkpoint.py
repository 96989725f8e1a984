"""Tests of `model.checkpoint`: what is read, what is refused, and that training starts from it."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fl_backdoor.errors import UserError
from fl_backdoor.federation.horizontal import Federation, make_client_app
from fl_backdoor.models import Cao2019CNN, checkpoint
from fl_backdoor.models.checkpoint import digest, load_checkpoint

from .test_experiment import run, tiny

pytestmark = pytest.mark.usefixtures("undrawn")


def network(seed: int = 1, classes: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def same(one: nn.Module, two: nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def written(folder: Path, form: str) -> Path:
    """Write the weights of a network in a form, and return what to name in the configuration."""
    state, path = network().state_dict(), folder / form
    if form == "run":
        path.mkdir()
        save_file(state, path / "model.safetensors", metadata={"fl-backdoor": "{}"})
    elif form == "huggingface":
        path.mkdir()
        (path / "config.json").write_text("{}")
        torch.save(state, path / "pytorch_model.bin")
    elif form.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(OrderedDict(state), path)
    return path


QUICK = ["floor=false", "attack=none", "num_clients=2", "num_rounds=1"]
FORMS = ["a.safetensors", "b.pt", "c.bin", "run", "huggingface"]


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read(form: str, tmp_path: Path) -> None:
    path, model = written(tmp_path, form), network(2)
    found = load_checkpoint(model, path)
    assert same(model, network())
    file = path if path.is_file() else next(path.glob("*model.*"))
    assert found == digest(file)


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in network().state_dict().items() if not n.endswith("tracked")}
    torch.save(state, tmp_path / "old.pt")
    model = network(2)
    load_checkpoint(model, tmp_path / "old.pt")
    assert same(model, network())


class Stranger:
    """Nothing that a state dict holds."""


def bad(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write files that are refused, and say with which words."""
    state = network().state_dict()
    nan = state | {"2.bias": torch.full((3,), torch.nan)}
    renamed = {name.replace("2.", "out."): tensor for name, tensor in state.items()}
    objects: dict[str, Any] = {
        "stranger": ({"model": Stranger()}, "nothing but tensors"),
        "nested": ({"epoch": 3, "weights": state}, "it holds epoch, weights"),
        "tensor": (torch.ones(3), "it holds Tensor"),
        "classes": (network(classes=7).state_dict(), "2.weight is (7, 5) and not (3, 5), 2.bias"),
        "names": (renamed, "2.weight (3, 5) is missing, 2.bias (3,) is missing; out.weight"),
        "nan": (nan, "2.bias is not finite"),
        "integers": (state | {"2.bias": torch.ones(3, dtype=torch.int64)}, "2.bias is torch.int64"),
        "other": ({"odd": torch.ones(1)}, "and 5 more; odd (1,) is unknown"),
        "sparse": (
            state | {"2.bias": torch.ones(3).to_sparse()},
            "2.bias is sparse, quant",
        ),
        "meta": (state | {"2.bias": torch.ones(3, device="meta")}, "2.bias is sparse, quantized"),
        "large": (
            state | {"2.bias": torch.full((3,), 1e200, dtype=torch.float64)},
            "2.bias is not finite as torch.float32",
        ),
    }
    files = {}
    for name, (content, said) in objects.items():
        torch.save(content, folder / f"{name}.pt")
        files[name] = (folder / f"{name}.pt", said)
    for name, content in {
        "text.pt": b"weights",
        "text.safetensors": b"weights",
        "empty.pt": b"",
    }.items():
        (folder / name).write_bytes(content)
        said = "cannot be read" if name.endswith("safetensors") else "allowed are safetensors, or"
        files[name] = (folder / name, said)
    (folder / "folder").mkdir()
    files["folder"] = (folder / "folder", "a folder with model.safetensors or pytorch_model.bin")
    files["nothing"] = (folder / "nothing", "no such file or folder")
    return files


def test_anything_else_is_one_line_and_leaves_the_model_alone(tmp_path: Path) -> None:
    for name, (path, said) in bad(tmp_path).items():
        model = network(2)
        with pytest.raises(UserError) as caught:
            load_checkpoint(model, path)
        message = str(caught.value)
        assert message.startswith(f"model.checkpoint={path}: "), name
        assert said in message, (name, message)
        assert "\n" not in message
        assert same(model, network(2)), name


def test_a_run_starts_from_the_last_model_of_another(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "first", *QUICK)
    again = [*QUICK, f"model.checkpoint={tmp_path / 'first'}"]
    second, _ = run(tmp_path / "second", *again, "training.learning_rate=0")
    written = tmp_path / "first" / "model.safetensors"
    assert second["model"]["checkpoint_digest"] == digest(written)
    assert second["main_accuracy"] == first["main_accuracy"]
    with pytest.raises(UserError, match=r"model.checkpoint=.*: of another architecture than Cao"):
        run(tmp_path / "third", *again, "model.channels=[4,9]")
    assert not (tmp_path / "third").exists()


def test_a_resumed_run_has_to_start_from_the_same_weights(tmp_path: Path) -> None:
    config = tiny()
    first = Federation(config).model
    torch.save(first.state_dict(), tmp_path / "start.pt")
    setting = [*QUICK, f"model.checkpoint={tmp_path / 'start.pt'}"]
    run(tmp_path / "run", *setting)
    torch.save({n: t + 1 for n, t in first.state_dict().items()}, tmp_path / "start.pt")
    with pytest.raises(UserError, match=r"^model.checkpoint_digest=\w+: the run to resume"):
        run(tmp_path / "run", *setting, "resume=true")


def test_the_server_alone_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    plain = Federation(config)
    torch.save({n: t + 1 for n, t in plain.model.state_dict().items()}, tmp_path / "start.pt")
    config = tiny(f"model.checkpoint={tmp_path / 'start.pt'}")
    server = Federation(config)
    server.check()
    assert json.dumps(config.model).count("checkpoint_digest") == 1
    start = server.initial_state()
    assert all(torch.equal(t, plain.model.state_dict()[n] + 1) for n, t in start.items())
    monkeypatch.setattr(checkpoint, "read_weights", lambda _: pytest.fail("read by a client"))
    make_client_app(config)
    client = Federation(config).client(0)
    assert isinstance(client.model, Cao2019CNN)
    assert torch.equal(next(client.model.parameters()), next(plain.model.parameters()))
