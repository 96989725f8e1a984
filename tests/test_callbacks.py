"""Callbacks that write rounds to files, a page and trackers."""

import csv
import json
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import NormClipping, RoundRecord, Sniper
from strategies.callbacks import (
    Csv,
    JsonLines,
    MLflow,
    Page,
    TensorBoard,
    Tracker,
    WeightsAndBiases,
    numbers,
)
from strategies.callbacks.page import page

from .test_watch import MODEL, models, rounds


def train(on_round: Any, play: Any, first: int = 1, count: int = 3) -> list[RoundRecord]:
    strategy = NormClipping(Sniper(threshold=1.0), 3.0, on_round=on_round)
    for number in range(first, first + count):
        play(strategy, MODEL, models(far=(2,), seed=number), number)
    return list(strategy.watch.history)


def test_json_lines_hold_the_whole_record(play, tmp_path) -> None:
    path = tmp_path / "new" / "rounds.jsonl"
    records = train(JsonLines(path), play)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3]
    for line, record in zip(lines, records, strict=True):
        assert line["norms"] == list(record.norms)
        assert line["dropped"] == list(record.dropped or ())
        assert line["metrics"] == dict(record.metrics)
        assert line["report"]["clipped_nodes"] == record.report["clipped_nodes"]
    train(JsonLines(path), play, first=4)
    assert len(path.read_text().splitlines()) == 6


def test_json_has_no_word_for_nan(tmp_path) -> None:
    path = tmp_path / "rounds.jsonl"
    metrics = {"a": float("nan"), "b": np.float32(2)}
    JsonLines(path)(rounds(1, metrics=metrics, invalid={2**63: "NaN"})[0])
    line = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert line["metrics"] == {"a": None, "b": 2.0}
    assert line["invalid"] == {str(2**63): "NaN"}


def test_a_table_has_a_row_a_round_and_what_comes_late(tmp_path) -> None:
    path = tmp_path / "rounds.csv"
    table = Csv(path)
    table.write(1, {"a": 1.0})
    table.write(2, {"a": 2.0, 'b"\n': 0.5})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"round": "1", "a": "1.0", 'b"\n': ""},
        {"round": "2", "a": "2.0", 'b"\n': "0.5"},
    ]
    assert [found.name for found in tmp_path.iterdir()] == ["rounds.csv"]


def test_a_table_goes_on_where_a_run_is_resumed(play, tmp_path) -> None:
    whole, again = tmp_path / "whole.csv", tmp_path / "again.csv"
    train(Csv(whole), play, count=5)
    train(Csv(again), play, count=4)
    train(Csv(again), play, first=3, count=3)
    assert again.read_text() == whole.read_text()


class Text(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Text:
    parser = Text()
    parser.feed(text)
    return parser


def test_the_page_shows_the_rounds_and_refreshes_itself(play, tmp_path) -> None:
    path = tmp_path / "watch.html"
    records = train(Page(path, seconds=7), play, count=6)
    found = read(path.read_text())
    assert ("http-equiv", "refresh") in found.attributes
    assert ("content", "7") in found.attributes
    assert records[-1].line in found.text
    assert "drops the same clients in most rounds: 3 in 6 of 6" in found.text
    assert found.tags.count("tr") == 1 + len(records)
    assert found.tags.count("polyline") >= 2
    assert [left.name for left in tmp_path.iterdir()] == ["watch.html"]
    # All of it is in the file: nothing is asked of anybody.
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "//" not in path.read_text().replace("<!", "")


@given(st.text(min_size=1), st.text())
def test_the_page_has_the_text_of_others_as_text(name, reason) -> None:
    hostile = f"<script>{name}</script><img src=x onerror={reason}>$title"
    history = rounds(
        5, strategy=hostile, invalid={7: hostile}, too_few=hostile, metrics={hostile: 1.0}
    )
    usual = rounds(5, strategy="a", invalid={7: "a"}, too_few="a", metrics={"a": 1.0})
    assert read(page(history, 5)).tags == read(page(usual, 5)).tags
    assert "<script>" in read(page(history, 5)).text


def test_whoever_reads_the_page_sees_a_whole_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "watch.html"
    callback = Page(path)
    callback(rounds(1)[0])
    before = path.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: pytest.fail("disk full"))
    with pytest.raises(pytest.fail.Exception):
        callback(rounds(2)[1])
    assert path.read_text() == before


Rows = dict[str, Any]


@given(
    st.dictionaries(
        st.text(),
        st.one_of(st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.none()),
    )
)
def test_numbers_are_finite_and_have_names_that_trackers_take(values) -> None:
    found = numbers({"of": values, "flag": True, "list": [1.5], "who": [3, 4]})
    assert found["flag"] == 1
    assert found["who"] == 2
    assert "list" not in found
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())
    assert all(all(c.isalnum() or c in "_./-" for c in name) for name in found)


