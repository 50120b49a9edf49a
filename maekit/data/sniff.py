"""What a file holds, told from its first bytes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

HEAD = 512  # bytes that are looked at; a tar's mark stands at 257
Family = Literal["picture", "video", "other"]


class Content(NamedTuple):
    """Kind of a file."""

    family: Family
    name: str  # as people call it, with its article
    hint: str = ""  # what to do with one that is given in place of a folder or list


_PICTURE: Family = "picture"
_VIDEO: Family = "video"
_OTHER: Family = "other"
_ARCHIVE = "unpack it, and give the folder"
_ARRAYS = (
    "save each picture as a file of its own: np.save(f'pictures/{number:06}.npy', array), "
    "[H, W, C] each"
)
_TABLE = "write its pictures as files, and a CSV `path,label` beside them"

# Where it stands, what stands there, and what it means. Longer marks come first.
_MARKS: tuple[tuple[int, bytes, Content], ...] = (
    (0, b"\xff\xd8\xff", Content(_PICTURE, "a JPEG picture")),
    (0, b"\x89PNG\r\n\x1a\n", Content(_PICTURE, "a PNG picture")),
    (0, b"GIF87a", Content(_PICTURE, "a GIF")),
    (0, b"GIF89a", Content(_PICTURE, "a GIF")),
    (0, b"II*\0", Content(_PICTURE, "a TIFF picture")),
    (0, b"MM\0*", Content(_PICTURE, "a TIFF picture")),
    (0, b"II+\0", Content(_PICTURE, "a BigTIFF picture")),
    (0, b"MM\0+", Content(_PICTURE, "a BigTIFF picture")),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", Content(_PICTURE, "a JPEG 2000 picture")),
    (0, b"\xff\x4f\xff\x51", Content(_PICTURE, "a JPEG 2000 picture")),
    (0, b"\x93NUMPY", Content(_PICTURE, "a NumPy array", _ARRAYS)),
    (0, b"\x1a\x45\xdf\xa3", Content(_VIDEO, "a Matroska or WebM video")),
    (0, b"FLV\x01", Content(_VIDEO, "a Flash video")),
    (0, b"\0\0\x01\xba", Content(_VIDEO, "an MPEG video")),
    (0, b"\0\0\x01\xb3", Content(_VIDEO, "an MPEG video")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Content(_VIDEO, "a Windows Media video")),
    (0, b"YUV4MPEG2", Content(_VIDEO, "a YUV4MPEG video")),
    (0, b"DKIF", Content(_VIDEO, "an IVF video")),
    (0, b"PK\x03\x04", Content(_OTHER, "a ZIP archive", _ARCHIVE)),
    (0, b"PK\x05\x06", Content(_OTHER, "an empty ZIP archive")),
    (257, b"ustar", Content(_OTHER, "a tar archive", "unpack it (tar xf), and give the folder")),
    (0, b"\x1f\x8b", Content(_OTHER, "a gzip archive", "unpack it (tar xzf, or gunzip)")),
    (0, b"BZh", Content(_OTHER, "a bzip2 archive", "unpack it (tar xjf, or bunzip2)")),
    (0, b"\xfd7zXZ\0", Content(_OTHER, "an xz archive", "unpack it (tar xJf, or unxz)")),
    (0, b"\x28\xb5\x2f\xfd", Content(_OTHER, "a Zstandard archive", "unpack it (zstd -d)")),
    (0, b"7z\xbc\xaf\x27\x1c", Content(_OTHER, "a 7z archive", _ARCHIVE)),
    (0, b"Rar!\x1a\x07", Content(_OTHER, "a RAR archive", _ARCHIVE)),
    (0, b"\x89HDF\r\n\x1a\n", Content(_OTHER, "an HDF5 file", f"with h5py, {_ARRAYS}")),
    (0, b"PAR1", Content(_OTHER, "a Parquet table", _TABLE)),
    (0, b"ARROW1", Content(_OTHER, "an Arrow table", _TABLE)),
    (0, b"SQLite format 3\0", Content(_OTHER, "an SQLite database", _TABLE)),
    (16, b"\xde\xc0\xef\xbe", Content(_OTHER, "an LMDB database", _TABLE)),
    (0, b"MATLAB 5.0", Content(_OTHER, "a MATLAB file", f"with scipy.io.loadmat, {_ARRAYS}")),
    (128, b"DICM", Content(_OTHER, "a DICOM picture", f"with pydicom, {_ARRAYS}")),
    (344, b"n+1\0", Content(_OTHER, "a NIfTI volume", f"with nibabel, {_ARRAYS}")),
    (0, b"SIMPLE  =", Content(_OTHER, "a FITS file", f"with astropy, {_ARRAYS}")),
    (0, b"\0\0\x08\x03", Content(_OTHER, "a set in MNIST's format", _ARRAYS)),
    (0, b"%PDF-", Content(_OTHER, "a PDF", "give a folder of pictures")),
    (0, b"8BPS", Content(_OTHER, "a Photoshop picture", "save it as PNG or TIFF")),
    (0, b"v/1\x01", Content(_OTHER, "an OpenEXR picture", "save it as a float TIFF, or .npy")),
    (0, b"\xff\x0a", Content(_OTHER, "a JPEG XL picture", "convert it to PNG or JPEG")),
    (0, b"\0\0\0\x0cJXL ", Content(_OTHER, "a JPEG XL picture", "convert it to PNG or JPEG")),
)
_RIFF = {
    b"WEBP": Content(_PICTURE, "a WebP picture"),
    b"AVI ": Content(_VIDEO, "an AVI video"),
}
_STILL_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
# Marks that are too short to be told alone.
_PORTABLE = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s")
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x4b-\x98\]})(c]")
_PACKET = 188  # bytes of a transport stream, each packet of which begins with G
_WEAK: tuple[tuple[Callable[[bytes], object], Content], ...] = (
    # A bitmap's two letters could begin a text; its two reserved fields are 0.
    (
        lambda head: head.startswith(b"BM") and head[6:10] == bytes(4),
        Content(_PICTURE, "a BMP picture"),
    ),
    (_PORTABLE.match, Content(_PICTURE, "a PNM picture")),
    (
        lambda head: head[:1] == head[_PACKET:][:1] == head[2 * _PACKET :][:1] == b"G",
        Content(_VIDEO, "an MPEG transport stream"),
    ),
    (_PICKLE.match, Content(_OTHER, "a Python pickle", f"it is not opened here; {_ARRAYS}")),
)


def content(head: bytes) -> Content | None:
    """Return what a file that begins so holds; None where that is not known."""
    for place, mark, found in _MARKS:
        if head.startswith(mark, place):
            return found
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _of_brand(head)
    return next((found for told, found in _WEAK if told(head)), None)


def is_text(head: bytes) -> bool:
    """Return whether a file begins as text in UTF-8 does; its last character may be cut."""
    try:
        head[:-4].decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 8
    return b"\0" not in head


def is_heif(head: bytes) -> bool:
    """Return whether these are the first bytes of a HEIC or HEIF picture."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and not _lists(head, _STILL_BRANDS)


def _of_brand(head: bytes) -> Content:
    if head[8:12] in _STILL_BRANDS or (head[8:12] in HEIF_BRANDS and _lists(head, _STILL_BRANDS)):
        return Content(_PICTURE, "an AVIF picture")
    if is_heif(head):
        return Content(_PICTURE, "a HEIC picture")
    return Content(_VIDEO, "an MP4 or QuickTime video")


def _lists(head: bytes, brands: tuple[bytes, ...]) -> bool:
    """Return whether a file type box lists one of these as compatible."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return any(head[place : place + 4] in brands for place in range(16, size - 3, 4))


def content_of(path: str) -> Content | None:
    """Return what a file holds; None where that is not known, or it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            found = content(file.read(HEAD))
    except (OSError, ValueError):
        return None
    if found is not None and found.name == "a ZIP archive" and _holds_arrays(path):
        return Content(_OTHER, "an .npz file of NumPy arrays", _ARRAYS)
    return found


def _holds_arrays(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)
