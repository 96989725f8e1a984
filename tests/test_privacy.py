"""No parameters, labels or data in what is logged or shown, and no telemetry.

The data are recognizable: every id, label and cell has 7341 in it, every feature begins with 4242.
"""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hydra import compose, initialize_config_dir
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from torch import nn

from clients import HonestClient
from fl_backdoor.config import conf_directory, load
from fl_backdoor.data.mnist import load_mnist
from fl_backdoor.data.vertical.csv_parties import CsvParties
from fl_backdoor.errors import UserError
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.federation.vertical import VerticalFederation, make_party_app
from fl_backdoor.loop.display import Display
from fl_backdoor.loop.loop import run as run_experiment
from fl_backdoor.schema import VerticalConfig
from strategies.replies import screen
from strategies.vertical import ProtocolError

from . import test_vertical_experiment as vertical
from .conftest import to_record
from .test_experiment import TINY_ATTACK, tiny
from .test_honest import CONTEXT
from .test_mnist import idx, write_mnist
from .test_nuswide import EDGES, SEA, TAGS, files, official
from .test_replies import HOSTILE, MODEL, hostile, trained

CANARY = re.compile(r"7341|(?<![\d.])4[.,]?242")
DUMP = re.compile(r"tensor\(|array\(|\bb['\"]|.{500}")


@pytest.fixture
def said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], tuple[str, str]]:
    """Return all that was logged, at every level and with tracebacks, and all that was shown."""
    for name in (None, "flwr", "ray"):
        caplog.set_level(logging.DEBUG, name)

    def everything() -> tuple[str, str]:
        shown = "".join(capfd.readouterr())
        return caplog.text.replace(str(tmp_path), ""), shown.replace(str(tmp_path), "")

    return everything


