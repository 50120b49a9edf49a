"""The PCA target, against scikit-learn's PCA and plain numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numerics import close

from maekit.contracts import Grid, PartContext
from maekit.errors import PartError, WeightsError
from maekit.targets.pca import PCA, Moments
from maekit.tokens import Mask, gather, patchify

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
CONTEXT = PartContext((2, 8, 12), 3, MEAN, STD, grid=Grid(1, 2, 3), patch=(2, 4, 4))


def pca(components: int = 5, context: PartContext = CONTEXT, **options: Any) -> PCA:
    return PCA(PCA.Options.model_validate({"components": components} | options), context)


@pytest.fixture
def clips() -> torch.Tensor:
    """Smooth clips: few directions matter, and no two equally."""
    torch.manual_seed(0)
    coarse = torch.rand(40, 3, 1, 3, 4)
    return torch.nn.functional.interpolate(coarse, (2, 8, 12), mode="trilinear")


def mask_of(batch: int) -> Mask:
    torch.manual_seed(1)
    return Mask.build(torch.rand(batch, 6).argsort(1) < 4)


def test_agrees_with_scikit_learn(clips: torch.Tensor) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs scikit-learn")
    target = pca()
    target.fit([[part] for part in clips.split([7, 1, 20, 12])])
    shape = (1, 3, 1, 1, 1)
    normalized = (clips.double() - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    patches = patchify(normalized, (2, 4, 4)).flatten(0, 1).numpy()
    theirs = decomposition.PCA(5, svd_solver="full").fit(patches)
    state = target.state()
    np.testing.assert_allclose(state["mean"], theirs.mean_, atol=1e-6)
    np.testing.assert_allclose(state["variance"], theirs.explained_variance_, rtol=1e-5)
    components = state["components"].numpy()
    signs = np.sign((components * theirs.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(components * signs, theirs.components_, atol=1e-5)
    mask = mask_of(40)
    truth = target.encode([clips], mask)
    expected = theirs.transform(patches).reshape(40, 6, 5) * signs[:, 0]
    expected = np.take_along_axis(expected, mask.queries[..., None].numpy(), axis=1)
    np.testing.assert_allclose(truth, expected, atol=2e-5)


def test_moments_do_not_depend_on_how_rows_come() -> None:
    rows = torch.randn(50, 4, dtype=torch.float64) + 1e6  # a sum of squares would lose it all
    moments = Moments(4)
    for part in rows.split([1, 19, 0, 30]):
        moments.add(part)
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.numpy().T), rtol=1e-6)


@pytest.mark.parametrize("space", ["unit", "normalized"])
def test_all_components_paint_the_pixels_back(clips: torch.Tensor, space: str) -> None:
    target = pca(96, space=space)
    target.fit([[clips]])
    mask = mask_of(40)
    truth = gather(patchify(clips, (2, 4, 4)), mask.queries)
    painted = target.decode(target.encode([clips], mask), clips, mask)
    np.testing.assert_allclose(painted, truth, atol=1e-4)
    few = pca(3, space=space)
    few.fit([[clips]])
    painted = few.decode(few.encode([clips], mask), clips, mask)
    mean = truth.mean(dim=(0, 1))
    assert (painted - truth).square().mean() < 0.7 * (mean - truth).square().mean()


def test_what_is_fitted_comes_back(clips: torch.Tensor) -> None:
    target, other = pca(), pca()
    target.fit([[clips]])
    other.load_state({name: tensor.clone() for name, tensor in target.state().items()})
    mask = mask_of(40)
    assert torch.equal(other.encode([clips], mask), target.encode([clips], mask))
    with pytest.raises(WeightsError, match="components"):
        pca(6).load_state(target.state())


def test_the_truth_stays_float32_under_autocast(clips: torch.Tensor) -> None:
    target = pca()
    target.fit([[clips]])
    mask = mask_of(40)
    plain = target.encode([clips], mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(target.encode([clips], mask), plain)


def test_the_middle_frame_is_fitted_to_its_own_patches() -> None:
    context = replace(CONTEXT, shape=(6, 8, 12), grid=Grid(3, 2, 3))
    target = pca(2, context, frames="center", space="unit")
    clip = torch.rand(30, 3, 6, 8, 12)
    target.fit([[clip]])
    middle = patchify(clip[:, :, 3:4], (1, 4, 4)).flatten(0, 1)
    close(target.state()["mean"], middle.mean(0), terms=30 * 6)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(PartError, match="97 components"):
        pca(97)
    with pytest.raises(WeightsError, match="not fitted"):
        pca().encode([torch.rand(1, 3, 2, 8, 12)], mask_of(1))
    with pytest.raises(PartError, match="0 patches"):
        pca().fit([])
    with pytest.raises(PartError, match="not finite"):
        pca().fit([[torch.full((1, 3, 2, 8, 12), float("nan"))]])
