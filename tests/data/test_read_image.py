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
from PIL import Image, ImageOps, PngImagePlugin

from maekit.data.files import read_bytes
from maekit.data.images import open_image
from maekit.data.tiffs import open_tiff
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
    (np.full((4, 4), np.nan, np.float32), "not finite"),
    (np.zeros((4, 4), np.complex64), "type complex64"),
    (np.zeros(4, np.uint8), "shape"), (np.zeros((0, 4), np.uint8), "no pixels"),
    (np.array([{}], dtype=object).reshape(1, 1), "type object"),
], ids=["nan", "complex", "vector", "empty", "object"])  # fmt: skip
def test_arrays_that_are_no_pictures(array: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_image(npy(array), "x.npy").decode()


def png_of(width: int, height: int, bits: int = 1) -> bytes:
    """Return a PNG that says to be so large."""
    data = encoded(Image.new("1", (8, 8)))
    head = b"IHDR" + struct.pack(">II5B", width, height, bits, 0, 0, 0, 0)
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def test_the_limit_is_of_memory_and_large_pictures_are_read_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow's own limit, of pixels, turns good pictures away; it stays as it was for others."""
    large = encoded(Image.fromarray(RGB))
    for kind in ("TIFF", "GIF", "BMP", "WEBP"):
        encoded(Image.fromarray(RGB), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(png_of(19000, 19000), "x").header.width == 19000
        with pytest.raises(DataError, match=r"30000 x 30000 x 1 values .* more than the limit"):
            open_image(png_of(30000, 30000), "x")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        with pytest.raises(Image.DecompressionBombError):
            Image.open(io.BytesIO(large))
        for kind in ("PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM"):
            assert decoded(encoded(Image.fromarray(RGB), kind)).shape == (12, 20, 3), kind
    with pytest.raises(DataError):
        open_image(b"junk", "x")
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(DataError, match="more than the limit"):
        open_image(npy_header((99999, 99999), "|u1"), "x.npy")
    with pytest.raises(DataError, match="no pixels"):
        open_image(npy_header((-8, -8), "|u1"), "x.npy")


@pytest.mark.parametrize("kind", ["text", "compressed text", "much text", "a color profile"])
def test_pngs_with_more_text_than_pillow_takes_are_read(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text, more = PngImagePlugin.PngInfo(), {}
    if kind == "much text":
        for number in range(70):
            text.add_text(f"part {number}", "x" * 1_000_000, zip=True)
    elif kind == "a color profile":
        more = {"icc_profile": bytes(3 << 20)}
    else:
        text.add_text("workflow", "x" * (3 << 20), zip=kind == "compressed text")
    data = encoded(Image.fromarray(RGB), pnginfo=text, exif=exif, **more)
    if kind != "text":  # which Pillow takes whole
        with pytest.raises(ValueError, match=r"(?i)text"):
            Image.open(io.BytesIO(data)).load()
    np.testing.assert_array_equal(decoded(data), np.rot90(RGB, -1))
    with pytest.raises(DataError):  # what is broken is still refused
        open_image(data[: data.index(b"IDAT") + 40], "x").decode()


SIGNED = RNG.integers(-3000, 3000, (12, 20), dtype=np.int16)
INTEGERS = [
    SIGNED, SIGNED.astype(np.int32) * 70000, SIGNED.astype(np.int8), SIGNED.astype(np.int64),
    RNG.integers(0, 2**32, (12, 20), dtype=np.uint32), SIGNED.astype(np.float16),
    RNG.integers(-9, 9, (12, 20, 3), dtype=np.int16),
    RNG.integers(0, 9, (12, 20, 4), dtype=np.uint32), SIGNED.astype(">i2"),
    SIGNED.astype(np.float32) / 7, SIGNED.astype(np.float64) / 8,
]  # fmt: skip


@pytest.mark.parametrize("array", INTEGERS, ids=lambda array: f"{array.dtype}-{array.ndim}")
def test_integers_without_a_white_are_read_as_they_stand(array: np.ndarray) -> None:
    """As floats: their range is not that of their type, which data.range or data.stats say."""
    whole = array.reshape(12, 20, -1).astype(np.float32)
    files = [(npy(array), "x.npy")]
    how = {"photometric": "minisblack"} | ({"planarconfig": "contig"} if array.ndim == 3 else {})
    if array.dtype.itemsize < 8:
        for order in "<>":
            files += [(tiff(array, byteorder=order, **how), "x.tif")]
            files += [(tiff(array, byteorder=order, compression="zlib", **how), "x.tif")]
    if array.dtype == np.int32:
        files.append((encoded(Image.fromarray(array), "TIFF"), "x.tif"))
    for data, name in files:
        pixels = decoded(data, name)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 1), (12, 20, 3)])
def test_black_and_white_arrays_are_pictures(shape: tuple[int, ...]) -> None:
    array = RNG.random(shape) > 0.5
    np.testing.assert_array_equal(
        decoded(npy(array), "x.npy"), array.reshape(12, 20, -1).astype(np.uint8) * 255
    )


PACKED = ["lzw", "zstd", "lerc", "jpegxl", "png", "deflate", "lzma", "packbits"]