@pytest.fixture
def travelled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collect the parameters, activations and gradients of all messages, to six digits."""
    seen: set[str] = set()
    send = LocalGrid.send_and_receive

    def spy(self: LocalGrid, messages: Iterable[Message], **options: Any) -> list[Message]:
        messages = list(messages)
        replies = list(send(self, messages, **options))
        for message in (*messages, *replies):
            if message.has_content():
                seen.update(*map(six_digits, floats(message.content)))
        return replies

    monkeypatch.setattr(LocalGrid, "send_and_receive", spy)
    return seen


def floats(content: RecordDict) -> Iterable[NDArray[Any]]:
    for record in content.values():
        for name, value in record.items():
            if isinstance(value, Array):
                yield value.numpy()
            elif name in ("activations", "gradient") and isinstance(value, bytes):
                yield np.frombuffer(value, np.float32)


def six_digits(numbers: ArrayLike) -> set[str]:
    return {f"{number:.5e}" for number in np.ravel(numbers).tolist()}


def decimals(text: str) -> set[str]:
    """Return the decimal numbers of a text that have six significant digits or more."""
    found = re.findall(r"\d+\.\d+(?:e[+-]?\d+)?", text)
    long = [n for n in found if len(re.sub(r"e.*|\D", "", n).lstrip("0")) >= 6]
    return {sign + digits for digits in six_digits([*map(float, long)]) for sign in ("", "-")}


def config_of(folder: Path, *overrides: str) -> VerticalConfig:
    """Compose a tiny run of three parties whose data are recognizable."""
    composed = vertical.csv(folder, *overrides, "attack.target=class-7341-c")
    for path in folder.glob("party*.csv"):
        text = re.sub(r"^r", "patient-7341-", path.read_text(), flags=re.MULTILINE)
        text = re.sub(r"-?\d+\.\d+", lambda x: f"{4242.2 + float(x[0]) / 40:.6f}", text)
        path.write_text(re.sub(r"[abc]$", r"class-7341-\g<0>", text, flags=re.MULTILINE))
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", composed))
    assert isinstance(config, VerticalConfig)
    return config


def test_a_vertical_run_tells_neither_data_nor_what_travels(
    tmp_path: Path, said: Callable[[], tuple[str, str]], travelled: set[str]
) -> None:
    """With an attack, all defenses and a clean twin; classes by name stand in its table only."""
    config = config_of(tmp_path, *vertical.EVERYTHING, "num_epochs=2")
    run_experiment(config, tmp_path / "run", Display(Console(width=120)))
    assert "patient-7341-000,4242." in (tmp_path / "party1.csv").read_text()
    log, shown = said()
    assert "epoch 2/2" in shown
    shown = re.sub(r"class-7341-[abc]", "", shown)
    assert not CANARY.search(log + shown)
    assert not DUMP.search(log + shown)
    assert len(travelled) > 1000
    assert not decimals(log + shown) & travelled


answer = HonestClient.answer


def spoilt(self: HonestClient, received: ArrayRecord) -> ArrayRecord:
    arrays = answer(self, received)
    name = next(iter(arrays))
    match self.partition:
        case 1:
            arrays[name] = Array(arrays[name].numpy() * np.float32(np.nan))
        case 2:
            arrays[name] = Array(arrays[name].numpy().ravel())
        case 3:
            del arrays[name]
        case 4:
            raise RuntimeError("no GPU")
    return arrays


@pytest.mark.parametrize("bad", [0, 4])
def test_a_horizontal_run_tells_no_parameter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], tuple[str, str]],
    travelled: set[str],
    bad: int,
) -> None:
    if bad:
        monkeypatch.setattr(HonestClient, "answer", spoilt)
    config = tiny("+experiment=sniper_goal1", *TINY_ATTACK, "num_rounds=2", "floor=false")
    run_experiment(config, tmp_path / "run", Display(Console(width=120)))
    log, shown = said()
    assert "round 2/2" in shown
    assert log.count("Dropped the reply of node") == 2 * bad
    assert not DUMP.search(log + shown)
    assert len(travelled) > 1000
    assert not decimals(log + shown) & travelled


def test_no_reason_to_drop_a_reply_is_a_parameter(
    reply: Callable[..., Message], said: Callable[[], tuple[str, str]]
) -> None:
    honest = [trained(node) for node in range(len(HOSTILE))]
    messages = [hostile(reply, kind, node) for node, kind in enumerate(HOSTILE)]
    messages += [reply(arrays, node=100 + node) for node, arrays in enumerate(honest)]
    screen(messages, to_record(MODEL), "num-examples").report()
    log, _ = said()
    assert log.count("Dropped the reply of node") == len(HOSTILE)
    assert not DUMP.search(log)
    sent = set().union(*(six_digits(array) for arrays in honest for array in arrays.values()))
    assert not decimals(log) & sent


def refused(act: Callable[[], object], kind: type[Exception] = UserError) -> str:
    """Return the error of a client, logged with its traceback as Flower's SuperNode does."""
    with pytest.raises(kind) as caught:
        act()
    logging.getLogger("flwr").error("ClientApp raised an exception", exc_info=caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("id,y,x\na,0,kg-7341\n", "column x, row 0: "),
        ("id,y,x\na,0,1\nb,1,7341e300\n", "column x, row 1: "),
        ("id,y,x\n,7341,7341\n", "column id, row 0: "),
        ("id,y,x\na7341,0,1\nb,1,1\na7341,1,1\n", "column id: .* rows 0 and 2"),
        ("id,y,x\na,0,1\nb,1,1,7341\n", "row 1: 4 cells"),
        ("id,y,x\na7341,0,1,7341\n", "row 0: 4 cells"),
        ('id,y,x\na,0,"7341\n', "row 1"),
        ("id,y,x\na,0,\udcff7341\n", "position"),
        ("a7341,4242.1,4242.1\n", "column id is missing"),
        # pandas converts a part at a time: it meets the first row's fault before the last one's.
        ("id,y,x\na,0,kg-7341\n" + 300_000 * "a,0,7341\n" + "a,0,1,7341\n", "row 300001: 4 cells"),
    ],
    ids=lambda value: value[:40],
)
def test_an_error_in_a_csv_file_tells_the_place_only(
    tmp_path: Path, said: Callable[[], tuple[str, str]], content: str, place: str
) -> None:
    path = tmp_path / "party.csv"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    data = CsvParties(files=[str(path)], trigger_party=0)
    assert re.match(rf"dataset\.files={path}: .*{place}", refused(lambda: data.block(0)))
    assert not CANARY.search("".join(said()))


def test_an_error_in_labels_tells_the_place_only(
    tmp_path: Path, said: Callable[[], tuple[str, str]]
) -> None:
    texts = {
        "train": "a,a7341,1\nb,b7341,2\n",
        "test": "c,a7341,1\nd,c7341,2\n",
        "one": "a,7341,1\n",
    }
    for name, rows in texts.items():
        (tmp_path / name).write_text(f"id,y,x\n{rows}")
    train, test, one = (str(tmp_path / name) for name in texts)

    def labels(*parts: str) -> str:
        data = CsvParties(files=[parts[0]], test_files=[parts[1]], trigger_party=0)
        return refused(data.labels)

    assert labels(train, test).startswith(f"dataset.files={test}: column y, row 1: ")
    assert labels(one, train).startswith(f"dataset.files={one}: column y is the same")
    assert not CANARY.search("".join(said()))


