"""Folders of pictures that are the frames of one video."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maekit.contracts import SourceInfo
from maekit.data.files import MOST_CLIP_BYTES, read_bytes
from maekit.data.header import check_pixels
from maekit.data.images import open_image
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class OpenFrames:
    """The pictures of one folder, in the order of the numbers in their names."""

    name: str
    files: Sequence[str]
    info: SourceInfo  # of the first one; without fps: pictures do not say how fast they follow

    def between(self, start: float, end: float) -> range:
        """Raise DataError: pictures have no times."""
        what = f"is a folder of pictures, in which {start:g} s to {end:g} s mean nothing"
        raise DataError(what, where=self.name, hint="list its frames by number")

    @property
    def numbers(self) -> list[int]:
        """The last number in each picture's name; -1: it has none."""
        return [int((_DIGITS.findall(os.path.splitext(f)[0]) or ["-1"])[-1]) for f in self.files]  # noqa: PTH122

    def numbered(self, first: int, count: int) -> range:
        """Find ``count`` pictures numbered in sequence from ``first``.

        Raises:
            DataError: they are not all there.
        """
        numbers = self.numbers
        if first not in numbers:
            what = f"holds no picture with the number {first}; the first one is {self.files[0]}"
            raise DataError(what, where=self.name)
        start = numbers.index(first)
        found = numbers[start : start + count]
        # The lengths first: a list may ask for more frames than there is memory for.
        if len(found) != count or found != list(range(first, first + count)):
            what = f"does not hold the pictures {first} to {first + count - 1} without a gap"
            raise DataError(what, where=self.name)
        return range(start, start + count)

    def decode(self, frame_ids: Sequence[int]) -> np.ndarray:
        """Read pictures, ``[T, H, W, C]`` of the first one's size and depth.

        Raises:
            DataError: one is broken, or unlike the first.
        """
        info = self.info
        shape = (len(frame_ids), info.height, info.width, info.channels)
        check_pixels(shape, info.dtype, self.name, most=MOST_CLIP_BYTES)
        clip = np.empty(shape, dtype=info.dtype)
        places: dict[int, int] = {}
        for place, number in enumerate(frame_ids):
            if number in places:
                clip[place] = clip[places[number]]
                continue
            path = f"{self.name}/{self.files[number]}"
            pixels = open_image(read_bytes(path), path).decode()
            if pixels.shape != clip.shape[1:] or pixels.dtype != clip.dtype:
                shapes = f"{pixels.dtype} {pixels.shape}, not {clip.dtype} {clip.shape[1:]}"
                what = f"{self.files[number]} is unlike {self.files[0]}: {shapes}"
                raise DataError(what, where=self.name)
            clip[place] = pixels
            places[number] = place
        return clip


def open_frames(folder: str, takes: Callable[[str], bool]) -> OpenFrames:
    """Find the pictures of a folder, and read the header of the first.

    Hidden ones are left out. They are in the order of the numbers in their names, so that
    ``9.jpg`` comes before ``10.jpg``.

    Raises:
        DataError: there is none, or the first is broken.
        OSError: the folder cannot be listed.
    """
    files = [
        name
        for name in os.listdir(folder)  # noqa: PTH208 - names are what is wanted
        if not name.startswith(".") and takes(f"{folder}/{name}")
    ]
    if not files:
        what = "is a folder without pictures, and so no video"
        raise DataError(what, where=folder)
    files.sort(key=_natural)
    first = f"{folder}/{files[0]}"
    head = open_image(read_bytes(first), first).header
    info = SourceInfo(
        folder,
        head.height,
        head.width,
        head.channels,
        head.dtype,
        frames=len(files),
        further=head.further,
    )
    return OpenFrames(folder, tuple(files), info)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that compares runs of digits as numbers, all else as text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)] + [
        (-1, name)
    ]
