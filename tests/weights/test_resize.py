"""Weights at another size: positions, their tables, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resized_models import (
    DECODER,
    FIXED,
    IMAGE,
    KINDS,
    VIDEO,
    bicubic,
    everything,
    header,
    moved,
    run,
    saved,
    trained,
)

import maekit
from maekit.engine.build import build_model, compatible_header, load_into, load_model
from maekit.errors import PartError, WeightsError
from maekit.grid import Grid
from maekit.layers import resample_rows, sincos_1d
from maekit.weights.importer import ImportReport, Weights
from maekit.weights.safetensors_io import model_tensors, read_header

grids = st.builds(Grid, st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))


@given(old=grids, new=grids, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_rows_are_resampled_as_torch_does_it(old: Grid, new: Grid, seed: int) -> None:
    rows = torch.randn(old.tokens, 3, generator=torch.Generator().manual_seed(seed))
    ours = resample_rows(rows, old, new)
    torch.testing.assert_close(ours, bicubic(rows, old, new), atol=1e-5, rtol=1e-5)


def test_rows_are_resampled_as_timm_does_it() -> None:
    """timm smooths unless told not to; then it is MAE's interpolation, prefix kept."""
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 1 + 14 * 14, 8)
    theirs = resample_abs_pos_embed(table, new_size=[10, 18], old_size=[14, 14], antialias=False)
    ours = resample_rows(table[0, 1:], Grid(1, 14, 14), Grid(1, 10, 18))
    torch.testing.assert_close(ours, theirs[0, 1:], atol=1e-6, rtol=1e-5)
    assert torch.equal(theirs[0, :1], table[0, :1])


@given(
    clip=st.tuples(*(st.integers(1, 3),) * 3),
    patch=st.tuples(*(st.integers(1, 3),) * 3),
    kind=st.sampled_from(KINDS),
    class_token=st.booleans(),
)
@settings(max_examples=30)
def test_the_same_size_is_bit_equal(
    clip: tuple[int, int, int], patch: tuple[int, int, int], kind: str, class_token: bool
) -> None:
    pixels = tuple(4 * cells * size for cells, size in zip(clip, patch, strict=True))
    options = {"patch": list(patch), "positions": kind, "class_token": class_token}
    described = header(pixels, VIDEO | options, decoder=DECODER | {"positions": kind})  # type: ignore[arg-type]
    before = trained(described)
    agreed, fresh = compatible_header(described, described, "weights")
    assert fresh is None
    for part in (agreed.backbone, agreed.decoder):
        assert part is not None
        assert part.written.get("positions_grid") is None
    after = build_model(agreed, seed=5)
    assert (
        load_into(
            after,
            Weights(described, model_tensors(before), "weights", ImportReport("maekit", 0)),
            None,
        )
        == []
    )
    ours, theirs = everything(after), everything(before)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [False, True])
