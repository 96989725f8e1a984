"""A classifier of texts that are given as numbers of tokens."""

from typing import Literal

import torch
from torch import Tensor, nn

from strategies.vertical.top_models import check_nodes

from ..data.text import PADDING


class TextClassifier(nn.Module):
    """An embedding of each token, their mean or a GRU over them, and a dense layer.

    With the mean it is the classifier of Joulin et al. 2017 (fastText) without n-grams; the GRU is
    that of Cho et al. 2014, of which the state after the last token counts.

    Parameters
    ----------
    num_classes : int
        Outputs of the last layer; the softmax is part of the loss.
    vocabulary : int
        How many different tokens there are; token 0 is padding.
    embedding : int
        Size of the vector of a token, and of the GRU's state.
    pool : {"mean", "gru"}
        What makes one vector of a text.

    Raises
    ------
    ValueError
        If the data are no texts, or a setting is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        vocabulary: int | None,
        embedding: int = 64,
        pool: Literal["mean", "gru"] = "mean",
    ) -> None:
        super().__init__()
        if vocabulary is None:
            raise ValueError("TextClassifier takes texts as tokens: the data have no vocabulary")
        if pool not in ("mean", "gru"):
            raise ValueError(f"pool = {pool!r} must be 'mean' or 'gru'")
        check_nodes(embedding=embedding)
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=PADDING)
        self.gru = nn.GRU(embedding, embedding, batch_first=True) if pool == "gru" else None
        self.classifier = nn.Linear(embedding, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(n, length)``, int64, to logits ``(n, num_classes)``."""
        vectors = self.embedding(tokens)
        lengths = (tokens != PADDING).sum(dim=1).clamp(min=1)
        if self.gru is None:
            pooled = vectors.sum(dim=1) / lengths[:, None]  # padding's vector is 0
        else:
            pooled = self.gru(vectors)[0][torch.arange(len(tokens)), lengths - 1]
        logits: Tensor = self.classifier(pooled)
        return logits
