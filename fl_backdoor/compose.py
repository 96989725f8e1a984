"""Configurations as the command line composes them, from a program."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from .config import check_groups, conf_directory, load, one_line, short
from .errors import UserError
from .schema import CommonConfig


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """Compose a configuration as the command line does.

    Raises
    ------
    UserError
        Naming what does not exist.
    """
    check_groups(list(overrides))
    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(one_line(error)) from error


def check_keys(overrides: Sequence[str]) -> None:
    """Refuse keys of Hydra's own, which are the command line's.

    Raises
    ------
    UserError
        Naming the first.
    """
    for part in overrides:
        if part.lstrip("+~").startswith("hydra"):
            raise UserError(f"overrides={part}: allowed are keys of experiments; see output")


def setting(experiment: str, overrides: Sequence[str], choose: str) -> CommonConfig:
    """Compose what ``fl_backdoor.simulate +experiment=EXPERIMENT OVERRIDES`` composes.

    Parameters
    ----------
    experiment : str
        Of ``conf/experiment``; "": none.
    overrides : sequence of str
        Hydra's.
    choose : str
        Who runs one setting only, and where it is chosen: said of an experiment that is a sweep.

    Raises
    ------
    UserError
        Naming what does not exist or is out of range; for a sweep, what it leaves open.
    """
    config = composed(*_named(experiment), *overrides, with_hydra=True)
    given = {part.lstrip("+~").partition("=")[0] for part in overrides}
    params = config.hydra.sweeper.params or {}
    swept = [f"{key}={value}" for key, value in params.items() if str(key) not in given]
    if swept:
        raise UserError(f"experiment={experiment}: a sweep, {choose}: {'; '.join(swept)}")
    with open_dict(config):
        del config["hydra"]
    return load(config)


def carried_sweep(experiment: str, *overrides: str) -> tuple[str, dict[str, str]]:
    """Return the name of an experiment's runs, and the sweep that it carries.

    Raises
    ------
    UserError
        If there is no such experiment.
    """
    config = composed(*_named(experiment), *overrides, with_hydra=True)
    params = config.hydra.sweeper.params or {}
    return str(config.name), {str(key): str(value) for key, value in params.items()}


def combinations(settings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield what a sweep of these settings runs, the last key changing first."""
    parser = OverridesParser.create()
    parsed = parser.parse_overrides([f"{key}={value}" for key, value in settings.items()])
    choices = [
        list(one.sweep_string_iterator())
        if one.is_sweep_override()
        else [one.get_value_element_as_str()]
        for one in parsed
    ]
    for chosen in product(*choices):
        yield dict(zip(settings, chosen, strict=True))


def new_directory(*parents: str) -> Path:
    """Return a folder for results that is not there yet, named by the time."""
    first = Path(*map(short, parents), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    path, number = first, 1
    while path.exists():  # by a run of the same second
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path.resolve()


def word(key: str, value: Any) -> str:
    """Write a value in Hydra's words.

    Raises
    ------
    UserError
        If it is of a type that no configuration holds.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, list | tuple | range):
        return f"[{','.join(word(key, part) for part in value)}]"
    if isinstance(value, Mapping):
        parts = (f"{quoted(str(name))}:{word(key, part)}" for name, part in value.items())
        return f"{{{','.join(parts)}}}"
    raise UserError(
        f"{key}={value!r:.40}: allowed are numbers, strings, lists, mappings, true, false and None"
    )


def quoted(text: str) -> str:
    """Quote a string for Hydra if need be; backslashes are text to it unless a quote follows."""
    plain = re.fullmatch(r"[A-Za-z0-9_./-]*/[A-Za-z0-9_./-]*|[A-Za-z_][\w.]*", text, re.ASCII)
    if plain and text.lower() not in ("true", "false", "null", "nan", "inf"):
        return text
    text = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{text}'"


def _named(experiment: str) -> list[str]:
    return [f"+experiment={experiment}"] if experiment else []
