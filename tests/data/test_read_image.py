"""Pictures of every kind: read whole, upright and at their own depth, or refused by name."""

from __future__ import annotations

import io
import lzma
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from maekit.data.files import read_bytes
from maekit.data.images import open_image, open_tiff
from maekit.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 20), dtype=np.uint16)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes, name: str = "x", **options: object) -> np.ndarray:
    opened = open_image(data, name, **options)
    pixels = opened.decode()
    head = opened.header
    assert (*pixels.shape, pixels.dtype.name) == (
        head.height,
        head.width,
        head.channels,
        head.dtype,
    )
    return pixels


def tiff(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    out = io.BytesIO()
    said = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, said)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_eight_bit_modes_as_pillow_converts_them(mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode)
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    pixels = decoded(encoded(picture, kind))
    plain = "L" if mode in ("1", "L", "LA") else "RGB"
    np.testing.assert_array_equal(np.squeeze(pixels), np.asarray(picture.convert(plain)))


def test_alpha_is_dropped_or_kept() -> None:
    rgba = np.dstack([RGB, RGB[..., :1]])
    data = encoded(Image.fromarray(rgba))
    np.testing.assert_array_equal(decoded(data), RGB)
    np.testing.assert_array_equal(decoded(data, alpha="keep"), rgba)
    gray = encoded(Image.fromarray(rgba[..., 2:], "LA"))
    np.testing.assert_array_equal(decoded(gray, alpha="keep"), rgba[..., 2:])
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RGB)), alpha="keep"), RGB)


@pytest.mark.parametrize("data", [
    encoded(Image.fromarray(DEEP)), encoded(Image.fromarray(DEEP), "TIFF"),
    encoded(Image.fromarray(DEEP), "PPM"), tiff(DEEP), tiff(DEEP, byteorder=">"),
], ids=["png", "tiff", "pgm", "tifffile", "big-endian"])  # fmt: skip
def test_sixteen_bits_stay_sixteen_bits(data: bytes) -> None:
    np.testing.assert_array_equal(decoded(data)[..., 0], DEEP)


@pytest.mark.parametrize("array", [
    RNG.integers(0, 65536, (12, 20, 3), dtype=np.uint16),
    RNG.integers(0, 256, (12, 20, 13), dtype=np.uint8),
    RNG.random((12, 20, 5), dtype=np.float32),
    RNG.random((12, 20, 3), dtype=np.float32),
    RNG.random((12, 20), dtype=np.float32) * 1000 - 500,
], ids=lambda array: f"{array.dtype}-{array.shape}")  # fmt: skip
def test_tiffs_and_arrays_of_any_channels(array: np.ndarray) -> None:
    whole = array.reshape(12, 20, -1)
    np.testing.assert_array_equal(decoded(npy(array), "x.npy"), whole)
    color = {"photometric": "rgb"} if whole.shape[2] == 3 else {"photometric": "minisblack"}
    np.testing.assert_array_equal(decoded(tiff(array, planarconfig="contig", **color)), whole)
    if array.ndim == 3:
        planes = tiff(np.moveaxis(array, -1, 0), planarconfig="separate", **color)
        np.testing.assert_array_equal(decoded(planes), whole)


