"""The help of `simulate`: examples, then what can be chosen, then every key with its meaning.

Keys are those of what is chosen, and what is said of them are the comments of ``conf/`` and the
bounds of the schema.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from .arguments import WIDTH
from .compose import composed, word
from .config import conf_directory, groups
from .schema import in_words

COLUMN = 34
"""Where what is said of a key begins."""

GLOBAL, ADDED = ("protocol", "experiment", "size"), ("experiment", "size")
"""Groups that set keys of all kinds, and those that are added by a plus sign."""

HEAD = """\
Example
  {command} +experiment=sniper_goal1
  {command} +experiment=sniper_goal1 strategy=fedavg
  {command} +experiment=vertical_mnist defense=[clipping,noise]
  {sweep} +experiment=sniper_goal1 engine=local \\
      strategy=fedavg,sniper seed=0,1,2 hydra/launcher=joblib
  {command} --resume outputs/sniper_goal1/2026-11-26_16-13-26

Usage
  {command} [+experiment=NAME] [GROUP=NAME ...] [KEY=VALUE ...]
  {sweep} ... KEY=A,B,C
  {command} --resume DIR

Flags
  --resume DIR    go on with an interrupted run to the same final model
  --cfg job       print the configuration and stop
  -m, --multirun  run every combination of comma-separated values (a sweep)
  --help          this, with the keys of what is chosen: strategy=flame --help,
                  or, for split learning, protocol=vertical --help
  --hydra-help    Hydra's own help
"""


def help_text(overrides: list[str], command: str, sweep: str) -> str:
    """Return the help, with the keys of what the overrides choose.

    Parameters
    ----------
    overrides : list of str
        Hydra's.
    command, sweep : str
        How a run, and a sweep, is started.

    Raises
    ------
    UserError
        If a choice or key does not exist.
    """
    config = composed(*overrides, with_hydra=True)
    chosen = _chosen(config.hydra.runtime.choices)
    bounds = dict(_bounds(OmegaConf.get_type(config)))
    with open_dict(config):
        del config["hydra"]
    notes = _notes(conf_directory() / "config.yaml", "")
    for package, _, path in chosen:
        notes |= _notes(path, package)
    values = dict(_values(config))
    lines = [HEAD.format(command=command, sweep=sweep), "Groups, and the choices of each"]
    for group in groups():
        names = sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))
        sign = "+" if group in ADDED else ""
        lines.append(_row(f"  {sign}{group}=", ", ".join(names), 16))
    lines.append("\nKeys, their values, what is allowed and what they mean")
    for key in sorted(values, key=lambda key: "." in key):
        part = key.partition(".")[0]
        if part != key and part not in lines:
            lines += ["", part]
            lines += [f"  {how}" for at, how, _ in chosen if at.partition(".")[0] == part]
        what = "; ".join(filter(None, (bounds.get(key), notes.get(key))))
        lines.append(_row(f"  {key}={values[key]}", what, COLUMN))
    return "\n".join(lines)


def _chosen(choices: Mapping[str, str | None]) -> list[tuple[str, str, Path]]:
    """Return what is chosen: the key that it stands at, how it is written, and its file."""
    found = []
    for name, choice in choices.items():
        group, _, package = name.partition("@")
        path = conf_directory() / group / f"{choice}.yaml"
        if path.is_file():
            at = "" if group in GLOBAL else (package or group).replace("/", ".")
            found.append((at, f"{name}={choice}", path))
    return found


def _notes(path: Path, package: str) -> dict[str, str]:
    """Return the comments of a configuration by the dotted keys that they stand at."""
    notes: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    key = ""
    for line in path.read_text().splitlines():
        begun = re.match(r"( *)([\w]+):(.*?)(?:\s# *(.*))?$", line)
        more = re.match(r" +# *(.*)$", line)
        if begun:
            indent = len(begun[1])
            above = [part for part in above if part[0] < indent] + [(indent, begun[2])]
            key = ".".join(filter(None, [package, *(name for _, name in above)]))
            notes[key] = begun[4] or ""
        elif more and key:
            notes[key] = f"{notes[key]} {more[1]}".strip()
    return notes


def _values(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield dotted keys and what they hold, as it is written on the command line."""
    raw: Any = OmegaConf.to_container(config)
    for key in map(str, config):
        try:
            value = config[key]
        except OmegaConfBaseException:  # of what is not given yet
            value = raw[key]
        if isinstance(value, DictConfig) and value:
            for name, inner in _values(value):
                yield f"{key}.{name}", inner
        else:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            yield key, word(key, plain)


def _bounds(schema: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and what is allowed, in words."""
    for part in fields(schema):
        if is_dataclass(part.type):
            yield from _bounds(part.type, f"{prefix}{part.name}.")
        elif part.metadata:
            yield f"{prefix}{part.name}", in_words(**part.metadata)


def _row(name: str, what: str, column: int) -> str:
    """Write a name and what is said of it beside it, or below if there is no room."""
    if not what:
        return name
    indent = " " * column
    text = fill(what, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{name:<{column}}{text[column:]}" if len(name) < column else f"{name}\n{text}"
