"""The judges against scikit-learn's, and against what can be worked out by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numerics import close
from torch.nn import functional

from maekit.engine.events import Event, Note
from maekit.errors import RecipeError
from maekit.evaluate import probe_heads
from maekit.evaluate.attentive import AttentiveHead, fit_attentive, num_heads
from maekit.evaluate.baselines import FrameDifferenceBaseline, PixelBaseline, reduced_size
from maekit.evaluate.probe_heads import LinearProbe, NearestNeighbors, fit_linear, split
from maekit.recipe.probe import Attentive, CachedLinear, Probe


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of features of very different sizes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centers = np.random.default_rng(9).normal(size=(3, 6))
    features = centers[labels] + rng.normal(size=(count, 6))
    return (features * [1, 10, 100, 0.1, 1, 1] + 5).astype(np.float32), labels


def test_a_linear_probe_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = blobs(300)
    queries, _ = blobs(50, seed=1)
    probe = fit_linear(features, labels, 3, CachedLinear(strengths=(0.3,)), seed=0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-8, max_iter=5000))
    theirs.fit(features.astype(np.float64), labels)
    expected = theirs.predict_proba(queries.astype(np.float64))
    # Ours ends where the gradient is below scikit-learn's default of 1e-4.
    np.testing.assert_allclose(probe.probabilities(queries), expected, atol=5e-3)
    assert probe.accuracies == {}
    assert probe.converged


def test_a_linear_probe_is_at_its_optimum() -> None:
    """The gradient of C * (sum of losses) + |w|^2 / 2 vanishes there, worked out by torch."""
    features, labels = blobs(200)
    strength = 0.05
    probe = fit_linear(features, labels, 3, CachedLinear(strengths=(strength,)), seed=0)
    scaled = torch.from_numpy((features - probe.mean) / probe.deviation)
    weight = torch.tensor(probe.model.coef_, requires_grad=True)
    bias = torch.tensor(probe.model.intercept_, requires_grad=True)
    loss = functional.cross_entropy(scaled @ weight.T + bias, torch.from_numpy(labels))
    (strength * len(labels) * loss + weight.square().sum() / 2).backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 2e-2
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0, correction=0), 1, atol=1e-6)


def test_the_strength_is_chosen_on_a_split_of_train() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 200)).astype(np.float32)
    features[:, 0] += labels * 3.0  # one feature says it, 199 do not
    options = CachedLinear(strengths=(1e3, 1e-3))
    probe = fit_linear(features, labels, 2, options, seed=3)
    held = split(labels, options.held_out, 3)
    scaled = (features - features.mean(0)) / features.std(0)
    for strength, accuracy in probe.accuracies.items():
        own = LogisticRegression(C=strength, max_iter=2000).fit(scaled[~held], labels[~held])
        assert accuracy == pytest.approx(own.score(scaled[held], labels[held]), abs=0.07)
    assert probe.strength == max(probe.accuracies, key=lambda c: (probe.accuracies[c], -c))


@pytest.mark.parametrize(
    ("accuracies", "noted"),
    [
        ({0.1: 0.2, 1.0: 0.3, 10.0: 0.4}, True),
        ({0.1: 0.2, 1.0: 0.3, 10.0: 0.1}, False),
        ({}, False),
    ],
)
def test_a_strength_at_the_end_of_those_tried_is_told(
    accuracies: dict[float, float], noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another beyond it may do better, of the encoder or of its floor."""
    best = max(accuracies, key=lambda strength: accuracies[strength], default=0.1)
    fit = SimpleNamespace(coef_=np.zeros((1, 1)), intercept_=np.zeros(1), classes_=np.arange(2))
    found = LinearProbe(np.zeros(1), np.ones(1), fit, 2, best, accuracies, converged=True)
    monkeypatch.setattr(probe_heads, "fit_linear", lambda *_: found)
    events: list[Event] = []
    probe_heads.fit_head(
        np.zeros((4, 1), np.float32),
        np.array([0, 0, 1, 1]),
        Probe(protocol="cached", linear=CachedLinear(strengths=tuple(accuracies) or (0.1,))),
        classes=2,
        width=8,
        seed=1,
        device=torch.device("cpu"),
        emit=events.append,
    )
    texts = [event.text for event in events if isinstance(event, Note)]
    assert any("is the first or last of them" in text for text in texts) == noted


