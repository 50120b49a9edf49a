"""Boxes pooled from an encoder's tokens: worked examples, torchvision's gradients, symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import close, vit_terms
from torch import Tensor, nn
from torchvision.ops import roi_align
from toys import model

from maekit.contracts import Backbone, Encoded, Grid
from maekit.evaluate.classifier import make_head
from maekit.evaluate.detection.detector import Detector, box_cells, padded, pooled
from maekit.layers import Positions, Statistics, resample_rows, sincos_1d
from maekit.tokens import Mask, patchify
from maekit.weights.header import RoI

VIDEO = {"name": "video-vit", "size": "tiny", "width": 32, "depth": 2, "heads": 2}
CLIP = (4, 32, 32)


def detector() -> Detector:
    torch.manual_seed(0)
    head = make_head(32, 6, init_std=0.5)
    small = model(CLIP, **VIDEO | {"patch": (2, 8, 8)})
    return Detector.of(small, head, RoI(bins=3)).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


BOXES = [np.array([[0.1, 0.2, 0.6, 0.9], [0.5, 0.0, 1.0, 1.0]]), np.array([[0.3, 0.3, 0.4, 0.4]])]


@pytest.mark.parametrize(
    ("box", "aligned", "expected"),
    [
        ((0, 0, 64, 64), False, [5.0, 6.75, 12.0, 13.75]),
        ((0, 0, 64, 64), True, [2.5, 4.5, 10.5, 12.5]),
        ((20, 20, 20, 20), False, [7.5, 8.0, 9.5, 10.0]),  # its size is taken for a cell
        ((20, 20, 20, 20), True, [0.0] * 4),
        ((200, 200, 240, 240), False, [0.0] * 4),
        ((200, 200, 240, 240), True, [0.0] * 4),
    ],
)
def test_worked_examples(box: tuple[int, ...], aligned: bool, expected: list[float]) -> None:
    plane = torch.arange(16.0).view(1, 1, 4, 4)
    corners = [np.array([box]) / 64]
    cells = box_cells(corners, (64, 64), (16, 16), inclusive=False)
    found = pooled(plane, cells, RoI(bins=2, aligned=aligned))
    assert found.flatten().tolist() == expected


def test_a_box_ends_at_its_last_pixel_as_in_the_official_code() -> None:
    """AlphAction's: x2 = x + max(w - 1, 0); a box without extent stays where it is."""
    corners = [np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.5, 0.5]])]
    cells = box_cells(corners, (64, 128), (16, 16), inclusive=True)
    assert cells.tolist() == [[0, 0, 0, 63 / 16, 63 / 16], [0, 4, 2, 4, 2]]


@pytest.mark.parametrize("aligned", [True, False])
def test_values_and_gradients_are_torchvision_s(aligned: bool) -> None:
    plane = noise(2, 5, 6, 8).requires_grad_()
    cells = box_cells(BOXES, (96, 128), (16, 16), inclusive=False)
    ours = pooled(plane, cells, RoI(bins=3, aligned=aligned))
    pixels = [torch.tensor(each * [128, 96, 128, 96], dtype=torch.float32) for each in BOXES]
    theirs = roi_align(plane, pixels, 3, spatial_scale=1 / 16, sampling_ratio=0, aligned=aligned)
    close(ours, theirs, terms=64)
    weight = noise(*ours.shape)
    (one,), (other,) = (
        torch.autograd.grad((each * weight).sum(), plane) for each in (ours, theirs)
    )
    close(one, other, terms=64)


one_box = st.tuples(*[st.floats(-0.25, 1.25, width=32)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(one_box, max_size=3), min_size=1, max_size=3),
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.integers(1, 7),
    st.booleans(),
)
def test_any_boxes_are_pooled_as_torchvision_does(
    boxes: list[list[tuple[float, ...]]], grid: tuple[int, int], bins: int, aligned: bool
) -> None:
    """Also those without extent, outside of the picture, and none at all."""
    high, wide = (16 * side for side in grid)
    corners = [np.array(each, np.float64).reshape(-1, 4) for each in boxes]
    plane = noise(len(corners), 2, *grid)
    cells = box_cells(corners, (high, wide), (16, 16), inclusive=False)
    pixels = [torch.from_numpy(each * [wide, high, wide, high]).float() for each in corners]
    theirs = roi_align(plane, pixels, bins, spatial_scale=1 / 16, sampling_ratio=0, aligned=aligned)
    ours = pooled(plane, cells, RoI(bins=bins, aligned=aligned))
    # A bin is a mean over what it covers, each of it of four cells.
    assert ours.shape == theirs.shape == (sum(map(len, boxes)), 2, bins, bins)
    if len(ours):
        close(ours, theirs, terms=4 * 16, scale=float(plane.abs().max()))


