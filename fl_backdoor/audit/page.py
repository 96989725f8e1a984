"""The page of an audit: one file that needs nothing else."""

import json
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import report as reports
from ..errors import UserError
from ..screen import counted
from .chosen import AS_YOU_ARE, ATTACKS
from .table import Table

MARK = '<meta name="generator" content="fl_backdoor.audit">'
"""By which an audit knows its own page again."""


def made_folder(name: str) -> Path:
    """Return the folder of a page, made and tried before what takes time.

    Raises
    ------
    UserError
        If it cannot be made or written, or holds another's ``index.html``.
    """
    folder = Path(name)
    page = folder / "index.html"
    allowed = "allowed is a folder that can be made and written"
    if not name:
        raise UserError(f"out='': {allowed}")
    try:
        if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"out={name}: its index.html is no audit's; allowed is another")
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"out={name}: {error.strerror}; {allowed}") from error
    return folder


def write_page(folder: Path, table: Table, report: dict[str, Any], half: str) -> None:
    """Write ``index.html`` and ``audit.json`` into a folder.

    Parameters
    ----------
    folder : Path
        As `made_folder` returns it.
    table, report
        What the audit found.
    half : str
        That half of a round or more may attack, if they may.
    """
    folders = [Path(__file__).parent, Path(reports.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("audit.html.jinja")
    rows = [
        {
            "name": row,
            "cost": None if row == AS_YOU_ARE else table.cost(row, AS_YOU_ARE),
            "cells": [table.text(row, column) for column in table.columns],
        }
        for row in table.rows
    ]
    rounds = counted(report["rounds"], "round")
    text = template.render(
        mark=MARK,
        report=report,
        rounds=rounds,
        half=half,
        columns=table.columns,
        rows=rows,
        notes=table.notes(),
        attacks={name: ATTACKS[name].about for name in table.columns if name in ATTACKS},
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
    (folder / "audit.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
