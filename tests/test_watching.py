"""What docs/deployment.md shows of watching a deployment, made to Flower's quickstart, and run."""

import json
import logging
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import test_quickstart as quickstart
from .test_deployment import ROOT
from .test_quickstart import CLIENT, SERVER, apply

run = quickstart.run
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def printed(name: str, language: str) -> str:
    text = (ROOT / "docs" / "deployment.md").read_text()
    found = re.search(rf"<!-- test: {name} -->\n```{language}\n(.*?)```", text, re.DOTALL)
    assert found, name
    return found[1]


def test_the_log_is_what_the_docs_show(
    run: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers to a few per cent: another processor has other last bits."""
    caplog.set_level(logging.INFO, "flwr")
    random.seed(0)  # Flower samples by it, and so decides who trains first
    monkeypatch.setitem(quickstart.CONFIG, "num-server-rounds", 5)
    server = apply(printed("watch diff", "diff").splitlines(), SERVER)
    run(server, apply(quickstart.block("client diff"), CLIENT))
    ours = [r for r in caplog.records if "strategies" in Path(r.pathname).parts]
    ours = [r for r in ours if r.filename == "watch.py"]
    said = [f"{r.levelname} : {r.getMessage()}" for r in ours]
    shown = re.split(r"\n(?! )", printed("watch log", "text").strip())
    shown = [" ".join(line.split()) for line in shown]
    assert [NUMBER.sub("#", line) for line in said] == [NUMBER.sub("#", line) for line in shown]
    for one, other in zip(said, shown, strict=True):
        numbers = [np.array(NUMBER.findall(line), dtype=float) for line in (one, other)]
        np.testing.assert_allclose(*numbers, rtol=0.05)
    lines = [json.loads(line) for line in Path("rounds.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3, 4, 5]
    assert "drops the same clients" in Path("watch.html").read_text()
