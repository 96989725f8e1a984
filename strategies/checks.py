"""Checks of settings, and of what others wrote."""

import math
from importlib.util import find_spec
from numbers import Integral, Real
from typing import TypeGuard


def is_finite_number(value: object) -> TypeGuard[float]:
    """Tell a setting that is a real, finite number from text, switches, NaN and infinity."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_positive(**values: object) -> None:
    """Refuse settings that are not positive, finite numbers.

    Raises
    ------
    ValueError
        Naming the first and its value.
    """
    for name, value in values.items():
        if not (is_finite_number(value) and value > 0):
            raise ValueError(f"{name} = {value!r} must be a positive finite number")


def check_count(least: int = 0, **values: object) -> None:
    """Refuse settings that are not integers, or below the least that is allowed.

    Raises
    ------
    ValueError
        Naming the first and its value.
    """
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} = {value!r} must be an integer from {least}")


def check_seed(seed: object) -> None:
    """Refuse a seed that is neither an integer from 0 nor None.

    Raises
    ------
    ValueError
        Naming its value.
    """
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ValueError(f"seed = {seed!r} must be an integer, 0 or larger, or None")


def check_share(**values: object) -> None:
    """Refuse settings that are not parts of 1: above 0, and 1 at most.

    Raises
    ------
    ValueError
        Naming the first and its value.
    """
    for name, value in values.items():
        if not (is_finite_number(value) and 0 < value <= 1):
            raise ValueError(f"{name} = {value!r} must be a number above 0, and 1 at most")


def check_allowed(rule: object, name: str, least: float, most: float, clients: int) -> None:
    """Refuse a rule's setting that cannot work with so many clients.

    Raises
    ------
    ValueError
        Naming the setting, its value and what is allowed.
    """
    value = getattr(rule, name)
    if not least <= value <= most:
        allowed = f"{least:g} to {most:g}" if most >= least else "none"
        raise ValueError(
            f"{name} = {value}: {type(rule).__name__} of {clients} clients allows {allowed}"
        )


def check_bool(**values: object) -> None:
    """Refuse a switch that is not True or False: the text "false" would switch it on.

    Raises
    ------
    ValueError
        Naming the argument and its value.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} = {value!r} must be True or False")


def line(what: object) -> str:
    """Return what somebody else wrote as one short line."""
    short = " ".join(str(what).split())[-200:]
    return "".join(c if c.isprintable() else "?" for c in short)  # no terminal's commands


def check_installed(rule: str, module: str, package: str) -> None:
    """Refuse to make a rule that could not act.

    Raises
    ------
    ImportError
        If a module is missing, naming the package that has it.
    """
    if find_spec(module) is None:
        raise ImportError(f"{rule} needs {package}: pip install {package}")
