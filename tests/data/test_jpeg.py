"""JPEGs decoded without Pillow: the same pixels, or left to it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from maekit.data import jpeg
from maekit.data.images import open_image
from maekit.errors import DataError


@pytest.fixture
def quick() -> None:
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: Pillow decodes JPEGs")


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Draw soft waves and hard edges, in which decoders would differ."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 7
    waves = [np.sin(x * rng.uniform(0.2, 2) + y * rng.uniform(0.2, 2)) for _ in range(3)]
    pixels = 127 + 100 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    """Decode as Pillow does by itself."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[..., None] if pixels.ndim == 2 else pixels


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("options", [
    {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"subsampling": "4:2:0"},
    {"quality": 5}, {"quality": 98}, {"progressive": True}, {"optimize": True},
    {"restart_marker_rows": 1}, {"comment": b"made here"}, {"icc_profile": b"x" * 70_000},
    {"dpi": (72, 72)}, {"keep_rgb": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_pillows(options: dict[str, object], mode: str) -> None:
    for height, width in ((16, 16), (1, 1), (37, 53), (64, 9)):
        data = encoded(picture(height, width).convert(mode), **options)
        wanted = by_pillow(data)
        assert jpeg.plain_size(data) == wanted.shape
        quick = jpeg.decode(data, *wanted.shape)
        assert quick is not None
        np.testing.assert_array_equal(quick, wanted)
        opened = open_image(data, "x")
        assert (opened.header.height, opened.header.width) == (height, width)
        np.testing.assert_array_equal(opened.decode(), wanted)


def xmp(inside: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inside}</rdf:RDF></x:xmpmeta>'.encode()


TURNED = [
    ('<rdf:Description tiff:Orientation="6"/>', (12, 8)),
    ("<tiff:Orientation>8</tiff:Orientation>", (12, 8)),
    ('<rdf:Description tiff:Orientation="3"/>', (8, 12)),
]


@pytest.mark.parametrize("there", [True, False], ids=["quick", "pillow"])
def test_xmp_alone_turns_a_picture(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package and without it, as Pillow does where there is no EXIF."""
    if not there:
        monkeypatch.setattr(jpeg, "_decoder", lambda: None)
    for inside, shape in TURNED:
        data = encoded(picture(8, 12), xmp=xmp(inside))
        opened = open_image(data, "x")
        assert (opened.header.height, opened.header.width) == shape
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(opened.decode(), np.asarray(upright))
        assert not np.array_equal(opened.decode(), by_pillow(data))


@pytest.mark.usefixtures("quick")
def test_only_xmp_before_the_frame_is_looked_at() -> None:
    words = b"tiff:Orientation"
    whole = encoded(picture(8, 12), xmp=xmp('<rdf:Description tiff:Make="x"/>'), comment=words)
    for data in (whole, whole + words):
        assert jpeg.plain_size(data) == (8, 12, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_without_the_package_pillow_reads(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "_decoder", lambda: None)
    data = encoded(picture(37, 53).convert(mode))
    assert jpeg.plain_size(data) is None
    assert jpeg.decoders()["JPEGs"].startswith("Pillow")
    opened = open_image(data, "x")
    assert (opened.header.height, opened.header.width) == (37, 53)
    wanted = by_pillow(data) if mode != "CMYK" else np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB")
    )  # fmt: skip
    np.testing.assert_array_equal(opened.decode(), wanted)
    with pytest.raises(DataError):
        open_image(data[:-400], "x").decode()


def test_what_is_more_than_a_plain_picture_is_left_to_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(8, 12), exif=exif)
    assert jpeg.plain_size(turned) is None
    assert open_image(turned, "x").decode().shape == (12, 8, 3)
    four = encoded(picture(8, 12).convert("CMYK"))
    assert jpeg.plain_size(four) is None
    assert open_image(four, "x").decode().shape == (8, 12, 3)
    several = io.BytesIO()
    picture(8, 12).save(several, "MPO", save_all=True, append_images=[picture(8, 12, 1)])
    assert jpeg.plain_size(several.getvalue()) is None
    for broken in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x01" + bytes(40), turned[:30]):
        assert jpeg.plain_size(broken) is None


def outcome(data: bytes) -> np.ndarray | str:
    try:
        return open_image(data, "x").decode()
    except DataError as error:
        return str(error)


def same_without(data: bytes, patch: pytest.MonkeyPatch) -> None:
    """Hold what comes of a file against what comes of it without the package."""
    found = outcome(data)
    with patch.context() as without:
        without.setattr(jpeg, "_decoder", lambda: None)
        wanted = outcome(data)
    assert type(found) is type(wanted), f"{found!r}, and by Pillow {wanted!r}"
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.usefixtures("quick")
def test_damage_is_judged_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    whole = [encoded(picture(40, 56)), encoded(picture(40, 56), progressive=True)]
    for _ in range(150):
        data = bytearray(whole[rng.integers(2)])
        kind = rng.integers(4)
        if kind == 0:
            del data[rng.integers(2, len(data)) :]
        elif kind == 1:
            data[rng.integers(2, len(data))] = rng.integers(256)
        elif kind == 2:
            place = rng.integers(2, len(data) - 8)
            del data[place : place + rng.integers(1, 8)]
        else:
            data += bytes(rng.integers(0, 256, 9, dtype=np.uint8))
        same_without(bytes(data), monkeypatch)


@pytest.mark.usefixtures("quick")
def test_real_pictures(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        folder: sorted(path for path in (shared_data / folder).rglob("*") if path.is_file())
        for folder in ("tiny-imagenet-20", "caltech101-24", "scene6-1500", "odd")
    }
    files = [file for each in found.values() for file in each[:: max(1, len(each) // 40)]]
    quick = 0
    for file in files:
        data = file.read_bytes()
        if data.startswith(jpeg.MAGIC):
            quick += jpeg.plain_size(data) is not None
            same_without(data, monkeypatch)
    assert quick > len(files) // 2