def test_pooling_is_in_float32_under_autocast_and_takes_no_boxes() -> None:
    plane = noise(1, 4, 6, 6).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = pooled(plane, box_cells([BOXES[0]], (96, 96), (16, 16), inclusive=True), RoI())
        none = pooled(plane, box_cells([], (96, 96), (16, 16), inclusive=True), RoI())
    assert found.dtype == torch.float32
    assert none.shape == (0, 4, 7, 7)
    none.sum().backward()
    assert plane.grad is not None


@torch.no_grad()
def test_tokens_are_normalized_then_averaged_over_time_then_pooled() -> None:
    one = detector()
    chosen = one.backbone.last_norm()
    assert chosen is not None
    nn.init.normal_(chosen.weight)  # type: ignore[arg-type]
    nn.init.normal_(chosen.bias)  # type: ignore[arg-type]
    pixels = noise(2, 3, *CLIP)
    last = one.backbone(pixels, Mask.nothing_hidden(2, 32), layers=(1,)).layers[0]
    plane = chosen(last).view(2, 2, 4, 4, 32).mean(1).permute(0, 3, 1, 2)
    cells = one.cells(BOXES, (32, 32))
    bins = roi_align(plane, cells, 3)
    expected = one.head(bins.amax((2, 3)))
    torch.testing.assert_close(one(pixels, cells), expected)
    assert expected.std(dim=0).min() > 0.01  # the boxes matter


@torch.no_grad()
def test_positions_are_resized_to_any_grid_slot_by_slot() -> None:
    """VideoMAE-Action-Detection: bicubic over each time slot of the table of 14 x 14."""
    one = detector().backbone
    wide = noise(1, 3, 4, 32, 56)
    tokens = one(wide, Mask.nothing_hidden(1, 56)).tokens
    assert tokens.shape == (1, 56, 32)
    grid, own = Grid(2, 4, 7), Grid(2, 4, 4)
    table = sincos_1d(own, 32).view(2, 4, 4, 32).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(table, (4, 7), mode="bicubic", align_corners=False)
    rows = one.positions(grid)  # type: ignore[operator]
    torch.testing.assert_close(rows, expected.permute(0, 2, 3, 1).reshape(56, 32))
    with pytest.raises(ValueError, match="do not make the model's grid"):
        one(wide, Mask.nothing_hidden(1, 32))
    with pytest.raises(ValueError, match="do not make the model's grid"):
        one(noise(1, 3, 8, 32, 32), Mask.nothing_hidden(1, 64))


@pytest.mark.parametrize("kind", ["learned", "learned-separable", "sincos-2d", "sincos-3d"])
def test_positions_of_all_kinds_are_resized(kind: str) -> None:
    own, other = Grid(2, 3, 4), Grid(2, 5, 6)
    positions = Positions(kind, own, 12, prefix=1)  # type: ignore[arg-type]
    rows = positions(other)
    assert rows.shape == (61, 12)
    torch.testing.assert_close(rows[0], positions()[0])
    torch.testing.assert_close(rows[1:], resample_rows(positions()[1:], own, other))
    if kind.startswith("learned"):
        rows.sum().backward()
        assert all(each.grad is not None for each in positions.parameters())


def test_a_fixed_table_is_resized_from_the_grid_that_it_was_made_for() -> None:
    """Weights of 14 x 14 in a model of 20 x 20, shown a clip of 14 x 14: the first table again."""
    first, own = Grid(2, 14, 14), Grid(2, 20, 20)
    positions = Positions("sincos-1d", own, 16, made_for=first)
    torch.testing.assert_close(positions(first), sincos_1d(first, 16))
    assert not torch.allclose(positions(own), sincos_1d(own, 16))


