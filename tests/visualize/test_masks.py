"""What is hidden: keyed by seed and name, complementary, painted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maekit.data.plan import Box
from maekit.errors import DataError, RecipeError
from maekit.grid import Grid
from maekit.recipe.schema import MaskerSpec
from maekit.visualize.masks import MaskerMasks, MaskInput, PictureMask, complementary

GRID = Grid(1, 4, 6)


def mask_input(name: str = "a.png", size: tuple[int, int] = (32, 48)) -> MaskInput:
    return MaskInput(name, 0, np.zeros((1, 32, 48, 3), np.uint8), Box(0, 0, 32, 48), size)


def test_same_seed_and_name_same_mask_wherever_the_file_lies() -> None:
    spec = MaskerSpec.model_validate({"name": "random", "ratio": 0.5})

    def drawn(seed: int, name: str) -> np.ndarray:
        [row] = MaskerMasks([spec], seed).draw(mask_input(name), GRID, (1, 1, 1))
        return row.passes[0].hidden

    assert np.array_equal(drawn(0, "a.png"), drawn(0, "elsewhere/a.png"))
    assert not np.array_equal(drawn(0, "a.png"), drawn(1, "a.png"))
    assert not np.array_equal(drawn(0, "a.png"), drawn(0, "b.png"))
    assert drawn(0, "a.png").sum() == 12


@given(
    cells=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 5)),
    unit=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
    kind=st.sampled_from(["any", "tube", "frame"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_complementary_masks_ask_for_every_token_once(
    cells: tuple[int, int, int], unit: tuple[int, int, int], kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = {"any": cells, "tube": (1, *cells[1:]), "frame": (cells[0] + 1, 1, 1)}[kind]
    count = int(rng.integers(1, np.prod(shape)))
    chosen = (rng.permutation(int(np.prod(shape))) < count).reshape(shape)
    units = np.broadcast_to(chosen, (shape[0] if kind == "frame" else cells[0], *cells[1:]))
    hidden = units
    for axis, times in enumerate(unit):
        hidden = hidden.repeat(times, axis=axis)
    grid = Grid(*hidden.shape)
    passes = complementary(hidden.reshape(-1), grid, unit, rng)
    assert (sum(each.predicted.astype(int) for each in passes) == 1).all()
    assert {int(each.hidden.sum()) for each in passes} == {int(hidden.sum())}
    assert len(passes) == -(-hidden.size // int(hidden.sum()))
    for each in passes:
        assert (each.hidden >= each.predicted).all()
        if kind == "tube":
            slots = each.hidden.reshape(grid)
            assert (slots == slots[:1]).all()


def test_a_picture_hides_what_is_white_at_any_size(tmp_path: Path) -> None:
    pixels = np.zeros((40, 30, 3), np.uint8)
    pixels[:20, :15] = 255  # a quarter of it: 2 x 3 tokens of 4 x 6
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    expected = np.zeros((4, 6), bool)
    expected[:2, :3] = True
    masks = PictureMask(tmp_path / "mask.png")
    for frames in (1, 3):
        [row] = masks.draw(mask_input(), Grid(frames, 4, 6), (1, 1, 1))
        hidden = row.passes[0].hidden.reshape(frames, 4, 6)
        assert np.array_equal(hidden, np.broadcast_to(expected, hidden.shape))


def test_a_picture_as_large_as_the_input_is_cut_as_the_input_is(tmp_path: Path) -> None:
    pixels = np.zeros((32, 100), np.uint8)
    pixels[:, :34] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    masks = PictureMask(tmp_path / "mask.png")
    cut = MaskInput("a", 0, np.zeros((1, 32, 48, 3)), Box(0, 26, 32, 48), (32, 100))
    [row] = masks.draw(cut, GRID, (1, 1, 1))
    assert row.passes[0].hidden.reshape(4, 6)[:, 0].all()
    assert row.passes[0].hidden.sum() == 4
    outside = MaskInput("a", 0, np.zeros((1, 32, 48, 3)), Box(0, 40, 32, 48), (32, 100))
    with pytest.raises(DataError, match="hides nothing"):
        masks.draw(outside, GRID, (1, 1, 1))


@pytest.mark.parametrize(("level", "what"), [(0, "nothing"), (255, "everything")])
def test_a_picture_of_one_color_is_refused(tmp_path: Path, level: int, what: str) -> None:
    Image.new("L", (9, 9), level).save(tmp_path / "mask.png")
    with pytest.raises(RecipeError, match=f"hides {what}"):
        PictureMask(tmp_path / "mask.png")
    with pytest.raises(RecipeError, match="no such file"):
        PictureMask(tmp_path / "none.png")