# Trackers, of which CI has no package: small fakes that note what they are told.


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("new", "package"),
    [
        (lambda: TensorBoard("here"), "torch tensorboard"),
        (MLflow, "mlflow"),
        (WeightsAndBiases, "wandb"),
    ],
)
def test_a_missing_package_is_named_in_one_line(new, package, missing) -> None:
    with pytest.raises(ImportError, match=f"needs another package: pip install {package}$"):
        new()


def module(name: str, monkeypatch: pytest.MonkeyPatch, **content: Any) -> None:
    fake = ModuleType(name)
    fake.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, fake)


class Told(list):
    """Notes every call of a method of whatever name, and answers with itself."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> "Told":
            self.append((name, *arguments, *options.values()))
            return self

        return call


@pytest.fixture
def told(monkeypatch) -> Told:
    """Return what the fakes of all trackers have been told."""
    told = Told()
    module("torch.utils.tensorboard", monkeypatch, SummaryWriter=told.SummaryWriter)

    class Client:
        def __init__(self, uri: str | None) -> None:
            self.uri = uri

        def get_experiment_by_name(self, name: str) -> None:
            told.append(("look for", name))

        def create_experiment(self, name: str) -> str:
            return name

        def create_run(self, experiment: str, run_name: str | None) -> Any:
            told.append(("run", experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="7"))

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            told.extend([("metric", run, m[0], m[1], m[3]) for m in metrics])
            told.extend([("param", run, *p) for p in params])

        def set_terminated(self, run: str) -> None:
            told.append(("end", run))

    entities = SimpleNamespace(Metric=lambda *m: m, Param=lambda *p: p)
    module("mlflow", monkeypatch, MlflowClient=Client, entities=entities)
    module("wandb", monkeypatch, init=told.init)
    return told


def scalars(told: Told) -> set[tuple[str, float, int]]:
    """Return the numbers that a tracker was told, by name and round."""
    found = set()
    for what, *rest in told:
        if what == "add_scalar":
            found.add(tuple(rest))
        elif what == "metric":
            found.add(tuple(rest[1:]))
        elif what == "log":
            found |= {(name, value, rest[1]) for name, value in rest[0].items()}
    return found


@pytest.mark.parametrize("new", [lambda: TensorBoard("here"), MLflow, WeightsAndBiases])
def test_each_tracker_is_told_the_same(new, told, play) -> None:
    tracker = new()
    records = train(tracker, play)
    tracker.close()
    expected = {
        (name, float(value), record.number)
        for record in records
        for name, value in record.metrics.items()
    }
    assert expected <= scalars(told)
    assert ("norm-max", max(records[0].norms), 1) in scalars(told)
    assert told[-1][0] in ("close", "end", "finish")


def test_settings_and_names_come_with_a_run(told, tmp_path) -> None:
    for tracker in (MLflow("mine", name="first"), WeightsAndBiases("mine", "offline", tmp_path)):
        tracker.settings = {f"key{i}": i for i in range(250)}
        tracker.write(1, {"a": 1.0})
    assert ("run", "mine", "first") in told
    assert sum(call[0] == "param" for call in told) == 250
    (init,) = [call for call in told if call[0] == "init"]
    assert init[1:4] == ("mine", "offline", str(tmp_path))
    assert len(init[-1]) == 250


def test_a_run_that_is_resumed_replaces_what_it_repeats(told) -> None:
    TensorBoard("here").write(4, {"a": 1.0})
    assert told[0] == ("SummaryWriter", "here", 4)


def test_nothing_is_begun_before_there_is_something_to_write(told) -> None:
    for tracker in (TensorBoard("here"), MLflow(), WeightsAndBiases(), Tracker()):
        tracker.close()
    assert told == []


def test_what_is_open_is_closed_when_the_training_ends(told) -> None:
    from strategies import FedAvg

    from .conftest import grid_of_calls, to_record

    strategy = FedAvg(on_round=WeightsAndBiases())
    grid = grid_of_calls(lambda arrays, _: arrays)
    strategy.start(grid=grid, initial_arrays=to_record(MODEL), num_rounds=2)
    assert [call[0] for call in told] == ["init", "log", "log", "finish"]


def test_tensorboard_reads_what_is_written(tmp_path, play) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, count in ((1, 4), (3, 3)):
        tracker = TensorBoard(tmp_path)
        records = train(tracker, play, first, count)
        tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("kept")] == [1, 2, 3, 4, 5]
    newest = events.Scalars("norm-max")[-1]
    assert newest.value == pytest.approx(max(records[-1].norms))


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_keeps_what_is_written(tmp_path, play) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = MLflow("mine", uri)
    tracker.settings = {"seed": 0}
    records = train(tracker, play)
    tracker.close()
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0"}
    history = client.get_metric_history(run.info.run_id, "norm-max")
    assert [point.value for point in history] == [max(r.norms) for r in records]


@pytest.mark.filterwarnings("ignore")  # its own
def test_wandb_takes_what_is_written_offline(tmp_path, play) -> None:
    pytest.importorskip("wandb")
    tracker = WeightsAndBiases("mine", "offline", tmp_path)
    train(tracker, play)
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