def test_a_split_holds_out_a_share_of_each_class() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 2 + [3])
    chosen = split(labels, 0.2, seed=1)
    assert [int(chosen[labels == label].sum()) for label in range(4)] == [2, 1, 1, 0]
    assert (chosen == split(labels, 0.2, seed=1)).all()
    assert (chosen != split(labels, 0.2, seed=2)).any()


def test_classes_that_were_never_trained_on_score_nothing() -> None:
    features, labels = blobs(60)
    labels = labels * 2  # classes 0, 2, 4 of six
    probe = fit_linear(features, labels, 6, CachedLinear(), seed=0)
    scores = probe.probabilities(features)
    assert scores.shape == (60, 6)
    assert (scores[:, [1, 3, 5]] == 0).all()
    np.testing.assert_allclose(scores.sum(1), 1)


@pytest.mark.parametrize("known", [(0, 1, 2), (0, 2), (1, 2)])
def test_a_layer_computes_the_same(known: tuple[int, ...]) -> None:
    """Of three classes, and of two of them, which scikit-learn fits as one."""
    features, labels = blobs(300)
    kept = np.isin(labels, known)
    options = CachedLinear(strengths=(0.3,))
    probe = fit_linear(features[kept], labels[kept], 3, options, seed=0)
    weights, biases = probe.layer()
    queries = blobs(50, seed=1)[0]
    found = torch.from_numpy(queries.astype(np.float64) @ weights.T + biases).softmax(dim=1)
    # Of an offset of the features, and of their differences from it, as many terms as features.
    size = float(np.abs(weights).max() * np.abs(queries).max())
    close(found, probe.probabilities(queries), terms=6, dtype=torch.float64, scale=size)


def test_a_constant_feature_is_no_trouble() -> None:
    features, labels = blobs(60)
    features[:, 2] = 7
    assert np.isfinite(
        fit_linear(features, labels, 3, CachedLinear(), 0).probabilities(features)
    ).all()


def test_without_scikit_learn_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    features, labels = blobs(20)
    with pytest.raises(RecipeError, match="pip install scikit-learn"):
        fit_linear(features, labels, 3, CachedLinear(), 0)


@pytest.mark.parametrize("temperature", [None, 0.07, 0.5])
def test_neighbors_are_scikit_learns(temperature: float | None) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = blobs(200)
    queries, _ = blobs(40, seed=1)

    def votes(distances: np.ndarray) -> np.ndarray:
        return (
            np.ones_like(distances)
            if temperature is None
            else np.exp((1 - distances) / temperature)
        )

    theirs = KNeighborsClassifier(9, weights=votes, metric="cosine", algorithm="brute")
    theirs.fit(features, labels)
    ours = NearestNeighbors(
        torch.from_numpy(features), torch.from_numpy(labels), 3, k=9, temperature=temperature
    )
    found = ours.probabilities(torch.from_numpy(queries)).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(queries), atol=1e-4)


def test_more_neighbors_than_there_are() -> None:
    features, labels = torch.eye(3), torch.tensor([0, 1, 1])
    judge = NearestNeighbors(features, labels, 2, k=20, temperature=None)
    assert judge.k == 3
    assert judge.probabilities(features)[0].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_neighbors_do_not_hold_a_vote_for_each_class() -> None:
    """One number for each class of each training sample would be gigabytes on ImageNet."""
    features, labels = torch.randn(500, 2), torch.arange(500)
    judge = NearestNeighbors(features, labels, 500, k=3, temperature=None)
    held = [value for value in vars(judge).values() if isinstance(value, torch.Tensor)]
    assert sum(value.numel() for value in held) < 2000
    assert judge.probabilities(features).sum(1).tolist() == pytest.approx([1] * 500)


def attentive(**more: object) -> Attentive:
    settings = {"epochs": 30, "batch": 16, "lr": 3e-3} | more
    return Attentive(**settings)  # type: ignore[arg-type]


