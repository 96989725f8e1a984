"""Rows that come without test rows, split by a seed so that every class is in both splits."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..schema import bounded
from .arrays import Part, assembled
from .base import Data, Indices, Source
from .labels import as_text


@dataclass(kw_only=True)
class SplitSource(Source):
    """A source that may have to split its rows.

    Attributes
    ----------
    test_fraction : float
        Share of test rows of each class, where none are given.
    split_seed : int
        Decides which; not the run's seed, so that all runs have the same test rows.
    """

    test_fraction: float = bounded(0.2, above=0, below=1)
    split_seed: int = bounded(0, least=0, most=2**32 - 1)

    def split(self, labels: NDArray[Any], place: str) -> tuple[Indices, Indices]:
        """Return the training and the test rows, ascending, by scikit-learn's stratified draw.

        Raises
        ------
        UserError
            If a class has one row only, or there are fewer rows than classes on a side.
        """
        from sklearn.model_selection import train_test_split

        classes, counts = np.unique(labels, return_counts=True)
        if len(counts) and counts.min() < 2:
            raise UserError(
                f"{place}: class {classes[counts.argmin()]} has one row; allowed are two or more, "
                "to split them into training and test rows"
            )
        try:
            train, test = train_test_split(
                np.arange(len(labels)),
                test_size=self.test_fraction,
                stratify=labels,
                random_state=self.split_seed,
            )
        except ValueError as error:
            raise UserError(
                f"dataset.test_fraction={self.test_fraction}: of {len(labels)} rows of "
                f"{len(classes)} classes of {place}; allowed is what leaves a row of each class "
                "on both sides"
            ) from error
        return np.sort(train), np.sort(test)

    def divided(
        self,
        name: str,
        whole: Part,
        *,
        origin: str,
        owners: NDArray[Any] | None = None,
        **options: Any,
    ) -> Data:
        """Split rows, and make a data set of them; the rest is `assembled`'s.

        Raises
        ------
        UserError
            See `split` and `assembled`.
        """
        whole.check(owners)
        rows = self.split(as_text(whole.labels, whole.labels_place), whole.labels_place)
        train, test = (
            replace(whole, inputs=whole.inputs[part], labels=whole.labels[part], rows=part)
            for part in rows
        )
        origin += f"; {self.test_fraction:.0%} test rows by split_seed {self.split_seed}"
        if owners is not None:
            owners = owners[rows[0]]
        return assembled(name, train, test, origin=origin, owners=owners, **options)