def test_a_column_taken_for_labels_by_mistake_is_not_listed(
    tmp_path: Path, said: Callable[[], tuple[str, str]]
) -> None:
    (tmp_path / "a.csv").write_text(
        "id,y\n" + "".join(f"{i},{i % 50 + 734100}\n" for i in range(2000))
    )
    config = config_of(
        tmp_path, "attack=none", "top=sum", f"dataset.labels_file='{tmp_path}/a.csv'"
    )
    config.attack["target"] = "c"
    assert "its 50 labels" in refused(lambda: VerticalFederation(config).target)
    assert not CANARY.search("".join(said()))


@pytest.mark.parametrize(
    ("name", "row", "cell"),
    [
        (TAGS, 29, "kg-7341"),
        (TAGS, 3, "7341"),
        (TAGS, 3, "-7341.5"),
        (TAGS, 3, 8 * "7341"),
        (EDGES, 3, "kg-7341"),
        (EDGES, 19, "7341e300"),
        (SEA, 3, "7"),
        (SEA, 3, "kg-7341"),
    ],
)
def test_an_error_in_nuswide_tells_the_place_only(
    tmp_path: Path, said: Callable[[], tuple[str, str]], name: str, row: int, cell: str
) -> None:
    path = official(tmp_path) / name
    lines = [line.split() for line in path.read_text().splitlines()]
    lines[row][-1] = cell
    path.write_text("".join(" ".join(line) + "\n" for line in lines))
    data = files(tmp_path)
    line = refused(lambda: [data.block(party) for party in (0, 1)])
    start = f"dataset.root={tmp_path}: {name}: row {row}, column {len(lines[row]) - 1}: "
    assert line.startswith(start)
    assert not CANARY.search("".join(said()))
    assert cell not in line.removeprefix(start)


def test_an_error_in_mnist_tells_the_place_only(tmp_path: Path) -> None:
    labels = np.array(19 * [3] + [173], np.uint8)
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    line = refused(lambda: load_mnist(str(tmp_path))).removeprefix(f"dataset.root={tmp_path}: ")
    assert line.startswith("t10k-labels-idx1-ubyte: label of image 19: ")
    assert "173" not in line


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("4242.", "kg-7341-", r"party1\.csv: column f3, row 0: "),
        ("-7341-000", "-7341-999", "party 1: its .* rows are not those of the labels"),
        ("-7341-000", "-7341-001", r"party1\.csv: column id: .* rows 0 and 1"),
    ],
)
def test_the_server_learns_the_place_only(
    tmp_path: Path, said: Callable[[], tuple[str, str]], before: str, after: str, place: str
) -> None:
    config = config_of(tmp_path, "attack=none", "top=sum")
    path = tmp_path / "party1.csv"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(ProtocolError, match=place) as caught:
        VerticalFederation(config).enrol(LocalGrid(make_party_app(config), 3))
    assert not CANARY.search(f"{caught.value} {said()}".replace(str(tmp_path), ""))


def test_an_error_in_the_labels_of_a_client_tells_none(
    train_message: Callable[..., Message], said: Callable[[], tuple[str, str]]
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    client = HonestClient(model, torch.zeros(2, 1, 2, 2), torch.tensor([0, 7341]))
    message = train_message(ArrayRecord(model.state_dict()))
    for answer in (client.train, client.evaluate):
        line = refused(lambda answer=answer: answer(message, CONTEXT), ValueError)
        assert line == "a label is none of the model's classes"
    assert not CANARY.search("".join(said()))


def python(code: str, **environment: str) -> str:
    """Return what code prints, in an environment without Flower's settings."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


TELEMETRY = "from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_our_commands_have_no_telemetry(command: str) -> None:
    code = (
        "import atexit, runpy, sys\n"
        # Help needs no Flower, which can't be imported any more on the way out.
        "def tell():\n    import os; print(os.environ['FLWR_TELEMETRY_ENABLED'])\n"
        "atexit.register(tell)\n"
        "sys.argv.append('--help')\n"
        f"runpy.run_module('fl_backdoor.{command}', run_name='__main__')"
    )
    assert python(code) == "0"


@pytest.mark.parametrize("choice", ["0", "1"])
def test_a_user_who_has_chosen_is_left_alone(choice: str) -> None:
    assert python(f"import fl_backdoor; {TELEMETRY}", FLWR_TELEMETRY_ENABLED=choice) == choice


def test_strategies_and_clients_alone_leave_the_environment_as_it_is() -> None:
    code = (
        "import os; from flwr.supercore import telemetry; import flwr.serverapp, torch\n"
        "before = dict(os.environ)\n"
        "import strategies.vertical, clients.vertical\n"
        "print(os.environ == before, telemetry.FLWR_TELEMETRY_ENABLED)"
    )
    assert python(code) == "True 1"
