"""Real data that come with scikit-learn: no network, no files, seconds."""

from dataclasses import dataclass

from .arrays import Part
from .base import Data
from .splits import SplitSource


@dataclass(kw_only=True)
class Digits(SplitSource):
    """1,797 handwritten digits of 8 x 8 grey values (Alpaydin, Kaynak 1998, UCI)."""

    def read(self) -> Data:
        """Split the digits."""
        from sklearn.datasets import load_digits

        bunch, place = load_digits(), "scikit-learn's digits"
        whole = Part(bunch.images, bunch.target, place, place)
        return self.divided("digits", whole, origin="real, from scikit-learn")


@dataclass(kw_only=True)
class BreastCancer(SplitSource):
    """569 tumours, malignant or benign, 30 numbers each (Wolberg et al. 1995, UCI)."""

    def read(self) -> Data:
        """Split and standardise the rows."""
        from sklearn.datasets import load_breast_cancer

        bunch, place = load_breast_cancer(), "scikit-learn's breast_cancer"
        whole = Part(bunch.data, bunch.target_names[bunch.target], place, place)
        origin = "real, from scikit-learn"
        return self.divided("breast cancer", whole, origin=origin, standardized=True)
