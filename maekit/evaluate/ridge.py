"""Ridge regression to one-hot classes: a linear judge in closed form, for judging often."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-6  # of a feature's deviation: one that is constant says nothing


class Ridge:
    """Classes by regression on standardized features.

    Args:
        features: ``[n, D]`` of the training set.
        labels: int64 ``[n]``.
        classes: K.
        strength: of the penalty, per training sample.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int, strength: float) -> None:
        x = features.double()
        self.mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
        self.deviation = torch.where(deviation > _LEAST, deviation, 1.0)
        x = (x - self.mean) / self.deviation
        y = functional.one_hot(labels, classes).double()
        self.bias = y.mean(dim=0)
        penalty = strength * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.weight = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - self.bias))

    def scores(self, queries: Tensor) -> Tensor:
        """``[m, D]`` to ``[m, K]``: about 1 for the class, 0 for the others."""
        x = (queries.double() - self.mean) / self.deviation
        scores: Tensor = x @ self.weight + self.bias
        return scores
