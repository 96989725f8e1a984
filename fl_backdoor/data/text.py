"""Texts as token ids: the most frequent words of the training rows, by their rank."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

PADDING: Final = 0
UNKNOWN: Final = 1

_WORD: Final = re.compile(r"\w+")


def tokens(
    train: Sequence[str], test: Sequence[str], vocabulary: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Make token ids of texts.

    A word is a run of letters, digits and underscores, in lower case. The ``vocabulary - 2`` most
    frequent words of the training texts, of equally frequent ones those first by alphabet, are
    the tokens 2, 3, ... by rank; any other word is `UNKNOWN`. A text is its first ``length``
    words, filled up with `PADDING`.

    Returns
    -------
    train, test : arrays of shape (n, length) and (m, length), int64
    """
    counts = Counter(word for text in train for word in _words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - 2]
    number = {word: rank for rank, word in enumerate(ranked, UNKNOWN + 1)}

    def ids(texts: Sequence[str]) -> NDArray[np.int64]:
        rows = np.full((len(texts), length), PADDING, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            words = _words(text)[:length]
            row[: len(words)] = [number.get(word, UNKNOWN) for word in words]
        return rows

    return ids(train), ids(test)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
