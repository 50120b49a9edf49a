"""Indices of videos, kept: in memory for one process, and in the user's cache for all that follow.

On disk an index is a record in one of 256 files, chosen by the video's path, so that a set of a
million videos costs 256 files and not a million. Records are only ever appended, each in one write;
one that was torn, overwritten or damaged does not match its checksum, and its video is looked at
again. Nothing is locked: that works on any file system. A file that has grown too large is written
anew with its newest half.

A record is found by its key, wherever it lies: the path, the size and the time of change of the
video, the version of this format, and FFmpeg's, as another one may decode other frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from maekit.atomic import write_bytes
from maekit.data.files import cache_folder
from maekit.data.video_index import Index

if TYPE_CHECKING:
    from collections.abc import Callable

Key = tuple[str, int, int]  # path, size in bytes, time of change in nanoseconds

VERSION = 2  # raise it with every change of what an index holds, or of how it is found
_KEPT_BYTES = 32 * 2**20  # of indices, in each process
_FILE_BYTES = 2 * 2**20  # of each of the 256 files
_UNSETTLED = 2.0  # seconds in which a file system may give two changes one time
_MAGIC = b"mkvi"
# magic, which video, its size, its time of change; then length and checksum of what follows.
_KEY, _CONTENT = struct.Struct("<4s16sqq"), struct.Struct("<II")
_HEADER = _KEY.size + _CONTENT.size
_MOST_UNPACKED = 2**26
_PLAIN = [each.name for each in fields(Index) if each.name not in ("times", "keys", "passing")]


class IndexCache:
    """Indices by file, size and time of change.

    Args:
        folder: where they are kept for other processes; None: ``videos`` in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._indices: OrderedDict[Key, Index] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, scan: Callable[[str], Index]) -> Index:
        """Return the kept index of a video, or else make one, and keep it.

        Args:
            key: of the video.
            scan: makes an index of a path, and raises where it is no video.
        """
        index = self._indices.get(key)
        if index is not None:
            self._indices.move_to_end(key)
            return index
        index = self._read(key)
        return self.put(key, scan(key[0])) if index is None else self._remember(key, index)

    def put(self, key: Key, index: Index) -> Index:
        """Keep an index, for this process and for others."""
        if _settled(key) and not index.passing:
            with suppress(OSError, RuntimeError):  # a full or read-only disk costs only time
                self._write(key, index)
        return self._remember(key, index)

    def _remember(self, key: Key, index: Index) -> Index:
        """Keep an index in memory, and drop those used least recently where they are too large."""
        old = self._indices.pop(key, None)
        self._indices[key] = index
        self._bytes += index.nbytes - (0 if old is None else old.nbytes)
        while self._bytes > _KEPT_BYTES and len(self._indices) > 1:
            self._bytes -= self._indices.popitem(last=False)[1].nbytes
        return index

    def _read(self, key: Key) -> Index | None:
        wanted = _packed(key)
        try:
            content = self._file(wanted).read_bytes()
        except (OSError, RuntimeError):  # no such file, or nobody's home for it to be in
            return None
        place = len(content)
        while (place := content.rfind(wanted, 0, place)) >= 0:
            index = _parsed(_record(content, place))
            if index is not None:
                return index
        return None

    def _write(self, key: Key, index: Index) -> None:
        wanted = _packed(key)
        body = _body(index)
        record = wanted + _CONTENT.pack(len(body), _checksum(wanted, body)) + body
        if len(record) > _FILE_BYTES // 2:
            return
        path = self._file(wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(record)
            size = file.tell()
        if size > _FILE_BYTES:
            write_bytes(path, _newest(path.read_bytes(), _FILE_BYTES // 2))

    def _file(self, wanted: bytes) -> Path:
        folder = cache_folder() / "videos" if self._folder is None else self._folder
        return folder / f"{wanted[len(_MAGIC)]:02x}.idx"


index_cache = IndexCache()


def _packed(key: Key) -> bytes:
    """Return the first bytes of a video's record."""
    path, size, changed = key
    decoder = (av.library_versions["libavcodec"], av.library_versions["libavformat"])
    digest = hashlib.blake2b(f"{VERSION} {decoder} ".encode(), digest_size=16)
    digest.update(os.fsencode(os.path.abspath(path)))  # noqa: PTH100 - links stay as they are
    return _KEY.pack(_MAGIC, digest.digest(), size, changed)


def _settled(key: Key) -> bool:
    """Return whether a file is still what it was, and old enough that a change would show."""
    path, size, changed = key
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    now = (status.st_size, status.st_mtime_ns)
    return now == (size, changed) and abs(time.time_ns() - changed) > _UNSETTLED * 1e9


def _record(content: bytes, place: int) -> bytes | None:
    """Return what a record at a place holds; None where it is damaged."""
    if place + _HEADER > len(content):
        return None
    length, check = _CONTENT.unpack_from(content, place + _KEY.size)
    body = content[place + _HEADER : place + _HEADER + length]
    whole = len(body) == length and _checksum(_key_at(content, place), body) == check
    return body if whole else None


def _checksum(key: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key))


def _key_at(content: bytes, place: int) -> bytes:
    return content[place : place + _KEY.size]


def _newest(content: bytes, most: int) -> bytes:
    """Return the whole records of a file, the newest of each video, of ``most`` bytes at most."""
    records: dict[bytes, bytes] = {}
    place = 0
    while (place := content.find(_MAGIC, place)) >= 0:
        body = _record(content, place)
        if body is None:
            place += 1
            continue
        end = place + _HEADER + len(body)
        video = _key_at(content, place)[: len(_MAGIC) + 16]
        records.pop(video, None)  # the newest stand last
        records[video] = content[place:end]
        place = end
    kept: list[bytes] = []
    for record in reversed(records.values()):
        most -= len(record)
        if most < 0:
            break
        kept.append(record)
    return b"".join(reversed(kept))


def _body(index: Index) -> bytes:
    """Pack an index: its plain values as JSON, then times and keys, each as steps between them."""
    plain = {name: getattr(index, name) for name in _PLAIN}
    counts = [-1 if index.times is None else len(index.times), len(index.keys)]
    arrays = [] if index.times is None else [index.times]
    steps = [np.diff(each, prepend=0).astype("<i8").tobytes() for each in (*arrays, index.keys)]
    return zlib.compress(b"\n".join([json.dumps([plain, counts]).encode(), b"".join(steps)]), 1)


def _parsed(body: bytes | None) -> Index | None:
    """Unpack an index; None where it is none."""
    if body is None:
        return None
    try:
        text, _, packed = zlib.decompressobj().decompress(body, _MOST_UNPACKED).partition(b"\n")
        plain, (frames, keys) = json.loads(text)
        steps = np.frombuffer(packed, "<i8")
        if len(steps) != max(0, frames) + keys or set(plain) != set(_PLAIN):
            return None
        times = None if frames < 0 else steps[:frames].cumsum(dtype=np.int64)
        index = Index(**plain, times=times, keys=steps[max(0, frames) :].cumsum(dtype=np.int64))
    except (ValueError, TypeError, zlib.error):
        return None
    fits = index.times is None or len(index.times) == index.frames
    return index if fits and index.frames >= 1 else None
