"""The judges of cached features: each is fitted on those of data.train, and gives scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maekit.engine.events import Emit, Note
from maekit.evaluate.attentive import fit_attentive, heads_of
from maekit.evaluate.knn import NearestNeighbors
from maekit.evaluate.linear import fit_linear, library

if TYPE_CHECKING:
    from maekit.recipe.probe import Probe

Judge = Callable[[np.ndarray], np.ndarray]  # features [m, ...] to scores [m, K]
Fit = tuple[Judge, dict[str, Any]]  # and how it was fitted


def check_judge(probe: Probe, width: int) -> None:
    """Refuse what cannot be fitted before hours are spent on features.

    Args:
        probe: names the judge.
        width: D of the encoder.

    Raises:
        RecipeError: scikit-learn is not installed, or attention heads do not divide the width.
    """
    if probe.kind == "linear" and probe.protocol == "cached":
        library()
    if probe.kind == "attentive":
        heads_of(width, probe.attentive.heads)


def fit_judge(
    features: np.ndarray,
    labels: np.ndarray,
    probe: Probe,
    *,
    classes: int,
    width: int,
    seed: int,
    device: torch.device,
    emit: Emit,
) -> Fit:
    """Fit the judge that a recipe names.

    Args:
        features: float32 ``[n, ...]``.
        labels: int64 ``[n]``.
        probe: which judge, and its options.
        classes: K.
        width: of the attentive block: the encoder's.
        seed: of whatever is drawn.
        device: where neighbors are sought and the attentive block is trained.
        emit: hears of what did not go well.
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
        return on_device(nearest.probabilities, device), {"voters": nearest.k}
    losses: list[float] = []
    head = fit_attentive(
        torch.from_numpy(features),
        target,
        classes,
        probe.attentive,
        width=width,
        seed=seed,
        device=device,
        told=lambda _, loss: losses.append(loss),
    )
    return on_device(head.probabilities, device), {
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }


def _linear(
    features: np.ndarray, labels: np.ndarray, probe: Probe, classes: int, seed: int, emit: Emit
) -> Fit:
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
    return found.probabilities, {
        "strength": found.strength,
        "accuracies": accuracies,
        "converged": found.converged,
    }


def on_device(judge: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Judge:
    """A judge of tensors as one of arrays."""
    return lambda x: judge(torch.from_numpy(x).to(device)).cpu().numpy()