def test_a_fourth_plain_band_is_not_lost() -> None:
    bands = RNG.integers(0, 256, (12, 20, 4), dtype=np.uint8)
    data = tiff(bands, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(decoded(data), bands)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_before_anything_else(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, how in (
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
    ):
        data = encoded(Image.fromarray(RGB), kind, exif=exif, **how)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(decoded(data), np.asarray(upright))
    deep = tiff(
        RGB.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, 3, 1, orientation)]
    )
    np.testing.assert_array_equal(decoded(deep) // 257, decoded(data))


def test_exif_behind_the_pixels_of_a_png_counts_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(RGB), exif=exif)
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[stop:-12] + data[start:stop] + data[-12:]
    assert open_image(moved, "x").header.height == 20
    np.testing.assert_array_equal(decoded(moved), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    "broken", [b"Exif\0\0II*\0", b"Exif\0\0junk" * 9, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_or_senseless_exif_does_not_make_a_picture_bad(broken: bytes) -> None:
    assert decoded(encoded(Image.fromarray(RGB), "JPEG", exif=broken)).shape == (12, 20, 3)
    exif = Image.Exif()
    exif[0x0112] = 42
    assert decoded(encoded(Image.fromarray(RGB), "JPEG", exif=exif)).shape == (12, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_animated_files(kind: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (255, 128, 0)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert (decoded(data) == 255).all()


TRUNCATABLE = {
    "jpg": encoded(Image.fromarray(np.tile(RGB, (20, 20, 1))), "JPEG"),
    "png": encoded(Image.fromarray(RGB)),
    "webp": encoded(Image.fromarray(RGB), "WEBP", lossless=True),
    "bmp": encoded(Image.fromarray(RGB), "BMP"),
    "tiff": encoded(Image.fromarray(RGB), "TIFF"),
    "deep.tiff": tiff(np.dstack([DEEP] * 3), photometric="rgb"),
    "npy": npy(RGB),
}


@pytest.mark.parametrize("kind", TRUNCATABLE)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused_never_half_read(kind: str, part: float) -> None:
    data = TRUNCATABLE[kind]
    assert decoded(data, f"cut.{kind}").any()
    with pytest.raises(DataError) as error:
        open_image(data[: int(len(data) * part)], f"cut.{kind}").decode()
    assert error.value.where == f"cut.{kind}"
    assert "0x7" not in error.value.what  # no addresses: a reason is the same in every run


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {
        "empty.jpg": "is empty", "dangling.jpg": "is a link to a file that does not exist",
        "pipe.jpg": "is not a regular file", "missing.jpg": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=reason) as error:
            read_bytes(str(tmp_path / name))
        assert error.value.where == str(tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        read_bytes("/dev/zero")
    for data in (b"not an image\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        with pytest.raises(DataError, match="not a picture of a known format"):
            open_image(data, "x.jpg")


@pytest.mark.parametrize(("array", "reason"), [
    (np.full((4, 4), np.nan, np.float32), "not finite"), (np.zeros((4, 4), np.int16), "type int16"),
    (np.zeros(4, np.uint8), "shape"), (np.zeros((0, 4), np.uint8), "no pixels"),
    (np.array([{}], dtype=object).reshape(1, 1), "type object"),
], ids=["nan", "int16", "vector", "empty", "object"])  # fmt: skip
def test_arrays_that_are_no_pictures(array: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_image(npy(array), "x.npy").decode()


def test_bombs_are_refused_and_large_pictures_read_in_silence() -> None:
    picture = Image.new("1", (10000, 10000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(encoded(picture), "x").header.width == 10000
        with pytest.raises(DataError, match="exceeds limit"):
            open_image(encoded(Image.new("1", (19000, 19000))), "x")
    with pytest.raises(DataError, match="more than the limit"):
        open_image(npy_header((99999, 99999), "|u1"), "x.npy")
    with pytest.raises(DataError, match="no pixels"):
        open_image(npy_header((-8, -8), "|u1"), "x.npy")


def strip_tiff(strip: bytes, compression: int, **tags: int) -> bytes:
    """Write a TIFF by hand, so that it can lie: one strip of gray, 64 x 64."""
    codes = {"width": 256, "height": 257, "bits": 258, "samples": 277, "format": 339}
    known = {codes[key]: value for key, value in tags.items()}
    every = {256: 64, 257: 64, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: 1 << 20}
    every = every | {279: len(strip), 284: 1} | known
    entries = [struct.pack("<HHII", tag, 4, 1, every[tag]) for tag in sorted(every)]
    start = struct.pack("<4sI", b"II*\0", 8 + len(strip))
    return start + strip + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("channels.tif", strip_tiff(b"x" * 99, 8, width=13300, height=13300, samples=24)),
        ("float64.tif", strip_tiff(b"x" * 99, 8, width=13300, height=13300, bits=64, format=3)),
        (
            "float32.tif",
            strip_tiff(b"x" * 99, 8, width=13300, height=13300, bits=32, samples=3, format=3),
        ),
        ("float64.npy", npy_header((13000, 13000), "<f8")),
        ("channels.npy", npy_header((9000, 9000, 90), "|u1")),
    ],
)
def test_sizes_are_known_before_memory_is_taken(name: str, data: bytes) -> None:
    with pytest.raises(DataError, match="more than the limit"):
        open_image(data, name)


@pytest.mark.parametrize("compression", [8, 34925])
def test_a_strip_that_unpacks_without_end_is_refused(compression: int) -> None:
    packer = zlib.compressobj() if compression == 8 else lzma.LZMACompressor()
    strip = b"".join(packer.compress(bytes(1 << 26)) for _ in range(14)) + packer.flush()
    _, raw = open_tiff(strip_tiff(strip, compression), "x.tif")
    with pytest.raises(ValueError, match="unpacks to more than the limit"):
        raw()


def test_files_too_large_to_be_pictures_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(DataError, match="6,442,450,944 bytes, more than the limit"):
        read_bytes(str(tmp_path / "sparse.jpg"))


@pytest.mark.parametrize("address", ["file://{}", "local://{}", "FILE://{}"])
def test_addresses_of_this_machine_are_checked_like_paths(address: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            read_bytes(address.format(place))
    (tmp_path / "a").write_bytes(b"x")
    assert read_bytes(address.format(tmp_path / "a")) == b"x"


@pytest.mark.parametrize("address", [
    "ftp://host/a.jpg", "hf://datasets/x/a.jpg", "sftp://host/a.jpg", "github://o:r@/a.jpg",
    "zip://a.jpg::ftp://host/a.zip",
])  # fmt: skip
def test_addresses_that_nobody_expects_open_no_connection(address: str) -> None:
    with pytest.raises(DataError, match="addresses are not opened"):
        read_bytes(address)


def test_archives_are_read_and_must_be_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    assert read_bytes(f"zip://a.jpg::{tmp_path}/a.zip") == b"x"
    assert read_bytes(f"zip://a.jpg::file://{tmp_path}/a.zip") == b"x"
    for place in ("/dev/zero", "file:///dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            read_bytes(f"zip://a.jpg::{place}")


def test_urls_go_through_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://set/a.png", "wb") as file:
        file.write(encoded(Image.fromarray(RGB)))
    np.testing.assert_array_equal(decoded(read_bytes("memory://set/a.png")), RGB)
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes("memory://set/missing.png")


def test_hard_files_read_as_their_manifest_says(shared_data: Path) -> None:
    folder = shared_data / "odd"
    rows = (folder / "manifest.tsv").read_text().splitlines()[1:]
    images = [row.split("\t") for row in rows if "images/" in row.split("\t")[0]]
    # Whose header reads, and whose pixels do not.
    broken = {
        "bitflip_crc.png", "truncated_half.jpg", "truncated_header.jpg",
        "pillow_broken_data_stream.png", "pillow_truncated_image.png", "pillow_truncated_jpeg.jpg",
    }  # fmt: skip
    assert len(images) > 60
    for name, observed in images:
        path = folder / name
        if observed.startswith("ERR") or path.name in broken:
            with pytest.raises(DataError):
                open_image(read_bytes(str(path)), name).decode()
        elif "12000x12000" not in name:
            mode = observed.split()[1]
            pixels = decoded(read_bytes(str(path)), name)
            gray = mode in ("1", "L", "LA", "I", "I;16", "F")
            assert pixels.shape[2] == (1 if gray else 3), name
            assert (pixels.dtype == np.uint8) == (mode not in ("I", "I;16", "F")), name
            assert pixels.shape[0] * pixels.shape[1] == np.prod(
                [int(side) for side in observed.split()[2].split("x")]
            )


def test_a_tiff_of_many_channels_is_read_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """Pillow would say of each that it cannot; a training reads them by the million."""
    array = np.zeros((12, 20, 13), np.float32)
    data = tiff(array, photometric="minisblack", planarconfig="contig")
    assert open_image(data, "many.tif").header.channels == 13
    assert not caplog.records
