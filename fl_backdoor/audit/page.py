"""The page of an audit: one file that needs nothing else."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import report as reports
from ..errors import UserError
from ..screen import counted
from .chosen import AS_YOU_ARE
from .table import Table

MARK = '<meta name="generator" content="fl_backdoor.audit">'
"""By which an audit knows its own page again."""


def write_page(folder: Path, table: Table, report: dict[str, Any]) -> None:
    """Write ``index.html`` and ``audit.json`` into a folder.

    Raises
    ------
    UserError
        If the folder holds another's ``index.html``.
    """
    page = folder / "index.html"
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"out={folder}: its index.html is no audit's; allowed is another")
    folder.mkdir(parents=True, exist_ok=True)
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
    content = {"mark": MARK, "report": report, "columns": table.columns, "rows": rows}
    text = template.render(**content, rounds=rounds, notes=table.notes())
    page.write_text(text, encoding="utf-8")
    (folder / "audit.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
