"""Crops resized without Pillow, held to Pillow's pixels."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
from benchmarks.images import photo
from PIL import Image

from maekit.data import quick_resize as module
from maekit.data.pixels import crop_resize
from maekit.data.plan import Box
from maekit.data.quick_resize import quick_resize, resizer, vertical_first

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# Height and width before and after: shrunk, enlarged, both; tall ones, which Pillow 13 resizes the
# other way round, and ones just short of that; by far; to and from a pixel; a side as it is.
SHAPES = [
    ((300, 370), (224, 224)), ((180, 200), (224, 224)), ((90, 400), (120, 160)),
    ((243, 136), (224, 216)), ((399, 205), (247, 153)), ((448, 107), (259, 44)),
    ((288, 197), (169, 128)), ((484, 344), (229, 185)), ((384, 362), (201, 241)),
    ((500, 375), (16, 16)), ((400, 9), (7, 40)), ((1, 1), (5, 7)), ((1, 30), (8, 8)),
    ((30, 1), (1, 30)), ((224, 300), (224, 224)), ((300, 224), (224, 224)), ((33, 33), (33, 33)),
]  # fmt: skip


def by_pillow(part: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    resized = Image.fromarray(part).resize(size[::-1], FILTERS[interpolation])
    return np.asarray(resized).astype(np.int16)


@pytest.fixture
def _package() -> None:
    pytest.importorskip("cykooz_resizer", reason="cykooz.resizer is not installed: Pillow resizes")


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("before", "after"), SHAPES, ids=str)
def test_pixels_are_within_rounding_of_pillows(
    before: tuple[int, int], after: tuple[int, int], interpolation: str
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*before, 3), np.uint8)
    edges = (noise > 127) * np.uint8(255)  # all that a filter overshoots is cut off
    # Each direction rounds by up to half a level otherwise; in noise one's error may add to the
    # other's.
    natural = np.ascontiguousarray(photo(500, 400, 0)[: before[0], : before[1]])
    for picture, most in ((natural, 1), (noise, 2), (edges, 2)):
        found = quick_resize(picture, after, interpolation)  # type: ignore[arg-type]
        assert found is not None
        apart = np.abs(found - by_pillow(picture, after, interpolation))
        assert apart.max() <= most
        assert (apart > 1).mean() < 1e-3


@pytest.mark.usefixtures("_package")
def test_a_crop_is_the_part_alone() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    part = np.ascontiguousarray(frame[5:45, 9:69])
    found = crop_resize(frame, Box(5, 9, 40, 60), (24, 32), "crop", "bicubic")
    np.testing.assert_array_equal(found, quick_resize(part, (24, 32), "bicubic"))
    assert np.abs(found - by_pillow(part, (24, 32), "bicubic")).max() <= 2
    assert resizer().startswith("cykooz.resizer ")


@pytest.mark.usefixtures("_package")
def test_every_processor_makes_the_same_pixels() -> None:
    from cykooz_resizer import (
        CpuExtensions,
        FilterType,
        ImageData,
        PixelType,
        ResizeAlg,
        ResizeOptions,
        Resizer,
    )

    part = np.random.default_rng(2).integers(0, 256, (90, 90, 3), np.uint8)
    engine, made = Resizer(), []
    best = engine.cpu_extensions
    way = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom), use_alpha=False)
    for extensions in (CpuExtensions.none, best):
        engine.cpu_extensions = extensions
        out = ImageData(56, 90, PixelType.U8x3)
        engine.resize(ImageData(90, 90, PixelType.U8x3, part.tobytes()), out, way)
        made.append(out.get_buffer())
    assert made[0] == made[1]


def test_pillows_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pillow", lambda: 13)
    assert vertical_first((399, 205), (247, 153))  # 152 rows, 52 columns
    assert vertical_first((300, 100), (299, 200))
    assert not vertical_first((288, 197), (188, 147))  # 100 rows, 50 columns
    assert not vertical_first((92, 60), (232, 228))
    monkeypatch.setattr(module, "_pillow", lambda: 12)
    assert not vertical_first((399, 205), (247, 153))


@pytest.mark.parametrize("interpolation", [*FILTERS, "bilinear-aliased"])
def test_without_the_package_pillow_resizes(
    interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_resizer", lambda _: None)
    frame = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
    found = crop_resize(frame, Box(5, 9, 40, 60), (24, 32), "crop", interpolation)  # type: ignore[arg-type]
    if interpolation in FILTERS:
        part = frame[5:45, 9:69]
        np.testing.assert_array_equal(found, by_pillow(part, (24, 32), interpolation))
    assert resizer() == f"Pillow {version('pillow')}"
