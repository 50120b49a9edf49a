"""k nearest neighbors by cosine, as DINO and others judge features without training anything."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 4096  # queries at once, at most
_NUMBERS = 2**28  # at once: 1 GiB in float32


class NearestNeighbors:
    """Classes by the vote of the ``k`` nearest training features.

    Args:
        features: ``[n, D]`` of the training set.
        labels: int64 ``[n]``.
        classes: K.
        k: voters; all of the training set where it has fewer.
        temperature: a vote weighs exp(cosine / temperature) (DINO, arXiv 2104.14294, appendix
            F.1); None: one vote each.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        classes: int,
        *,
        k: int,
        temperature: float | None,
    ) -> None:
        self.features = functional.normalize(features.float(), dim=1)
        self.labels = labels
        self.classes = classes
        self.k = min(k, len(features))
        self.temperature = temperature

    def probabilities(self, queries: Tensor) -> Tensor:
        """``[m, D]`` to the shares of the votes, ``[m, K]``."""
        return torch.cat([self._vote(chunk) for chunk in queries.split(self._chunk())])

    def _chunk(self) -> int:
        row = max(len(self.features), 2 * self.k * self.classes)  # one_hot makes 8 bytes of each
        return max(1, min(_CHUNK, _NUMBERS // row))

    def _vote(self, queries: Tensor) -> Tensor:
        cosines = functional.normalize(queries.float(), dim=1) @ self.features.T
        near, places = cosines.topk(self.k, dim=1)
        # Softmax is the weights exp(cosine / temperature), divided by their sum.
        weights = (
            torch.full_like(near, 1 / self.k)
            if self.temperature is None
            else (near / self.temperature).softmax(dim=1)
        )
        votes = functional.one_hot(self.labels[places], self.classes).to(weights)
        return (weights[:, :, None] * votes).sum(dim=1)
