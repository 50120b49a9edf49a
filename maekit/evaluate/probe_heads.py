"""The heads that are fitted on cached features: linear, k nearest neighbors, ridge, attentive."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maekit.data.rng import generator
from maekit.engine.events import Emit, Note
from maekit.errors import RecipeError
from maekit.evaluate.attentive import fit_attentive, num_heads
from maekit.stop import check, interruptible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.recipe.probe import CachedLinear, Probe

ProbeHead = Callable[[np.ndarray], np.ndarray]  # features [m, ...] to scores [m, K]
Layer = tuple[np.ndarray, np.ndarray]  # weights [K, D] and biases [K] of logits
_PATIENCE = 2
_WORTH_THREADS = 10**9  # multiplications a product
_LEAST = 1e-6  # of a feature's deviation: one that is constant says nothing, and stays 0
_CHUNK = 4096  # queries at once, at most
_NUMBERS = 2**28  # at once: 1 GiB in float32
_NEVER = -1e4  # a logit whose share is 0, also in half precision


class FittedHead(NamedTuple):
    """A head, how it was fitted, and the layer that computes the same, where there is one."""

    score: ProbeHead
    fitted: dict[str, Any]
    layer: Layer | None = None


def check_head(probe: Probe, width: int) -> None:
    """Refuse what cannot be fitted before hours are spent on features.

    Args:
        probe: names the head.
        width: D of the encoder.

    Raises:
        RecipeError: scikit-learn is not installed, or attention heads do not divide the width.
    """
    if probe.kind == "linear" and probe.protocol == "cached":
        library()
    if probe.kind == "attentive":
        num_heads(width, probe.attentive.heads)


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    probe: Probe,
    *,
    classes: int,
    width: int,
    seed: int,
    device: torch.device,
    emit: Emit,
) -> FittedHead:
    """Fit the head that a recipe names.

    Args:
        features: float32 ``[n, ...]``.
        labels: int64 ``[n]``.
        probe: which head, and its options.
        classes: K.
        width: of the attentive block: the encoder's.
        seed: of whatever is drawn.
        device: where neighbors are sought and the attentive block is trained.
        emit: receives warnings.
    """
    if probe.kind == "linear":
        return _linear(features, labels, probe, classes, seed, emit)
    target = torch.from_numpy(labels)
    if probe.kind == "knn":
        nearest = NearestNeighbors(
            torch.from_numpy(features).to(device),
            target.to(device),
            classes,
            k=probe.knn.k,
            temperature=probe.knn.temperature,
        )
        return FittedHead(on_device(nearest.probabilities, device), {"voters": nearest.k})
    losses: list[float] = []
    head = fit_attentive(
        torch.from_numpy(features),
        target,
        classes,
        probe.attentive,
        width=width,
        seed=seed,
        device=device,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    fitted = {"loss_first": losses[0], "loss_last": losses[-1]}
    return FittedHead(on_device(head.probabilities, device), fitted)


def _linear(
    features: np.ndarray, labels: np.ndarray, probe: Probe, classes: int, seed: int, emit: Emit
) -> FittedHead:
    options = probe.linear
    found = fit_linear(features, labels, classes, options, seed)
    if not found.converged:
        text = f"L-BFGS did not converge in {options.iterations} iterations"
        emit(Note(f"{text}: raise probe.linear.iterations", warning=True))
    if len(options.strengths) > 1 and not found.accuracies:
        text = "no class has two samples, so that there is nothing to choose probe.linear.strengths"
        emit(Note(f"{text} on: the smallest is taken", warning=True))
    if found.accuracies and found.strength in (min(options.strengths), max(options.strengths)):
        text = f"the best of probe.linear.strengths, {found.strength:g}, is the first or last"
        emit(Note(f"{text} of them: one beyond may do better"))
    accuracies = {f"{c:g}": share for c, share in found.accuracies.items()}
    fitted = {
        "strength": found.strength,
        "accuracies": accuracies,
        "converged": found.converged,
    }
    return FittedHead(found.probabilities, fitted, found.layer())


def on_device(head: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> ProbeHead:
    """Wrap a function of tensors as one of arrays."""
    return lambda x: head(torch.from_numpy(x).to(device)).cpu().numpy()


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
        """Compute ``[m, K]`` of features ``[m, D]``; classes without a training sample get 0."""
        scores = np.zeros((len(features), self.classes))
        known = self.model.predict_proba((features - self.mean) / self.deviation)
        scores[:, self.model.classes_] = known
        return scores

    def layer(self) -> Layer:
        """Return weights ``[K, D]`` and biases ``[K]`` whose softmax of features is the same."""
        weights = np.zeros((self.classes, len(self.mean)))
        biases = np.full(self.classes, _NEVER)
        own, bias = self.model.coef_ / self.deviation, self.model.intercept_
        if len(own) == 1:  # of two classes it fits the difference only
            own, bias = np.stack([np.zeros_like(own[0]), own[0]]), np.array([0.0, bias[0]])
        weights[self.model.classes_] = own
        biases[self.model.classes_] = bias - own @ self.mean
        return weights, biases


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
    """Choose what is held out, bool ``[n]``: the same share of each class, at least one left."""
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
    """Measure each strength on the split, each fit begun where the one before ended.

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
    with (
        warnings.catch_warnings(),
        threadpool_limits(threads, user_api="blas"),
        interruptible(),
    ):
        # Whether it converged is returned, and said once.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return model, int(model.n_iter_.max()) < iterations


def library() -> tuple[Any, Any, Any]:
    """Import LogisticRegression, ConvergenceWarning and threadpool_limits.

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
        raise RecipeError(msg, hint="pip install scikit-learn, or --kind knn") from error
    return LogisticRegression, ConvergenceWarning, threadpool_limits


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
        """Compute the shares of the votes, ``[m, K]``, for features ``[m, D]``."""
        return torch.cat([self._vote(chunk) for chunk in queries.split(self._chunk())])

    def _chunk(self) -> int:
        row = max(len(self.features), 2 * self.k * self.classes)  # one_hot makes 8 bytes of each
        return max(1, min(_CHUNK, _NUMBERS // row))

    def _vote(self, queries: Tensor) -> Tensor:
        check()
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
        """Compute ``[m, K]`` of features ``[m, D]``: about 1 for the class, 0 for the others."""
        x = (queries.double() - self.mean) / self.deviation
        scores: Tensor = x @ self.weight + self.bias
        return scores
