"""Measures of one's own, by name from a configuration."""

from collections.abc import Sequence
from typing import Any, Final

from hydra.errors import HydraException
from hydra.utils import get_object

from ..config import one_line
from ..errors import UserError
from .measures import MEASURES, Measure

_DECLARED: Final = len(MEASURES)


def add_own(key: str, names: Sequence[str]) -> None:
    """Measure these beside the declared ones, instead of those that were added before.

    Parameters
    ----------
    key : str
        Of the configuration, for errors.
    names : sequence of str
        Each the place of a `Measure`, ``module.NAME``.

    Raises
    ------
    UserError
        If one of them is no measure of rounds, or has the name of another.
    """
    own: list[Measure] = []
    for name in names:
        measure = _found(key, name)
        if not isinstance(measure, Measure) or measure.per == "epoch":
            raise UserError(f"{key}={name}: allowed are measures (Measure) of rounds")
        if any(measure.name == other.name for other in [*MEASURES[:_DECLARED], *own]):
            raise UserError(f"{key}={name}: there is a measure named {measure.name} already")
        own.append(measure)
    MEASURES[_DECLARED:] = own


def _found(key: str, name: str) -> Any:
    try:
        return get_object(name)
    except (HydraException, ImportError, ValueError) as error:
        raise UserError(f"{key}={name}: {one_line(error)}") from error
