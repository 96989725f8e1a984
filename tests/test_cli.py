"""``fl-backdoor``: one command for all, whose help fits a terminal and whose lists are whole."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_backdoor import __version__, cli
from fl_backdoor.config import conf_directory
from fl_backdoor.help import help_text
from fl_backdoor.listing import KINDS, listed
from fl_backdoor.nearest import nearest


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command; return its exit status, and what it wrote to both streams."""

    def call(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["fl-backdoor", *arguments])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


def narrow(text: str) -> bool:
    return max(map(len, text.splitlines())) <= 80


def test_all_that_is_promised_is_there() -> None:
    assert set(cli.COMMANDS) >= {"simulate", "sweep", "reproduce", "compare", "report", "list"}
    assert cli.COMMANDS.items() <= cli.EVERY.items()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_its_help_names_every_command(arguments: list[str], call: Any) -> None:
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    assert out.startswith("Example\n  fl-backdoor simulate +experiment=")
    assert narrow(out)
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)


def test_its_help_loads_no_command() -> None:
    code = (
        "import sys; sys.argv = ['fl-backdoor', '--help']; from fl_backdoor import cli; cli.main();"
        "assert not {'hydra', 'torch', 'flwr', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_its_version(call: Any) -> None:
    assert call("--version") == (0, f"fl-backdoor {__version__}\n", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_shows_an_example_first(name: str, call: Any) -> None:
    status, out, err = call(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Example\n  fl-backdoor {'simulate' if name == 'sweep' else name} ")
    assert narrow(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulat"], "simulat: allowed are simulate, .*; did you mean simulate?"),
        (["list", "atacks"], "atacks: allowed are .*; did you mean attacks?"),
        (["reproduce", "cao2018"], "did you mean cao2019?"),
        (["compare"], "required: DIR (fl-backdoor compare --help)"),
        (["simulate", "strategy=flme", "--help"], "did you mean flame?"),
        (["sweep", "strategy=fedavg,krm"], "did you mean krum?"),
        (["simulate", "--resume", "/nowhere"], "/nowhere"),
        (["simulate", "dataset.file=~/a.csv"], "and / - . _: \"dataset.file='~/a.csv'\""),
        (
            ["simulate", "dataset.file=a b=c", "--help"],
            "dataset.file=a b=c: cannot be read; allowed",
        ),
        (["sweep", "dataset.classes=[3,8"], "dataset.classes=[3,8: cannot be read; allowed is"),
    ],
)
def test_a_slip_is_one_line(arguments: list[str], said: str, call: Any) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert said.rpartition(".*")[2] in err


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_whole(kind: str, call: Any) -> None:
    status, out, err = call("list", kind)
    assert (status, err) == (0, "")
    assert narrow(out)
    lines = [line.split(maxsplit=1) for line in out.splitlines() if re.match("  [^ ]", line)]
    groups = [how.lstrip("+").partition("=")[0] for how in KINDS[kind]]
    files = [
        path.stem for group in groups for path in sorted((conf_directory() / group).glob("*.yaml"))
    ]
    assert [line[0] for line in lines] == files
    assert all(len(line) == 2 for line in lines), "one of them says nothing of itself"
    sentences = [listed(group) for group in groups]
    assert all(said[-1] in ".:)" for group in sentences for said in group.values()), "cut"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["protocol=vertical"],
        ["+experiment=vertical_mnist", "defense=[clipping,noise]"],
        ["strategy=norm_clipping", "strategy@strategy.strategy=sniper"],
        ["dataset=csv", "attack=backdoor", "model=mlp"],
    ],
)
def test_keys_in_groups_with_what_is_allowed(overrides: list[str]) -> None:
    text = help_text(overrides, "fl-backdoor simulate", "fl-backdoor sweep")
    assert narrow(text)
    for choice in overrides:
        assert choice.startswith(("protocol", "+", "defense")) or f"\n  {choice}\n" in text


def test_help_says_value_bounds_and_unit() -> None:
    lines = help_text([], "fl-backdoor simulate", "fl-backdoor sweep").splitlines()
    (line,) = [line for line in lines if line.startswith("  round_timeout=")]
    assert line.startswith("  round_timeout=3600.0            more than 0; seconds")
    (line,) = [line for line in lines if line.startswith("  measure.graphs=")]
    assert "last, all;" in line
    # Of a parent's file, resolved, and of two lines in the file.
    (line,) = [line for line in lines if line.startswith("  attack.num_attackers=")]
    assert line.startswith("  attack.num_attackers=3          P; null")
    place = [line.startswith("  attack.poisoning=") for line in lines].index(True)
    assert "beside own ones" in " ".join(" ".join(lines[place : place + 4]).split())


def test_only_what_is_near_is_proposed() -> None:
    assert nearest("snipper", ["fedavg", "sniper"]) == "; did you mean sniper?"
    assert nearest("xyz", ["fedavg", "sniper"]) == ""


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m fl_backdoor.cli list experiments | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
