"""Tiny split learning runs: what is measured, that they repeat, resume, and end with one line."""

import json
import re
from collections.abc import Iterator
from io import StringIO
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import fl_backdoor.loop.loop as experiment
from clients.vertical import PartyAttack
from fl_backdoor.config import conf_directory, load, one_line
from fl_backdoor.errors import UserError
from fl_backdoor.federation.vertical import VerticalFederation
from fl_backdoor.loop.directory import RunDirectory
from fl_backdoor.loop.display import Display
from fl_backdoor.schema import VerticalConfig

TINY = [
    "protocol=vertical",
    "dataset=nuswide",
    "dataset.source=synthetic",
    "dataset.train_rows=300",
    "dataset.test_rows=200",
    "attack.target=animal",
    "bottom.hidden=6",
    "num_epochs=3",
    "training.learning_rate=0.1",
]
ATTACK = ["attack=localized_replacement", "attack.num_targets=4", "dataset.poisoned_train=40"]
ALL_DEFENSES = [
    "defense=[clipping,noise,sparsification]",
    "defenses.noise.variance=0.0001",
    "defenses.sparsification.drop_rate=0.5",
]
EVERYTHING = [*ATTACK, *ALL_DEFENSES, "top=dense", "top.hidden=5", "floor=true"]

ATTACKS = [
    "none",
    "gradient_replacement",
    "localized_replacement",
    "label_inference",
    "active_party",
]
ALLOWED = [pair for pair in product(ATTACKS, ["sum", "dense"]) if pair[0] != "label_inference"]
ALLOWED.append(("label_inference", "sum"))

KEYS = [
    "epoch",
    "train_loss",
    "loss",
    "main_accuracy",
    "main_accuracy_twin",
    "damage",
    "at_chance",
    "class_accuracy",
    "auc",
    "backdoor_accuracy",
    "backdoor_accuracy_floor",
    "attack_success_rate",
    "attack_success_interval",
    "attack_success_floor",
    "attack_success_floor_interval",
    "scores",
    "clean_scores",
    "label_inference_accuracy",
    "g_rec_norm",
    "bytes",
    "round_trips",
    "seconds_training",
    "seconds_epoch",
]


def tiny(*overrides: str) -> VerticalConfig:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", [*TINY, *overrides]))
    assert isinstance(config, VerticalConfig)
    return config


class Undrawn(Display):
    """Figures take longer than tiny runs."""

    def draw(self, summary: dict[str, Any], directory: RunDirectory) -> None:
        pass


def run(
    path: Path, *overrides: str, display: type[Display] = Undrawn
) -> tuple[dict[str, Any], str]:
    """Run a tiny experiment; return its summary and what it printed."""
    screen = StringIO()
    shown = display(Console(file=screen, width=120))
    summary = experiment.run(tiny(*overrides), path, shown)
    return summary, screen.getvalue()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def untimed(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows(path)]