def needle(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen tokens, one of which says the class; their mean says less."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, 16, 16, generator=rng)
    labels = torch.randint(0, 3, (count,), generator=rng)
    places = torch.randint(0, 16, (count,), generator=rng)
    codes = 4 * torch.eye(16)[:4]
    tokens[torch.arange(count), places] += codes[labels] + codes[3]
    return tokens, labels


def test_an_attentive_probe_finds_the_token_that_tells() -> None:
    from sklearn.linear_model import LogisticRegression

    cpu = torch.device("cpu")
    tokens, labels = needle(400, seed=0)
    head = fit_attentive(tokens, labels, 3, attentive(), width=16, seed=0, device=cpu)
    queries, truth = needle(200, seed=1)
    scores = head.probabilities(queries)
    torch.testing.assert_close(scores.sum(1), torch.ones(200))
    found = float((scores.argmax(1) == truth).float().mean())
    mean = LogisticRegression(max_iter=1000).fit(tokens.mean(1).numpy(), labels.numpy())
    assert found > mean.score(queries.mean(1).numpy(), truth.numpy()) + 0.1
    assert found > 0.7


def test_an_attentive_probe_is_reproducible() -> None:
    cpu = torch.device("cpu")
    tokens, labels = needle(40, seed=0)
    torch.manual_seed(1)
    one = fit_attentive(tokens, labels, 3, attentive(epochs=2), width=16, seed=4, device=cpu)
    torch.manual_seed(2)
    same = fit_attentive(tokens, labels, 3, attentive(epochs=2), width=16, seed=4, device=cpu)
    other = fit_attentive(tokens, labels, 3, attentive(epochs=2), width=16, seed=5, device=cpu)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_wide_tokens_are_projected_and_the_order_of_tokens_is_nothing() -> None:
    head = AttentiveHead(features=40, width=16, classes=3, heads=2).eval()
    tokens = torch.randn(2, 5, 40)
    torch.testing.assert_close(head(tokens), head(tokens.flip(1)))
    assert num_heads(384, None) == 6
    assert num_heads(100, None) == 1
    with pytest.raises(RecipeError, match="3 heads do not divide"):
        num_heads(100, 3)


def test_pixels_are_area_means() -> None:
    pixels = torch.arange(2 * 3 * 2 * 4 * 8, dtype=torch.float32).reshape(2, 3, 2, 4, 8)
    found = PixelBaseline(4, lambda x: (x - 7) / 2)(pixels)
    expected = ((pixels - 7) / 2).reshape(2, 3, 2, 2, 2, 4, 2).mean(dim=(4, 6)).flatten(1)
    torch.testing.assert_close(found, expected)
    assert reduced_size(4, 8, 64) == (4, 8)  # never enlarged
    assert PixelBaseline(4, lambda x: x, tokens=True)(pixels).shape == (2, 1, 48)


def test_strengths_beyond_the_best_are_left_out() -> None:
    """Two in a row that do worse end the search; the best of what was tried is taken."""
    features, labels = blobs(120)
    rng = np.random.default_rng(1)
    features = np.concatenate([features, rng.normal(size=(120, 300)).astype(np.float32)], axis=1)
    options = CachedLinear(strengths=(1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6))
    probe = fit_linear(features, labels, 3, options, seed=0)
    tried = sorted(probe.accuracies)
    assert tried == sorted(options.strengths)[: len(tried)]
    best = max(probe.accuracies.values())
    assert probe.accuracies[probe.strength] == best
    if len(tried) < len(options.strengths):
        assert all(probe.accuracies[strength] < best for strength in tried[-2:])


def test_differences_are_of_neighboring_frames() -> None:
    pixels = torch.rand(2, 3, 4, 4, 8)
    small = pixels.reshape(2, 3, 4, 2, 2, 4, 2).mean(dim=(4, 6))
    expected = torch.stack([small[:, :, i + 1] - small[:, :, i] for i in range(3)], dim=2) / 2
    found = FrameDifferenceBaseline(4, lambda x: (x - 7) / 2)(pixels)
    torch.testing.assert_close(found, expected.flatten(1))


@pytest.mark.parametrize(("worth", "threads"), [(10**9, 1), (1, None)])
def test_small_fits_use_one_blas_thread(
    monkeypatch: pytest.MonkeyPatch, worth: int, threads: int | None
) -> None:
    """Two are 3.5 times slower on features as small as a quick probe's."""
    asked: list[int | None] = []
    model, warning, limits = probe_heads.library()

    def record(count: int | None, user_api: str) -> Any:
        asked.append(count)
        return limits(count, user_api=user_api)

    monkeypatch.setattr(probe_heads, "library", lambda: (model, warning, record))
    monkeypatch.setattr(probe_heads, "_WORTH_THREADS", worth)
    features, labels = blobs(60)
    fit_linear(features, labels, 3, CachedLinear(strengths=(0.01, 1.0)), seed=0)
    assert asked == [threads] * 3  # two to choose from, and the final one
