"""The motion masker and the frame-difference target, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maekit.contracts import Grid, PartContext, PartError
from maekit.testing import check_masker, check_target
from maekit.tokens import Mask
from maekit_motion.masker import Motion, token_motion
from maekit_motion.target import FrameDifference

GRID = Grid(2, 2, 3)
CLIP = PartContext((4, 16, 24), 3, (0.5,) * 3, (0.2,) * 3, grid=GRID, patch=(2, 8, 8), width=8)


def moving(*places: tuple[int, int], change: int = 51) -> np.ndarray:
    """Draw 4 frames of 16 x 24 gray pixels; tokens at (row, column) change in every frame."""
    clip = np.full((4, 16, 24, 3), 100, dtype=np.uint8)
    for row, column in places:
        clip[1::2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += np.uint8(change)
    return clip


def masker(**options: object) -> Motion:
    return Motion(Motion.Options.model_validate(options))


def test_motion_is_the_mean_absolute_difference() -> None:
    motion = token_motion(moving((0, 1)), GRID)
    assert motion.shape == GRID
    expected = np.zeros(GRID, dtype=np.float32)
    expected[:, 0, 1] = 51 / 255
    np.testing.assert_allclose(motion, expected, rtol=1e-6)
    one_channel = moving((0, 1))
    one_channel[..., 1:] = 100
    np.testing.assert_allclose(token_motion(one_channel, GRID), expected / 3, rtol=1e-6)


def test_all_depths_of_pixels_give_the_same_mask() -> None:
    deep = moving((0, 0), (1, 2)).astype(np.uint16) * 257
    floats = moving((0, 0), (1, 2)).astype(np.float32) / np.float32(255)
    draws = [
        masker(ratio=0.5)(GRID, np.random.default_rng(5), pixels=pixels)
        for pixels in (moving((0, 0), (1, 2)), deep, floats)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert np.array_equal(draws[0], draws[2])


def test_great_strength_hides_exactly_what_moves() -> None:
    hard = masker(ratio=0.34, strength=60.0)
    for seed in range(20):
        mask = hard(GRID, np.random.default_rng(seed), pixels=moving((0, 2), (1, 0)))
        assert mask.sum() == hard.count(GRID) == 4
        assert mask[:, 0, 2].all()
        assert mask[:, 1, 0].all()


@pytest.mark.parametrize(("strength", "share"), [(0.0, 1 / 6), (1.0, 0.22 / (0.22 + 5 * 0.02))])
def test_odds_grow_with_motion(strength: float, share: float) -> None:
    # One of six is hidden: the first draw's chance is the token's share of all odds. It moves by
    # 51/255 = 0.2, and the floor is 0.02.
    draw = masker(ratio=0.17, strength=strength)
    rng = np.random.default_rng(0)
    hidden = [draw(GRID, rng, pixels=moving((0, 1)))[:, 0, 1] for _ in range(1000)]
    deviation = (share * (1 - share) / 2000) ** 0.5  # of 2,000 slots
    assert abs(np.mean(hidden) - share) < 4 * deviation


def test_the_same_slots_are_tubes() -> None:
    tubes = masker(ratio=0.5, slots="same")
    mask = tubes(GRID, np.random.default_rng(1), pixels=moving((0, 1)))
    assert np.array_equal(mask[0], mask[1])
    assert mask.sum() == tubes.count(GRID) == 6
    each = [masker(ratio=0.5)(GRID, np.random.default_rng(s), pixels=moving()) for s in range(20)]
    assert any(not np.array_equal(mask[0], mask[1]) for mask in each)


def test_one_frame_is_refused() -> None:
    with pytest.raises(PartError, match="one frame does not move"):
        masker()(Grid(1, 2, 3), np.random.default_rng(0), pixels=moving()[:1])
    picture = PartContext((1, 16, 24), 3, (0.5,) * 3, (0.2,) * 3, Grid(1, 2, 3), (1, 8, 8))
    with pytest.raises(PartError, match="one frame has no difference"):
        FrameDifference(FrameDifference.Options(), picture)


def views_of(clip: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(clip).permute(3, 0, 1, 2)[None].float() / 255]


def test_differences_are_to_the_next_frame() -> None:
    plain = FrameDifference(FrameDifference.Options(norm=False), CLIP)
    mask = Mask.build(torch.tensor([[True] * 6 + [False] * 6]))
    truth = plain.encode(views_of(moving((0, 1))), mask)
    assert truth.shape == (1, 6, plain.out_dim) == (1, 6, 2 * 8 * 8 * 3)
    # Frames are 100, 151, 100, 151: a token's first frame goes up, its second down.
    frames = truth[0, 1].reshape(2, 8, 8, 3)
    torch.testing.assert_close(frames[0], torch.full((8, 8, 3), 51 / 255))
    torch.testing.assert_close(frames[1], torch.full((8, 8, 3), -51 / 255))
    assert not truth[0, 0].any()
    # In the last slot the last frame repeats the difference before it: up, and up again.
    last = plain.encode(views_of(moving((0, 1))), Mask.build(torch.ones(1, 12).bool()))[0, 7]
    torch.testing.assert_close(last, torch.full((384,), 51 / 255))


def test_the_norm_leaves_still_patches_at_zero_and_moving_ones_at_one() -> None:
    normed = FrameDifference(FrameDifference.Options(), CLIP)
    mask = Mask.build(torch.tensor([[True] * 6 + [False] * 6]))
    truth = normed.encode(views_of(moving((0, 1))), mask)
    assert not truth[0, 0].any()
    deviation = 51 / 255
    scaled = deviation / (deviation**2 + 0.01**2) ** 0.5
    torch.testing.assert_close(truth[0, 1].abs(), torch.full((384,), scaled))
    pred = torch.zeros(1, 6, normed.out_dim)
    loss = normed.loss(pred, truth)
    torch.testing.assert_close(loss[0, 1], torch.tensor(scaled**2))
    assert loss[0, 0] == 0


@pytest.mark.parametrize("options", [{}, {"slots": "same", "ratio": 0.9, "strength": 3.0}])
def test_the_masker_keeps_its_promises(options: dict[str, object]) -> None:
    check_masker(Motion, options)


@pytest.mark.parametrize("options", [{}, {"norm": False}])
def test_the_target_keeps_its_promises(options: dict[str, object]) -> None:
    check_target(FrameDifference, options)