def test_a_clip_of_another_size_and_length(tmp_path: Path, kind: str, prefix: bool) -> None:
    """224 x 224 to 160 x 288 and 16 to 32 frames; saved and loaded again, bit-equal."""
    backbone = VIDEO | {"patch": [2, 16, 16], "positions": kind, "class_token": prefix}
    described = header((16, 224, 224), backbone, decoder=DECODER | {"positions": kind})
    source = trained(described)
    path = saved(tmp_path / "old.safetensors", described, source)
    model, resized = load_model(path, clip=(32, 160, 288))
    old, new = Grid(8, 14, 14), Grid(16, 10, 18)
    assert model.grid == resized.grid == new
    for part in ("backbone", "decoder"):
        table = getattr(model, part).positions()
        was = getattr(source, part).positions()
        expected = torch.cat([was[:prefix], bicubic(was[prefix:], old, new)])
        torch.testing.assert_close(table, expected, atol=1e-5, rtol=1e-5)
    again_path = saved(tmp_path / "new.safetensors", resized, model)
    again, described_again = load_model(again_path)
    assert described_again == resized == read_header(again_path)
    ours, theirs = everything(again), everything(model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(run(again), run(model))


def test_an_image_model_at_another_size(tmp_path: Path) -> None:
    described = header((1, 224, 224), IMAGE | {"patch": 16})
    path = saved(tmp_path / "w.safetensors", described)
    model = maekit.load(path, clip=(1, 160, 288))
    assert model.grid == Grid(1, 10, 18)
    run(model)
    table = trained(described).state_dict()["backbone.positions.table"]
    resized = model.state_dict()["backbone.positions.table"]
    assert torch.equal(resized[:, :1], table[:, :1])
    expected = bicubic(table[0, 1:], Grid(1, 14, 14), Grid(1, 10, 18))
    torch.testing.assert_close(resized[0, 1:], expected, atol=1e-6, rtol=1e-5)


def test_a_chain_of_sizes_resizes_a_fixed_table_from_the_first(tmp_path: Path) -> None:
    described = header((8, 32, 48), VIDEO | {"positions": "sincos-1d"})
    path = saved(tmp_path / "a.safetensors", described)
    smaller, first = load_model(path, clip=(4, 16, 24))
    assert first.backbone.written["positions_grid"] == [4, 4, 6]
    assert first.decoder is not None
    assert first.decoder.written["positions_grid"] == [4, 4, 6]
    back, second = load_model(saved(tmp_path / "b.safetensors", first, smaller), clip=(8, 32, 48))
    assert second.backbone.written["positions_grid"] is None
    torch.testing.assert_close(
        back.backbone.positions(), sincos_1d(Grid(4, 4, 6), 24), atol=0, rtol=0
    )


@pytest.mark.parametrize("kind", sorted(FIXED))
@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("part", ["backbone", "decoder"])
def test_a_fixed_table_is_rebuilt_where_that_is_asked_for(
    tmp_path: Path, kind: str, prefix: bool, part: str
) -> None:
    """VideoMAE's code makes its table for whatever it runs at; the other part is resampled."""
    backbone = VIDEO | {"positions": kind, "class_token": prefix}
    decoder = DECODER | {"positions": kind}
    old, new = Grid(2, 4, 6), Grid(4, 2, 3)
    described = header((4, 32, 48), backbone, decoder=decoder)
    anew = {"resize_positions": "rebuild"}
    asked = header(
        (8, 16, 24),
        backbone | (anew if part == "backbone" else {}),
        decoder=decoder | (anew if part == "decoder" else {}),
    )
    agreed, _ = compatible_header(described, asked, "weights")
    model = moved(described, asked)
    for each, width in (("backbone", 24), ("decoder", 12)):
        rows = getattr(model, each).positions()[prefix:]
        made = FIXED[kind](new, width)
        if each == part:
            assert torch.equal(rows, made)
            assert getattr(agreed, each).written["positions_grid"] is None
        else:
            torch.testing.assert_close(
                rows, bicubic(FIXED[kind](old, width), old, new), atol=1e-5, rtol=1e-5
            )
            assert not torch.allclose(rows, made, atol=1e-2)
    run(model)
    # What was trained so is loaded as it is.
    path = saved(tmp_path / "w.safetensors", agreed, model)
    again, _ = load_model(path)
    assert torch.equal(getattr(again, part).positions(), getattr(model, part).positions())
    assert torch.equal(run(again), run(model))


def test_what_was_trained_is_not_rebuilt() -> None:
    for kind in ("learned", "learned-separable"):
        backbone = VIDEO | {"positions": kind}
        described = header((4, 32, 48), backbone)
        asked = header((4, 16, 24), backbone | {"resize_positions": "rebuild"})
        with pytest.raises(WeightsError, match=r"resize_positions: .* as they are trained"):
            compatible_header(described, asked, "weights")
        # At the size of the weights there is nothing to rebuild.
        same_size = header((4, 32, 48), backbone | {"resize_positions": "rebuild"})
        compatible_header(described, same_size, "weights")
    grid = VIDEO | {"resize_positions": "rebuild", "positions_grid": [2, 4, 6]}
    with pytest.raises(WeightsError, match="contradict each other"):
        compatible_header(header((4, 32, 48), VIDEO), header((4, 16, 24), grid), "weights")


def test_a_decoder_keeps_the_kind_that_followed_from_one_slot(tmp_path: Path) -> None:
    described = header((2, 16, 24), VIDEO)
    path = saved(tmp_path / "w.safetensors", described)
    model, resized = load_model(path, clip=(8, 16, 24))
    assert resized.decoder is not None
    assert resized.decoder.written["positions"] == "sincos-2d"
    assert model.decoder is not None
    run(model)


def test_changes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path / "w.safetensors", header((4, 16, 24), VIDEO))
    with caplog.at_level("INFO", logger="maekit"):
        load_model(path)
        assert caplog.messages == []
        load_model(path, clip=(8, 32, 24))
    assert caplog.messages == [
        f"{part}.positions: 2x2x3 to 4x4x3, bicubic in space, linear in time, "
        "from the table made for 2x2x3"
        for part in ("backbone", "decoder")
    ]


def test_a_clip_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", header((4, 16, 24), VIDEO))
    with pytest.raises(PartError, match="does not divide"):
        load_model(path, clip=(4, 17, 24))
    image = saved(tmp_path / "i.safetensors", header((1, 16, 24), IMAGE))
    with pytest.raises(PartError, match="one frame"):
        load_model(image, clip=(4, 16, 24))
