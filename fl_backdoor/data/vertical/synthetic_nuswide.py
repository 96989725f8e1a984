"""A seeded stand-in for NUS-WIDE: its shape and Table 1's counts, its features invented.

Signal and noise are calibrated so that the paper's network comes near the paper's test accuracy
of 88.5%. With each party one dense layer of 32, ReLU and one of 5, the outputs added, SGD with
rate 0.01, batches of 64 and 20 epochs, both parties reach 88.7%, image features alone 73.0% and
tags alone 78.7%. Nothing else about the features is like NUS-WIDE.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

CLASSES: Final = ("buildings", "grass", "animal", "water", "person")
IMAGE_FEATURES: Final = 634
TAGS: Final = 1000

# Liu, Yi, Chen 2020, table 1: rows of each class, and those of them with the last tag.
CLASS_ROWS: Final = {
    "train": (6_173, 5_981, 12_679, 12_202, 22_965),
    "test": (4_213, 4_082, 8_296, 8_172, 15_237),
}
LAST_TAG_ROWS: Final = {"train": (3, 8, 125, 11, 5), "test": (0, 8, 81, 4, 9)}
ROWS: Final = {split: sum(counts) for split, counts in CLASS_ROWS.items()}

# What each generator's seed begins with: no draw depends on another part having been drawn.
_LABELS, _LAST_TAG, _IMAGE_MEANS, _IMAGES, _TAG_RATES, _TAGS = range(6)
_SEED: Final = 20_200_722

# Calibrated, see the module.
_IMAGE_SIGNAL: Final = 0.034
_IMAGE_NOISE: Final = 0.5
_OWN_TAGS: Final = 40
_OWN_RATE: Final = 1.7
_STRAY_RATE: Final = 0.12
_COMMON_RATE: Final = 3.0

# Rows drawn at a time, to hold the memory of the draws down.
_CHUNK: Final = 8_192


def labels(split: str, rows: int) -> NDArray[np.int64]:
    """Return the classes of the rows of ``"train"`` or ``"test"``, shuffled.

    Fewer rows than Table 1 has, at least 5, are shared out to the classes in proportion, at
    least 1 to each.
    """
    counts = [max(1, round(count * rows / ROWS[split])) for count in CLASS_ROWS[split][:-1]]
    classes = np.repeat(np.arange(len(CLASSES)), [*counts, rows - sum(counts)])
    return _generator(_LABELS, split).permutation(classes)


def images(split: str, rows: int) -> NDArray[np.float32]:
    """Return the image features, shape (rows, 634): class means under independent noise."""
    rng = _generator(_IMAGE_MEANS)
    base = rng.gamma(2, 0.1, IMAGE_FEATURES)
    offsets = rng.normal(0, _IMAGE_SIGNAL, (len(CLASSES), IMAGE_FEATURES))
    means = (base + offsets).astype(np.float32)
    features = _generator(_IMAGES, split).standard_normal((rows, IMAGE_FEATURES), np.float32)
    features *= np.float32(_IMAGE_NOISE)
    classes = labels(split, rows)
    for start in range(0, rows, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        features[chunk] += means[classes[chunk]]
    return features


def tags(split: str, rows: int) -> NDArray[np.float32]:
    """Return the tags, shape (rows, 1000), 0 or 1: a few a row, some of them its class's own.

    The last tag has nothing to do with the others: exactly as many rows of each class have it
    as in Table 1, fewer rows in proportion, but at least 1 where the table has any.
    """
    rng = _generator(_TAG_RATES)
    common = rng.pareto(1.2, TAGS - 1) + 0.05
    rates = np.tile(common * _COMMON_RATE / common.sum(), (len(CLASSES), 1))
    own = rng.permutation(TAGS - 1)[: len(CLASSES) * _OWN_TAGS].reshape(len(CLASSES), -1)
    shares = rng.dirichlet(np.full(_OWN_TAGS, 2.0), len(CLASSES))
    for label in range(len(CLASSES)):
        for topic in range(len(CLASSES)):
            rate = _OWN_RATE if topic == label else _STRAY_RATE
            rates[label, own[topic]] += rate * shares[topic]
    probabilities = np.minimum(rates, 0.9).astype(np.float32)
    classes = labels(split, rows)
    rng = _generator(_TAGS, split)
    features = np.empty((rows, TAGS), np.float32)
    for start in range(0, rows, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = classes[chunk]
        features[chunk, :-1] = rng.random((len(part), TAGS - 1), np.float32) < probabilities[part]
    features[:, -1] = 0
    rng = _generator(_LAST_TAG, split)
    for label, count in enumerate(LAST_TAG_ROWS[split]):
        members = np.flatnonzero(classes == label)
        chosen = rng.permutation(members)[: max(count > 0, round(count * rows / ROWS[split]))]
        features[chosen, -1] = 1
    return features


def _generator(part: int, split: str = "") -> np.random.Generator:
    return np.random.default_rng([_SEED, part, ["", "train", "test"].index(split)])
