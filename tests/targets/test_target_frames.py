"""Which frames a target takes: the same, the middle one, or twice as many (VideoMAE table 1c)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maekit.contracts import Grid, PartContext, View
from maekit.errors import PartError
from maekit.targets.pixel import NormPixel, Pixel
from maekit.tokens import Mask

GRID = Grid(4, 2, 3)
CONTEXT = PartContext((8, 8, 12), 3, (0.4,) * 3, (0.2,) * 3, grid=GRID, patch=(2, 4, 4))


def make(kind: type[Pixel], **options: Any) -> Any:
    return kind(kind.Options.model_validate(options), CONTEXT)


def numbered(frames: int) -> torch.Tensor:
    """Make a clip whose pixels are the number of their frame."""
    clip = torch.arange(frames, dtype=torch.float32).view(1, 1, frames, 1, 1)
    return clip.expand(1, 3, frames, 8, 12) / 100


def everything() -> Mask:
    return Mask.build(torch.arange(24)[None] > 0, loss_on="all")


def test_the_middle_frame_is_one_frame_of_one_slot() -> None:
    target = make(Pixel, frames="center", space="unit")
    assert target.out_dim == 4 * 4 * 3
    assert target.views == ()
    wanted = target.wants(GRID)
    assert wanted[2].all()
    assert wanted.sum() == 6
    truth = target.encode([numbered(8)], everything())
    asked = truth[0, torch.from_numpy(wanted).reshape(-1)]
    assert torch.allclose(asked, torch.full_like(asked, 0.04))  # frame 4 of 8


def test_twice_the_frames_are_a_view_of_their_own() -> None:
    target = make(Pixel, frames="double", space="unit")
    assert target.views == (View("double", (8, 12), None, 16),)
    assert target.wants(GRID).all()
    truth = target.encode([numbered(8), numbered(16)], everything())
    frames = truth.reshape(4, 6, 4, 4, 4, 3)
    for slot in range(4):
        for place in range(4):
            assert torch.allclose(frames[slot, :, place], torch.tensor((4 * slot + place) / 100))
    painted = target.decode(truth, numbered(8), everything())
    shown = painted.reshape(4, 6, 2, 4, 4, 3)
    for slot in range(4):
        for place in range(2):
            expected = torch.tensor((4 * slot + 2 * place) / 100)
            assert torch.allclose(shown[slot, :, place], expected)


@pytest.mark.parametrize("kind", [Pixel, NormPixel])
@pytest.mark.parametrize("space", ["unit", "normalized"])
def test_decode_undoes_encode_for_every_choice(kind: type[Pixel], space: str) -> None:
    torch.manual_seed(0)
    double = torch.rand(2, 3, 16, 8, 12)
    clip = double[:, :, ::2]
    mask = Mask.build(torch.rand(2, 24).argsort(1) < 20)
    same, center, twice = (
        make(kind, frames=frames, space=space) for frames in ("same", "center", "double")
    )
    truth = same.decode(same.encode([clip], mask), clip, mask, "truth")
    middle = center.decode(center.encode([clip], mask), clip, mask, "truth")
    first = truth.unflatten(-1, (2, -1))[:, :, :1]
    assert torch.allclose(middle.unflatten(-1, (2, -1)), first.expand(-1, -1, 2, -1), atol=1e-5)
    if kind is Pixel:  # normalized ones are undone by the clip's own statistics
        again = twice.decode(twice.encode([clip, double], mask), clip, mask, "truth")
        assert torch.allclose(again, truth, atol=1e-5)


def context(frames: int, pt: int) -> PartContext:
    grid = Grid(frames // pt, 2, 3)
    return PartContext((frames, 8, 12), 3, (0.4,) * 3, (0.2,) * 3, grid=grid, patch=(pt, 4, 4))


# mae_st's own first (models_mae.py, pred_t_dim 8); by hand: (T - 1) / (F - 1) apart, rounded down.
SOME = {
    (16, 2, 8): [0, 2, 4, 6, 8, 10, 12, 15],
    (16, 4, 8): [0, 2, 4, 6, 8, 10, 12, 15],
    (12, 3, 8): [0, 1, 3, 4, 6, 7, 9, 11],
    (8, 2, 8): [0, 1, 2, 3, 4, 5, 6, 7],
    (6, 6, 1): [0],
}


@pytest.mark.parametrize(("sizes", "shown"), SOME.items())
@pytest.mark.parametrize("kind", [Pixel, NormPixel])
def test_a_number_of_frames_is_spread_over_the_clip(
    sizes: tuple[int, int, int], shown: list[int], kind: type[Pixel]
) -> None:
    """Against mae_st's formulas, written out over whole frames in float64."""
    frames, pt, count = sizes
    options = kind.Options.model_validate({"frames": count})
    target = kind(options, context(frames, pt))
    depth = count * pt // frames
    assert target.out_dim == depth * 4 * 4 * 3
    clip = torch.rand(2, 3, frames, 8, 12, generator=torch.Generator().manual_seed(0))
    tokens = frames // pt * 6
    mask = Mask.build(torch.rand(2, tokens).argsort(1) < tokens // 2)
    chosen = (clip.double()[:, :, shown] - 0.4) / 0.2
    cut = chosen.reshape(2, 3, frames // pt, depth, 2, 4, 3, 4)
    patches = torch.einsum("nctuhpwq->nthwupqc", cut).reshape(2, tokens, -1)
    if kind is NormPixel:
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        patches = (patches - mean) / (var + 1e-6) ** 0.5
    expected = torch.stack([patches[n, mask.queries[n]] for n in range(2)])
    found = target.encode([clip], mask)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    # What is painted shows each frame for its share of the slot.
    painted = target.decode(found, clip, mask, "truth")
    places = [shown[slot * depth + place * depth // pt] for slot in range(frames // pt)
              for place in range(pt)]  # fmt: skip
    whole = clip[:, :, places].reshape(2, 3, frames // pt, pt, 2, 4, 3, 4)
    still = torch.einsum("nctuhpwq->nthwupqc", whole).reshape(2, tokens, -1)
    for n in range(2):
        assert torch.allclose(painted[n], still[n, mask.queries[n]], atol=1e-5)


@pytest.mark.parametrize("count", [3, 6, 16])
def test_frames_that_slots_do_not_share_are_refused_with_those_they_do(count: int) -> None:
    with pytest.raises(PartError, match=r"4 time slots") as refused:
        make(Pixel, frames=count)
    assert "4 or 8" in str(refused.value.hint)
