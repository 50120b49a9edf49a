"""A linear probe on cached features: exact, by scikit-learn's L-BFGS."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maekit.data.seeded import generator
from maekit.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.recipe.probe import CachedLinear

_PATIENCE = 2
_WORTH_THREADS = 10**9  # multiplications a product
_LEAST = 1e-6  # of a feature's deviation: one that is constant says nothing, and stays 0


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardized features.

    Attributes:
        strength: C, the inverse regularization that did best on the split.
        accuracies: of each strength, on the split; empty where there was nothing to choose, or no
            class has a sample to hold out: then the strength is the smallest.
        converged: whether the final fit ended before its iterations did.
    """

    mean: np.ndarray  # [D]
    deviation: np.ndarray  # [D]
    model: Any  # scikit-learn's LogisticRegression
    classes: int
    strength: float
    accuracies: dict[float, float]
    converged: bool

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """``[m, D]`` to ``[m, K]``; classes that were never trained on get 0."""
        scores = np.zeros((len(features), self.classes))
        known = self.model.predict_proba((features - self.mean) / self.deviation)
        scores[:, self.model.classes_] = known
        return scores


def fit_linear(
    features: np.ndarray, labels: np.ndarray, classes: int, options: CachedLinear, seed: int
) -> LinearProbe:
    """Choose the strength on a split, then fit on everything.

    Args:
        features: float32 ``[n, D]``.
        labels: int64 ``[n]``.
        classes: K.
        options: strengths to choose from, the split, the most iterations.
        seed: of the split.

    Raises:
        RecipeError: scikit-learn is not installed.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > _LEAST, deviation, 1.0)
    scaled = (features - mean) / deviation
    accuracies: dict[float, float] = {}
    strengths = options.strengths
    if len(strengths) > 1:
        chosen_on = split(labels, options.held_out, seed)
        if chosen_on.any():
            accuracies = _accuracies(scaled, labels, chosen_on, strengths, options.iterations)
    # Of equals the smallest: the strongest regularization that does as well.
    strength = min(accuracies or strengths, key=lambda c: (-accuracies.get(c, 0.0), c))
    model, converged = _fitted(scaled, labels, strength, options.iterations)
    return LinearProbe(mean, deviation, model, classes, strength, accuracies, converged)


def split(labels: np.ndarray, held_out: float, seed: int) -> np.ndarray:
    """Bool ``[n]``, True = held out: the same share of each class, at least one left of each."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(held_out * len(rows))), len(rows) - 1)
        order = generator(seed, purpose="probe/split", index=int(label)).permutation(len(rows))
        chosen[rows[order[:count]]] = True
    return chosen


def _accuracies(
    features: np.ndarray,
    labels: np.ndarray,
    chosen_on: np.ndarray,
    strengths: Sequence[float],
    iterations: int,
) -> dict[float, float]:
    """The accuracy on the split of each strength, each fit begun where the one before ended.

    The weakest regularizations take by far the longest: after ``_PATIENCE`` strengths in a row that
    do worse than the best, the greater ones are left out.
    """
    found: dict[float, float] = {}
    rest, start, worse = ~chosen_on, None, 0
    for strength in sorted(strengths):
        if worse == _PATIENCE:
            break
        best = max(found.values(), default=0.0)
        start, _ = _fitted(features[rest], labels[rest], strength, iterations, start)
        right = start.predict(features[chosen_on]) == labels[chosen_on]
        found[strength] = float(right.mean())
        worse = worse + 1 if found[strength] < best else 0
    return found


def _fitted(
    features: np.ndarray,
    labels: np.ndarray,
    strength: float,
    iterations: int,
    start: Any = None,  # noqa: ANN401 - an earlier fit
) -> tuple[Any, bool]:
    LogisticRegression, ConvergenceWarning, threadpool_limits = library()  # noqa: N806 - classes
    model = LogisticRegression(C=strength, max_iter=iterations, warm_start=start is not None)
    if start is not None:
        model.coef_, model.intercept_ = start.coef_.copy(), start.intercept_.copy()
        model.classes_ = start.classes_
    # L-BFGS alternates small matrix products with steps that are not threaded: below some size BLAS
    # threads only get in each other's way (5,000 x 768 features, 20 classes: 19 s with two, 5.5 s).
    size = features.shape[0] * features.shape[1] * len(np.unique(labels))
    threads = 1 if size < _WORTH_THREADS else None
    with warnings.catch_warnings(), threadpool_limits(threads, user_api="blas"):
        # Whether it converged is returned, and said once.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return model, int(model.n_iter_.max()) < iterations


def library() -> tuple[Any, Any, Any]:
    """scikit-learn's LogisticRegression and ConvergenceWarning, threadpoolctl's threadpool_limits.

    Raises:
        RecipeError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import (  # type: ignore[import-untyped]
            ConvergenceWarning,
        )
        from sklearn.linear_model import (  # type: ignore[import-untyped]
            LogisticRegression,
        )
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as error:
        msg = "the linear probe on cached features needs scikit-learn"
        raise RecipeError(msg, hint="pip install 'maekit[probe]', or --kind knn") from error
    return LogisticRegression, ConvergenceWarning, threadpool_limits
