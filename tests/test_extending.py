"""The files of docs/extending.md, written elsewhere, and run from there by the page's commands."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_backdoor import simulate
from fl_backdoor.errors import UserError
from fl_backdoor.loop import display
from fl_backdoor.loop.horizontal import Horizontal
from fl_backdoor.measure.measures import MEASURES, Measure
from fl_backdoor.measure.own import add_own

from .test_docs import noted
from .test_vertical_experiment import Undrawn

pytestmark = pytest.mark.usefixtures("undrawn")

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = dict(re.findall(r"<!-- test: (own \w+) -->\n```bash\n(.*?)```", PAGE, re.DOTALL))
SHOWN = {
    "own data": ("data", "from my_data.stripes"),
    "own model": ("model", "my_model.Narrow"),
    "own defense": ("strategy", "my_defense.Nearest"),
    "own attack": ("attack", "my_attack.Negative"),
    "own measure": ("confidence", ""),
    "own partition": ("rounds", "2"),
}
"""What the summary of a run has that only the file in question can have brought."""

NO_MEASURE, OF_EPOCHS = "no measure", Measure(name="x", per="epoch")
TWICE = Measure(name="loss", per="round")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    add_own("", [])
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_short(name: str) -> None:
    assert len(FILES[name].splitlines()) < 30


@pytest.mark.parametrize("name", SHOWN)
def test_every_file_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "own measure":  # which has a curve
        monkeypatch.setattr(display, "Display", Undrawn)
    monkeypatch.setattr(Horizontal, "draw", lambda *_: None)
    [[_, module, *arguments]] = noted(COMMANDS[name])
    assert module == "fl_backdoor.simulate"
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    simulate.main()
    [path] = folder.rglob("summary.json")
    key, value = SHOWN[name]
    assert value in str(json.loads(path.read_text())[key])


def test_every_block_is_run() -> None:
    assert COMMANDS.keys() == SHOWN.keys()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (f"{__name__}.NO_MEASURE", "allowed are measures"),
        (f"{__name__}.OF_EPOCHS", "of rounds"),
        (f"{__name__}.TWICE", "named loss already"),
        (f"{__name__}.absent", "absent"),
        ("-1", "measure.extra=-1"),
        ("", "measure.extra="),
    ],
)
def test_what_is_no_measure_is_named(place: str, said: str) -> None:
    before = list(MEASURES)
    with pytest.raises(UserError, match=re.escape(f"measure.extra={place}: ")) as refused:
        add_own("measure.extra", [place])
    assert said in str(refused.value)
    assert before == MEASURES


def test_a_later_run_has_its_own_measures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = list(MEASURES)
    new: Any = Measure(name="new", per="round")
    monkeypatch.setattr(sys.modules[__name__], "TWICE", new)
    add_own("measure.extra", [f"{__name__}.TWICE"])
    assert [*declared, new] == MEASURES
    add_own("measure.extra", [])
    assert declared == MEASURES
