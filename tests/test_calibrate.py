"""Thresholds from recorded rounds."""

import json
from pathlib import Path

import numpy as np
import pytest

from fl_backdoor import calibrate
from fl_backdoor.calibrate import Recorded, proposals, read
from fl_backdoor.errors import UserError


def log(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_bound_touches_the_part_that_is_longer(tmp_path: Path) -> None:
    norms = np.random.default_rng(0).exponential(size=(4, 25))
    rows = [{"norms": row.tolist(), "clients": list(range(25))} for row in norms]
    found = proposals(read(log(tmp_path / "log", rows)))
    bounds = [one for one in found if one.setting == "norm_clipping max_norm"]
    for one in bounds:
        twin = sum(norm > one.value for row in norms for norm in row) / norms.size
        assert one.touched == pytest.approx(twin)
    assert bounds[-1].touched == 0
    assert [round(one.touched or 0, 1) for one in bounds] == [0.5, 0.1, 0.0]


def test_known_attackers_of_a_log_do_not_count(tmp_path: Path) -> None:
    path = log(tmp_path / "log", [{"norms": [1, 1, 90], "clients": [5, 6, 7]}])
    assert max(one.value for one in proposals(read(path, {7}))) == 1
    assert max(one.value for one in proposals(read(path))) == 90
    with pytest.raises(UserError, match=r"^attackers=8: no such client"):
        read(path, {8})


def test_gamma_leaves_out_whom_a_majority_is_far_from() -> None:
    places = np.array([0.0, 1, 2, 3, 4, 50, 90])
    distances = abs(places[:, None] - places)
    honest = places < 60
    recorded = Recorded((np.ones(3),), False, distances, honest, True)
    gammas = [one for one in proposals(recorded) if one.setting == "sniper threshold"]
    assert [one.touched for one in gammas] == pytest.approx([2 / 6, 1 / 6])
    assert gammas[0].value < gammas[1].value


def test_a_run_directory_knows_its_attackers(tmp_path: Path) -> None:
    row = {"attackers": [0], "cohort": [0, 1, 2, 3]}
    row |= {f"update_norm_honest_{name}": x for name, x in [("min", 1), ("mean", 2), ("max", 3)]}
    log(tmp_path / "metrics.jsonl", [row])
    distances = np.full((4, 4), 0.1) - 0.1 * np.eye(4)
    distances[0, 1:] = distances[1:, 0] = 7
    np.save(tmp_path / "distances.npy", distances)
    found = proposals(read(tmp_path))
    assert found[-1].touched == 0
    assert max(one.value for one in found if "norm" in one.setting) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"kept": 3}\n', "no round has norms"),
        ("[1]\n", "line 1 is no JSON object"),
        ('{"norms": [1]}\nround 2\n', "line 2 is no JSON"),
    ],
)
def test_a_log_without_norms_is_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    (tmp_path / "log").write_text(text)
    monkeypatch.setattr("sys.argv", ["calibrate", str(tmp_path / "log")])
    with pytest.raises(SystemExit) as end:
        calibrate.main()
    assert end.value.code == 2
    error = capsys.readouterr().err  # type: ignore[attr-defined]
    assert said in error
    assert error.count("\n") == 1
