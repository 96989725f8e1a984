"""Tests of what the clean twin says: its accuracy, and the floor of a trigger that is learned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from clients.attacks.a3fl import TRIGGER
from fl_backdoor.federation.horizontal import Federation
from fl_backdoor.loop.tested import learned

from .test_attack_runs import FEW, run
from .test_experiment import tiny

A3FL = ["attack=a3fl", "attack.steps=1", *FEW]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_the_floor_of_a_learned_trigger_is_that_of_the_last_round(tmp_path: Path) -> None:
    """Against the twin's model and the trigger as they lie on the disk, sample by sample."""
    overrides = [*A3FL, "floor=true"]
    summary, screen = run(tmp_path, *overrides)
    ours, twins = rows(tmp_path), rows(tmp_path / "clean_twin")
    assert [row["attack_success_rate"] for row in twins] == [None, None]
    assert ours[0]["attack_success_floor"] is None
    federation = Federation(tiny(*overrides))
    images, labels = federation.test_set()
    memory = load_file(tmp_path / "strategy-2.safetensors")
    images[..., 2:7, 2:7] = memory[f"attackers/0/{TRIGGER}"]
    federation.model.load_state_dict(load_file(tmp_path / "clean_twin" / "model.safetensors"))
    target = federation.classes.index("2")
    read = federation.model(images[labels != target]).argmax(dim=1)
    floor = float((read == target).double().mean())
    assert ours[1]["attack_success_floor"] == summary["attack_success_floor"] == floor
    assert [row["main_accuracy_twin"] for row in ours] == [row["main_accuracy"] for row in twins]
    assert summary["main_accuracy_twin"] == twins[-1]["main_accuracy"]
    assert "  of the clean twin" in screen


def test_the_trigger_is_of_the_first_who_has_one() -> None:
    memories: dict[int, dict[str, np.ndarray]] = {4: {"a": np.ones(1)}, 7: {"a": np.zeros(1)}}

    def memory_of(client: int) -> dict[str, np.ndarray]:
        return memories.get(client, {})

    assert learned(memory_of, [1, 4, 7]) is memories[4]
    assert learned(memory_of, [7, 1, 4]) is memories[7]
    assert learned(memory_of, [1]) == {}