def model(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def fails(path: Path, *overrides: str) -> str:
    """Return the one line that a run ends with."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        run(path, *overrides)
    message = one_line(caught.value)
    assert "\n" not in message
    return message


def write_parties(folder: Path, missing: dict[int, int] | None = None) -> list[str]:
    """Write three parties of 3, 5 and 2 features, some with their last rows missing."""
    rng = np.random.default_rng(7)
    features = rng.normal(size=(160, 10)).round(3)
    labels = (features @ rng.normal(size=(10, 3))).argmax(axis=1)
    files = []
    for party, columns in enumerate([range(3), range(3, 8), range(8, 10)]):
        lines = [",".join(["id", *(f"f{c}" for c in columns), *["y"] * (party == 0)])]
        for row in range(160 - (missing or {}).get(party, 0)):
            cells = [f"r{row:03}", *(str(features[row, c]) for c in columns)]
            lines.append(",".join([*cells, *["abc"[labels[row]]] * (party == 0)]))
        files.append(f"'{folder / f'party{party}.csv'}'")
        (folder / f"party{party}.csv").write_text("\n".join(lines) + "\n")
    return [
        "protocol=vertical",
        "dataset=csv_parties",
        f"dataset.files=[{','.join(files)}]",
        "dataset.trigger=[f4,f6]",
        "dataset.trigger_value=4",
        "dataset.poisoned_train=30",
        "dataset.poisoned_test=15",
        "attack.target=c",
    ]


def csv(folder: Path, *overrides: str, missing: dict[int, int] | None = None) -> list[str]:
    """Return the overrides that make `TINY` a run of the three parties."""
    dataset = ("dataset.train_rows", "dataset.test_rows", "dataset.source", "attack.target")
    kept = [o for o in TINY if not o.startswith((*dataset, "dataset=", "protocol="))]
    return [*write_parties(folder, missing), *kept, *overrides]


def run_csv(path: Path, *overrides: str, missing: dict[int, int] | None = None) -> VerticalConfig:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", csv(path.parent, *overrides, missing=missing)))
    assert isinstance(config, VerticalConfig)
    experiment.run(config, path, Undrawn(Console(quiet=True)))
    return config


def logits(state: dict[str, Tensor], blocks: list[Tensor]) -> Tensor:
    """Compute the whole model in plain torch."""
    outputs = []
    for party, block in enumerate(blocks):
        prefix = f"party{party}.model.layers"
        hidden = block @ state[f"{prefix}.0.weight"].T + state[f"{prefix}.0.bias"]
        hidden = hidden.clamp(min=0)
        if f"{prefix}.2.weight" in state:
            hidden = hidden @ state[f"{prefix}.2.weight"].T + state[f"{prefix}.2.bias"]
        outputs.append(hidden)
    if "top.layers.0.weight" not in state:
        return torch.stack(outputs).sum(dim=0)
    hidden = torch.cat(outputs, dim=1) @ state["top.layers.0.weight"].T
    hidden = (hidden + state["top.layers.0.bias"]).clamp(min=0)
    return hidden @ state["top.layers.2.weight"].T + state["top.layers.2.bias"]


def measured(path: Path, config: VerticalConfig) -> dict[str, Any]:
    """Measure the last model of a run anew, from its file and the data."""
    data, state = VerticalFederation(config).data, load_file(path / "model.safetensors")
    blocks = [data.block(party).test for party in range(data.num_parties)]
    labels, target = data.labels().test, data.labels().names.index(config.attack["target"])
    stamped = [block.clone() for block in blocks]
    for column in data.trigger_columns():
        stamped[data.trigger_party][:, column] = data.trigger_value
    clean, triggered = logits(state, blocks), logits(state, stamped)
    poisoned = torch.from_numpy(data.poisoned("test", config.seed))
    return {
        "loss": float(functional.cross_entropy(clean, labels)),
        "main_accuracy": float((clean.argmax(1) == labels).double().mean()),
        "backdoor_accuracy": float((triggered[poisoned].argmax(1) == target).double().mean()),
        "attack_success_rate": float(
            (triggered.argmax(1) == target)[labels != target].double().mean()
        ),
        "scores": triggered[poisoned].softmax(1).mean(0).tolist(),
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Return a run with an attack, every defense, a trained top and a clean twin."""
    path = tmp_path_factory.mktemp("everything")
    return path, *run(path, *EVERYTHING, display=Display)


@pytest.mark.parametrize("top", [["top=sum"], ["top=dense", "top.hidden=5"]], ids=lambda t: t[0])
def test_measures_are_what_they_are_defined_to_be(tmp_path: Path, top: list[str]) -> None:
    overrides = [*top, *ATTACK, "attack.target=b", "dataset.poisoned_train=40"]
    config = run_csv(tmp_path / "run", *overrides)
    last = rows(tmp_path / "run")[-1]
    for key, value in measured(tmp_path / "run", config).items():
        assert last[key] == pytest.approx(value, rel=1e-5), key
    # The measures must be told apart: a model that says one class only would prove little.
    assert len({last[key] for key in ("main_accuracy", "backdoor_accuracy")}) == 2
    assert last["main_accuracy"] > 0.4


def test_natural_triggers_are_measured_and_the_floor_is_the_twins(
    everything: tuple[Path, dict[str, Any], str],
) -> None:
    path, summary, _ = everything
    run_, twin = rows(path), rows(path / "clean_twin")
    config = tiny(*EVERYTHING)
    for folder, own in ((path, run_), (path / "clean_twin", twin)):
        for key, value in measured(folder, config).items():
            assert own[-1][key] == pytest.approx(value, rel=1e-5), key
    for row, clean in zip(run_, twin, strict=True):
        assert row["attack_success_floor"] == clean["attack_success_rate"]
        assert row["backdoor_accuracy_floor"] == clean["backdoor_accuracy"]
        assert row["clean_scores"] == clean["scores"]
        assert clean["attack_success_floor"] is clean["clean_scores"] is None
    judged = {"attack_success_rate", "attack_success_interval", "backdoor_accuracy"}
    for key in summary.keys() & run_[-1].keys() - {"bytes", "round_trips"}:
        chance = key in judged and run_[-1]["at_chance"]
        assert summary[key] == (None if chance else run_[-1][key])


def test_a_run_leaves_everything_behind(everything: tuple[Path, dict[str, Any], str]) -> None:
    path, summary, screen = everything
    files = {".lock", "config.json", "metrics.jsonl", "model.safetensors", "summary.json"}
    figures = {"epochs.png", "scores.png"}
    assert {file.name for file in path.iterdir()} == files | figures | {"clean_twin"}
    assert {file.name for file in (path / "clean_twin").iterdir()} == files
    for folder in (path, path / "clean_twin"):
        assert [list(row) for row in rows(folder)] == 3 * [KEYS]
        assert [row["epoch"] for row in rows(folder)] == [1, 2, 3]
    assert json.loads((path / "summary.json").read_text()) == summary
    assert summary["versions"].keys() == {"python", "fl-backdoor", "flwr", "torch", "numpy"}
    assert summary["parties"] == 2
    data, setting, *lines = screen.splitlines()
    assert data == f"Data: {summary['data']}"
    for part in ("2 passive parties", "top DenseTop", "party 1", "target animal", "3 epochs"):
        assert part in setting
    assert "GradientClipping + GradientNoise + GradientSparsification" in setting
    assert sum("  epoch " in line for line in lines) == 6
    above = [row for row in rows(path) if not row["at_chance"]]
    assert sum("(floor " in line for line in lines) == len(above)


def test_poisoned_rows_are_counted_by_class(everything: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, _ = everything
    data = VerticalFederation(tiny(*EVERYTHING)).data
    for split, labels in (("train", data.labels().train), ("test", data.labels().test)):
        poisoned = labels[data.poisoned(split, 0)]
        assert summary["poisoned_rows"][split] == [
            [int((poisoned == c).sum()), int((labels == c).sum())] for c in range(5)
        ]


def test_clean_twin_is_the_run_without_attack(
    everything: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    path, _, _ = everything
    run(
        tmp_path, "attack=none", *ATTACK[2:], *ALL_DEFENSES, "top=dense", "top.hidden=5",
        "attack.target=animal",
    )  # fmt: skip
    assert model(tmp_path) == model(path / "clean_twin") != model(path)
    assert untimed(tmp_path) == untimed(path / "clean_twin")


def test_same_seed_same_bits_and_another_seed_others(
    everything: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    path, _, _ = everything
    run(tmp_path / "same", *EVERYTHING)
    run(tmp_path / "other", *EVERYTHING, "seed=1", "floor=false")
    assert model(tmp_path / "same") == model(path)
    assert untimed(tmp_path / "same") == untimed(path)
    assert model(tmp_path / "other") != model(path)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 4, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(
    everything: tuple[Path, dict[str, Any], str],
    tmp_path: Path,
    stop_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first three epochs are the twin's; a stop falls between an epoch and its row."""
    path, summary, _ = everything
    with monkeypatch.context() as patch:
        kept: list[int] = []
        append = RunDirectory.append

        def interrupted(self: Any, row: Any, *arrays: Any) -> None:
            if len(kept) == stop_after:
                raise KeyboardInterrupt
            append(self, row, *arrays)
            kept.append(row["epoch"])

        patch.setattr(RunDirectory, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *EVERYTHING)
    resumed, screen = run(tmp_path, *EVERYTHING, "resume=true")
    if stop_after in (1, 2, 4, 5):
        assert f"(resumed after {stop_after % 3} of 3)" in screen
    for folder in ("", "clean_twin"):
        assert model(tmp_path / folder) == model(path / folder)
        assert untimed(tmp_path / folder) == untimed(path / folder)
    ignored = ("seconds", "peak_memory")
    assert {k: v for k, v in resumed.items() if k not in ignored} == {
        k: v for k, v in summary.items() if k not in ignored
    }


def test_what_the_sameness_of_resumed_bits_rests_on_is_kept(
    everything: tuple[Path, dict[str, Any], str],
) -> None:
    state = load_file(everything[0] / "model.safetensors")
    assert state["party1.memory.g_rec"].norm() > 0
    for party in (0, 1):
        assert state[f"defense2.residual{party}"].shape == (300, 6)
        assert state[f"defense2.residual{party}"].abs().max() > 0


def test_a_complete_run_is_shown_again_but_not_overwritten(
    everything: tuple[Path, dict[str, Any], str],
) -> None:
    path, summary, _ = everything
    again, _ = run(path, *EVERYTHING, "resume=true")
    assert again == summary
    assert "resume=true" in fails(path, *EVERYTHING)
    assert "attack.gamma=5" in fails(path, *EVERYTHING, "resume=true", "attack.gamma=5")


def test_a_resumed_run_keeps_the_data_it_was_started_with(
    everything: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summary, _ = everything
    (tmp_path / "nuswide" / "Groundtruth").mkdir(parents=True)
    monkeypatch.setenv("FL_BACKDOOR_DATA", str(tmp_path))
    again, _ = run(path, *EVERYTHING, "dataset.source=auto", "resume=true")
    assert again == summary


@pytest.mark.parametrize(("attack", "top"), ALLOWED)
def test_every_attack_meets_every_top_that_it_allows(attack: str, top: str, tmp_path: Path) -> None:
    overrides = ["attack.target=animal", "num_epochs=1", "dataset.poisoned_train=40"]
    many = ["attack.num_targets=20"] * attack.endswith("replacement")
    summary, screen = run(tmp_path, f"attack={attack}", f"top={top}", *overrides, *many)
    if top == "dense":
        assert summary["label_inference_accuracy"] is None
    elif attack == "active_party":  # it trains poisoned rows towards another label than theirs
        federation = VerticalFederation(tiny(*overrides))
        wrong = federation.labels.train[federation.poisoned["train"]] != federation.target
        assert summary["label_inference_accuracy"] == pytest.approx(1 - int(wrong.sum()) / 300)
    else:
        assert summary["label_inference_accuracy"] == 1.0
    assert (summary["g_rec_norm"] is not None) == bool(many)
    assert summary["attack_success_floor"] is None
    assert "no defense" in screen
    if attack != "none":
        run(tmp_path / "clean", "attack=none", f"top={top}", *overrides)
        assert model(tmp_path) != model(tmp_path / "clean")


@pytest.mark.parametrize(
    "defense",
    ["none", "clipping", "noise", "sparsification", "[sparsification,noise]"],
)
@pytest.mark.parametrize("top", ["sum", "dense"])
def test_every_defense_meets_every_top(defense: str, top: str, tmp_path: Path) -> None:
    loud = ["defenses.noise.variance=1"] * ("noise" in defense)
    summary, _ = run(tmp_path, f"defense={defense}", f"top={top}", "num_epochs=1", *loud)
    assert 0 <= summary["main_accuracy"] <= 1
    leak = summary["label_inference_accuracy"]
    if top == "dense":
        assert leak is None
    elif defense in ("none", "clipping"):  # a shorter gradient has its least element where it was
        assert leak == 1.0
    else:
        assert 0 < leak < 1


def test_a_projection_below_a_dense_top_gives_no_label_away(tmp_path: Path) -> None:
    """As many values as classes are not the scores of the classes."""
    projected = ["top=dense", "bottom.projection=true"]
    summary, _ = run(tmp_path / "run", *projected, "num_epochs=1")
    assert summary["label_inference_accuracy"] is None
    said = fails(tmp_path / "refused", *projected, "attack=label_inference", "attack.target=water")
    assert "attack=label_inference" in said


def test_bytes_and_round_trips_are_those_of_the_exchange(tmp_path: Path) -> None:
    """300 rows are 5 batches of 64 and less: a round trip each, and one to end the epoch."""
    numbers = {}
    for top, width in (("sum", 5), ("dense", 6)):
        run(tmp_path / top, f"top={top}", "num_epochs=2")
        numbers[top] = [(row["round_trips"], row["bytes"]) for row in rows(tmp_path / top)]
        rows_sent, each_way = 2 * 300 * 8, 2 * 300 * width * 4
        assert numbers[top] == 2 * [(6, rows_sent + 2 * each_way)]
    assert numbers["sum"][0] == (6, 28_800)


def test_uneven_parties_exchange_their_own(tmp_path: Path) -> None:
    config = run_csv(tmp_path / "run", "top=dense", "num_epochs=1", "training.batch_size=133")
    (row,) = rows(tmp_path / "run")
    held = VerticalFederation(config).labels.train_rows.count
    assert (row["round_trips"], row["bytes"]) == (2, 3 * held * (8 + 2 * 6 * 4))


def test_local_steps_learn_more_from_as_many_round_trips(tmp_path: Path) -> None:
    for steps in (1, 3):
        overrides = [f"training.local_steps={steps}", "top=dense", "attack=none"]
        run(tmp_path / str(steps), *overrides, "attack.target=animal", "num_epochs=1")
    one, three = rows(tmp_path / "1"), rows(tmp_path / "3")
    assert [row["round_trips"] for row in one] == [row["round_trips"] for row in three]
    assert [row["bytes"] for row in one] == [row["bytes"] for row in three]
    assert three[-1]["train_loss"] < one[-1]["train_loss"]


def raising(rows: Tensor, activations: Tensor) -> Tensor:
    raise RuntimeError("out of\nmemory")


def not_a_number(rows: Tensor, activations: Tensor) -> Tensor:
    return activations * float("nan")


@pytest.mark.parametrize(
    ("wrong", "said"), [(raising, "out of memory"), (not_a_number, "not finite")]
)
def test_a_party_that_fails_is_named_and_finished_epochs_are_kept(
    everything: tuple[Path, dict[str, Any], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Any,
    said: str,
) -> None:
    """Party 0 fails in the twin's last epoch, then, when that was done, in the run's second.

    An epoch asks the two parties of the twin ten times, and the run's one honest party five times.
    """
    path, _, _ = everything
    for part, done in (("clean_twin", 2), ("", 1)):
        with monkeypatch.context() as patch:

            def failing(
                self: PartyAttack,
                rows: Tensor,
                activations: Tensor,
                asked: Iterator[int] = count(1),  # noqa: B008
                well: int = 24 if part else 17,
            ) -> Tensor:
                late = next(asked) > well
                return wrong(rows, activations) if late and self.seat.party == 0 else activations

            patch.setattr(PartyAttack, "poison_activations", failing)
            message = fails(tmp_path, *EVERYTHING, "resume=true")
        assert re.match(r"party 0: ", message)
        assert said in message
        assert re.search(r"epoch \d, batch \d of 5", message)
        assert untimed(tmp_path / part) == untimed(path / part)[:done]
        assert not (tmp_path / part / "summary.json").exists()
    run(tmp_path, *EVERYTHING, "resume=true")
    assert model(tmp_path) == model(path)
    assert untimed(tmp_path) == untimed(path)


def test_a_party_that_diverges_is_one_line(tmp_path: Path) -> None:
    assert re.match(r"party \d: .* not finite", fails(tmp_path, "training.learning_rate=1e30"))


def test_a_top_that_diverges_leaves_valid_json(tmp_path: Path) -> None:
    """One batch an epoch: the parties' activations are still finite when they are measured."""
    diverging = ["top=dense", "training.learning_rate=1e20", "training.batch_size=300"]
    summary, _ = run(tmp_path, *diverging, "num_epochs=1", display=Display)
    assert summary["loss"] is None
    assert summary["scores"] == 5 * [None]
    for name in ("metrics.jsonl", "summary.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail)
    assert (tmp_path / "scores.png").exists()


@pytest.mark.parametrize("party", [0, 1, 2])
@pytest.mark.parametrize("attack", ["none", "gradient_replacement", "active_party"])
def test_parties_of_other_rows_are_named(tmp_path: Path, party: int, attack: str) -> None:
    """Party 0 has the labels: the others then have rows that it has not."""
    overrides = [f"attack={attack}", "attack.target=c", "top=sum"]
    overrides += ["attack.num_targets=15"] * attack.endswith("replacement")
    with pytest.raises(UserError) as caught:
        run_csv(tmp_path / "run", *overrides, missing={party: 60})
    # The trigger's party is the first one whose rows are looked at.
    assert re.match(r"party [12]: " if party == 0 else f"party {party}: ", str(caught.value))
    assert "rows" in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attack=label_inference", "attack.target=water", "top=dense"], "top=sum"),
        (["attack.target=cars"], "attack.target=cars"),
        (["attack.gamma=-1"], "attack.gamma=-1"),
        (["attack.gamma=inf"], "attack.gamma=inf"),
        (["attack.gamma=much"], "attack.gamma"),
        (["attack.num_targets=0"], "attack.num_targets=0"),
        (["attack.num_targets=301"], "attack.num_targets=301"),
        (["attack.blur_variance=-1"], "attack.blur_variance=-1"),
        (["dataset.trigger=[1000]"], "dataset.trigger"),
        (["dataset.trigger=[]"], "dataset.trigger"),
        (["dataset.trigger_party=7"], "dataset.trigger_party=7"),
        (["dataset.trigger_party=-1"], "dataset.trigger_party=-1"),
        (["dataset.poisoned_train=301"], "dataset.poisoned_train=301"),
        (["dataset.poisoned_test=0"], "dataset.poisoned_test=0"),
        (["defense=noise", "defenses.noise.variance=0"], "defenses.noise: variance = 0"),
        (["defense=noise", "defenses.noise.distribution=flat"], "defenses.noise: distribution"),
        (["defense=clipping", "defenses.clipping.max_norm=0"], "defenses.clipping: max_norm = 0"),
        (["defense=sparsification", "defenses.sparsification.drop_rate=1"], "drop_rate = 1"),
        (["training.local_steps=0"], "training.local_steps=0"),
        (["training.batch_size=0"], "training.batch_size=0"),
        (["training.batch_size=1000000001"], "training.batch_size=1000000001"),
        (["training.learning_rate=-1"], "training.learning_rate=-1"),
        (["training.learning_rate=nan"], "training.learning_rate=nan"),
        (["top=dense", "top.hidden=0"], "top: hidden = 0"),
        (["bottom.hidden=0"], "bottom: hidden = 0"),
        (["top=sum", "bottom.projection=false", "bottom.hidden=4"], "top: "),
        (["num_epochs=0"], "num_epochs=0"),
        (["num_epochs=many"], "num_epochs"),
        (["seed=-1"], "seed=-1"),
        (["round_timeout=0"], "round_timeout=0"),
        (["engine.num_workers=4"], "engine.num_workers=4"),
        (["+num_epoch=1"], "num_epoch: unknown key"),
        (["+num_rounds=1"], "num_rounds: unknown key"),
        (["+training.momentum=1"], "training.momentum: unknown key"),
        (["+engine.gpus=1"], "engine.gpus: unknown key"),
        (["+dataset.row=1"], "dataset.row"),
        (["+attack.gama=1"], "attack.gama"),
        (["+bottom.hiden=1"], "hiden"),
        (["top=dense", "+top.hiden=1"], "hiden"),
        (["defense=noise", "+defenses.noise.varianc=1"], "varianc"),
        (["+defenses.mine=1"], "defenses.mine=1"),
        (["+defenses.mine._target_=clients.Mine"], "defenses.mine"),
        (["top._target_=fl_backdoor.models.DenseBottom"], "top"),
        (["attack._target_=clients.LabelFlipping"], "LabelFlipping: allowed with protocol=horiz"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_values_are_refused_before_training(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    assert said in fails(tmp_path, *overrides)
    assert not list(tmp_path.glob("metrics.jsonl"))


def test_an_attack_that_finds_nothing_to_do_is_counted_in_the_row(tmp_path: Path) -> None:
    own = ["attack.honest_epochs=1", "attack.swap_epochs=1", "attack.mu=0"]
    run_csv(tmp_path / "run", "attack=villain", "top=dense", "num_epochs=2", *own)
    assert [row.get("attack") for row in rows(tmp_path / "run")] == [None, {"cannot-act": 1}]