@pytest.mark.parametrize("packed", PACKED)
def test_tiffs_of_any_compression(packed: str) -> None:
    """16-bit colors, which Pillow does not read: imagecodecs unpacks them."""
    pytest.importorskip("imagecodecs", reason="the extra `tiff` brings it")
    array = RNG.integers(0, 65536, (64, 48, 3), dtype=np.uint16)
    how = {"photometric": "rgb", "compression": packed}
    if packed in ("lzw", "zstd", "deflate"):
        how |= {"tile": (16, 16), "predictor": True}
    data = tiff(array, **how)
    np.testing.assert_array_equal(decoded(data), array)
    flat = tiff(array[..., 0], **(how | {"photometric": "minisblack"}))
    np.testing.assert_array_equal(decoded(flat)[..., 0], array[..., 0])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        start, size = page.dataoffsets[-1], page.databytecounts[-1]
    broken = bytearray(data)
    broken[start + size // 2 : start + size] = bytes(size - size // 2)
    if packed not in ("packbits", "zstd"):  # where zeros are as good as anything
        with pytest.raises(DataError, match="cannot be decoded"):
            open_image(bytes(broken), "x.tif").decode()


def test_eight_bit_tiffs_that_pillow_cannot_unpack() -> None:
    pytest.importorskip("imagecodecs", reason="the extra `tiff` brings it")
    for packed in ("webp", "jpeg2000", "lerc", "jpegxl"):
        lossless = {"compressionargs": {"lossless": True}} if packed == "webp" else {}
        data = tiff(RGB, photometric="rgb", compression=packed, **lossless)
        with pytest.raises(Exception, match=r".*"):
            Image.open(io.BytesIO(data)).load()
        pixels = decoded(data).astype(int)
        assert np.abs(pixels - RGB).max() < (1 if packed != "jpeg2000" else 8), packed


def test_a_missing_codec_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = strip_tiff(b"x" * 4096, 34887)  # LERC
    plain = "<COMPRESSION.LERC: 34887> requires the 'imagecodecs' package"
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: (_ for _ in ()).throw(
        ValueError(plain)
    ))  # fmt: skip
    with pytest.raises(DataError, match=r"imagecodecs.*LERC") as error:
        open_image(data, "x.tif").decode()
    assert error.value.hint == "pip install 'maekit[tiff]'"


def stack(*arrays: np.ndarray, big: bool = False, **first: object) -> bytes:
    """Write a TIFF of several pages."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, bigtiff=big) as writer:
        for number, array in enumerate(arrays):
            color = "rgb" if array.shape[-1] == 3 else "minisblack"
            writer.write(array, photometric=color, metadata=None, **(first if number == 0 else {}))
    return out.getvalue()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_pages_of_a_tiff(big: bool, kind: type) -> None:
    pages = [np.full((8, 6 + number, 3), number + 1, kind) for number in range(5)]
    first = open_image(stack(*pages, big=big), "x.tif")
    assert first.pages.count == 5
    for number in (3, 0, 4, 4, 1):
        np.testing.assert_array_equal(first.page(number).decode(), pages[number])
    for number in (5, -1):
        with pytest.raises(DataError, match=f"has 5 pages, none of number {number}"):
            first.page(number)


def test_pages_that_repeat_another_one_do_not_count() -> None:
    """Overviews and masks, as GeoTIFFs and slides have them behind each picture."""
    whole, other = RGB, np.full((12, 20, 3), 9, np.uint8)
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for array, kind in ((whole, 0), (whole[::2, ::2], 1), (whole[..., 0] > 9, 4), (other, 0)):
            writer.write(array, subfiletype=kind, metadata=None, photometric=(
                "rgb" if array.ndim == 3 else "minisblack"
            ))  # fmt: skip
    image = open_image(out.getvalue(), "x.tif")
    assert image.pages.count == 2
    np.testing.assert_array_equal(image.page(1).decode(), other)
    pillows = encoded(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[
        Image.fromarray(other)
    ])  # fmt: skip
    np.testing.assert_array_equal(open_image(pillows, "x.tif").page(1).decode(), other)


def test_a_chain_of_pages_that_is_broken_or_never_ends() -> None:
    data = bytearray(stack(*[np.full((8, 8), n, np.uint8) for n in range(3)]))
    places = [tifffile.TiffFile(io.BytesIO(data)).pages[n].offset for n in range(3)]
    link = places[2] + 2 + 12 * struct.unpack_from("<H", data, places[2])[0]
    struct.pack_into("<I", data, link, places[0])
    assert open_image(bytes(data), "x.tif").pages.count == 3
    struct.pack_into("<I", data, link, 1 << 31)
    assert open_image(bytes(data), "x.tif").pages.count == 3
    assert open_image(TRUNCATABLE["tiff"], "x.tif").pages.count == 1
    assert open_image(TRUNCATABLE["png"], "x.png").pages.count == 1


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


@pytest.mark.slow
@pytest.mark.parametrize("compression", [8, 34925])
def test_a_strip_that_unpacks_without_end_is_refused(compression: int) -> None:
    packer = zlib.compressobj(1) if compression == 8 else lzma.LZMACompressor(preset=0)
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