class Flat(Backbone, nn.Module):
    """Each token is its patch's mean color, squared in some: it does not know left from right."""

    width, patch, any_grid = 6, (2, 8, 8), True

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(
        self, pixels: Tensor, mask: Mask, layers: object = (), attention: bool = False
    ) -> Encoded:
        patches = patchify(pixels, self.patch).unflatten(2, (-1, 3)).mean(2)
        tokens = torch.cat([patches, patches**2], dim=-1)
        return Encoded(self.norm(tokens), (tokens,))

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        return Grid(shape[0] // 2, shape[1] // 8, shape[2] // 8)

    def blocks(self) -> list[nn.Module]:
        return [self.norm]

    def layer_of(self, parameter: str) -> int:
        return 1

    def last_norm(self) -> nn.Module:
        return self.norm


def flat(roi: RoI) -> Detector:
    torch.manual_seed(0)
    statistics = Statistics((0.5,) * 3, (0.2,) * 3)
    head = make_head(6, 4, init_std=0.5)
    return Detector(Flat(), head, roi, clip=CLIP, statistics=statistics).eval()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_a_flip_of_pixels_and_boxes_changes_nothing(seed: int, inclusive: bool) -> None:
    """Where cells are shifted by half of one; the official code's are not, and differ."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 0.8, (4, 2))
    corners = np.concatenate([first, first + rng.uniform(0.02, 0.2, (4, 2))], axis=1)
    mirrored = np.stack([1 - corners[:, 2], corners[:, 1], 1 - corners[:, 0], corners[:, 3]], 1)
    pixels = torch.from_numpy(rng.random((1, 3, 4, 32, 48))).float()
    one = flat(RoI(bins=3, aligned=True, inclusive=False))
    with torch.no_grad():
        scores = one(pixels, one.cells([corners], (32, 48))).sigmoid()
        other = one(pixels.flip(-1), one.cells([mirrored], (32, 48))).sigmoid()
    assert (scores - other).abs().max() <= 1e-5


def test_the_official_pooling_is_not_symmetric() -> None:
    """RoIAlign with aligned=False reads half a cell to the right of where a box is."""
    one = flat(RoI(bins=3))
    pixels = noise(1, 3, 4, 32, 48)
    box, mirrored = (np.array([[x, 0.1, x + 0.4, 0.9]]) for x in (0.1, 0.5))
    with torch.no_grad():
        scores = one(pixels, one.cells([box], (32, 48)))
        other = one(pixels.flip(-1), one.cells([mirrored], (32, 48)))
    assert (scores - other).abs().max() > 1e-2


@torch.no_grad()
def test_a_clip_has_the_same_scores_alone_and_in_a_batch() -> None:
    one = detector()
    pixels = noise(3, 3, 4, 32, 48)
    together = one(pixels, one.cells([BOXES[0], BOXES[1], BOXES[0]], (32, 48)))
    alone = one(pixels[:1], one.cells(BOXES[:1], (32, 48)))
    close(together[:2], alone, terms=vit_terms(384, 32, 2, 48) + 32)


@torch.no_grad()
def test_official_padding_lets_a_wider_clip_change_the_scores() -> None:
    """Padding takes part in attention: that is why clips of one grid are tested together here."""
    one = detector()
    pixels, cells = noise(1, 3, 4, 32, 44), one.cells(BOXES[:1], (32, 44))
    alone = padded(pixels, (8, 8))
    beside = padded(pixels, (8, 8), (32, 60))
    assert (alone.shape[-2:], beside.shape[-2:]) == ((32, 48), (32, 64))
    assert (beside[..., 44:] == 0).all()
    torch.testing.assert_close(beside[..., :44], pixels)
    assert (one(alone, cells) - one(beside, cells)).abs().max() > 1e-3


def test_dropout_of_bins_is_before_the_largest_is_taken() -> None:
    torch.manual_seed(0)
    head = nn.Identity()
    one = Detector.of(
        model(CLIP, **VIDEO | {"patch": (2, 8, 8)}),
        head,
        RoI(bins=3),
        bins_dropout=0.5,
    )
    pixels, cells = noise(1, 3, *CLIP), one.cells(BOXES[:1], (32, 32))
    plain = pooled(one.plane(pixels), cells, one.roi).amax((2, 3))
    torch.testing.assert_close(one.eval()(pixels, cells), plain)
    dropped = one.train()(pixels, cells)
    # What is kept is doubled; where the largest bin is dropped, another one or 0 is the largest.
    assert (dropped >= 0).all()
    assert ((dropped == 0) | (dropped <= 2 * plain.abs())).all()
    assert not torch.equal(dropped, plain)
