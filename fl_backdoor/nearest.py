"""A slip of the pen is answered by the name that was meant."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException


def nearest(name: str, names: Iterable[str]) -> str:
    """Ask whether the nearest of some names was meant by one that is none of them.

    Returns
    -------
    str
        ``"; did you mean NAME?"``, or "" if none is near.
    """
    near = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def unquoted(error: OverrideParseException) -> str:
    """Say in one line how a key is given whose value Hydra cannot read."""
    key, _, value = error.override.partition("=")
    example = "" if value[:1] in ("", *"'\"[{") else f": \"{key}='{value}'\""
    return (
        f"{error.override}: cannot be read; allowed is KEY=VALUE, with quotes of its own around a "
        f"value that has other signs than letters from a to z, digits, and / - . _{example}"
    )


def unknown_choice(error: MissingConfigException) -> str:
    """Say in one line which choice of a group does not exist, and which do; "" if it names none."""
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or ())
    if not (group and options):
        return ""
    return f"{group}={choice}: allowed are {', '.join(options)}{nearest(choice, options)}"


def unknown_key(error: OmegaConfBaseException, groups: Iterable[str]) -> str:
    """Say in one line which key does not exist, and which do beside it; "" of another error.

    Parameters
    ----------
    error : OmegaConfBaseException
        What was raised.
    groups : iterable of str
        Names that are allowed beside the keys of the outermost level.
    """
    if not isinstance(error, ConfigKeyError | ConfigAttributeError):
        return ""
    key, path = str(error.key), str(error.full_key)
    if is_dataclass(error.object_type):
        names = {field.name for field in fields(error.object_type)}
    elif isinstance(error.parent_node, DictConfig):
        names = set(map(str, error.parent_node.keys()))
    else:
        return ""
    near = nearest(key, sorted(names | set(groups if path == key else ())))
    return f"{path}: unknown key; allowed are {', '.join(sorted(names)) or 'none'}{near}"
