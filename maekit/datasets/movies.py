"""Movies opened by the clock: whole ones, cuts, files of one second, folders of frames.

Second 0 is the first frame of a movie as it was published, and ``start`` says at which second that
what lies on the disk begins. Frames are those of FFmpeg's filter ``fps``: at each time the last one
that comes at most half a frame too late.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, overload

import numpy as np

from maekit.contracts import SourceInfo
from maekit.data.frame_folders import OpenFrames, open_frames
from maekit.data.video import OpenVideo, open_video
from maekit.datasets.folders import walk
from maekit.datasets.images import WANTED as PICTURES
from maekit.datasets.videos import WANTED
from maekit.errors import DataError

Layout = Literal["movies", "cuts", "seconds", "frames"]
STARTS: Mapping[Layout, float] = {"movies": 0, "cuts": 900, "seconds": 0, "frames": 900}
_FRAME_RATE = 30.0  # of SlowFast's and MMAction's folders of frames
_SHOWN = 3  # paths in a message
_EXACT = 1e-9  # seconds: times are sums of fractions
# Frames of a file of one second are numbered as if each had so many, whatever it really has.
_A_SECOND = 10_000
_KEPT = 10_000  # folders of frames, whose names are not kept one by one


At = Callable[[Sequence[float], float], Sequence[int]]


class Names(Sequence[str]):
    """Names that differ in a number alone, made when they are asked for."""

    def __init__(self, pattern: str, first: int, count: int) -> None:
        self._pattern, self._first, self._count = pattern, first, count

    @classmethod
    def of(cls, names: Sequence[str]) -> Sequence[str]:
        """Return these names in little memory, or as they are where they differ in more."""
        *_, found = re.finditer(r"\d+", names[0])
        before, after = names[0][: found.start()], names[0][found.end() :]
        pattern = f"{before.replace('%', '%%')}%0{len(found[0])}d{after.replace('%', '%%')}"
        made = cls(pattern, int(found[0]), len(names))
        return made if all(map(str.__eq__, made, names)) else names

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Return a name."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        return self._pattern % (self._first + range(self._count)[index])


class Opened(NamedTuple):
    """A movie, and where its frames lie in time."""

    info: SourceInfo
    at: At  # times in seconds of the movie
    decode: Callable[[Sequence[int]], np.ndarray]


@dataclass
class Movies:
    """The movies of a folder.

    Args:
        folder: where they lie.
        layout: ``movies``: whole ones; ``cuts``: files that begin at a second of the movie;
            ``seconds``: a folder for each movie, with a file for each second; ``frames``: a folder
            for each movie, with a picture for each frame.
        start: the second of the movie at which a file, or the first frame, lies; None: 0, of cuts
            and frames 900, as AVA's were made.
        rate: of folders of frames, frames a second; None: 30.
    """

    folder: str
    layout: Layout
    start: float | None = None
    rate: float | None = None
    _files: Mapping[str, list[str]] = field(default_factory=dict)
    _listed: dict[str, OpenFrames] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.start is None:
            self.start = STARTS[self.layout]
        if not os.path.isdir(self.folder):  # noqa: PTH112
            raise DataError("is no folder", where=self.folder, hint="videos: the folder of movies")
        if self.layout in {"movies", "cuts"}:
            files: dict[str, list[str]] = {}
            for path in walk(self.folder, WANTED):
                name = path.rpartition("/")[2]
                for known in {path, name, name.rpartition(".")[0]}:
                    files.setdefault(known, []).append(path)
            # A file right in the folder has its name for itself.
            self._files = {
                known: [known] if known in paths else paths for known, paths in files.items()
            }

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_listed": {}}

    def find(self, movie: str) -> str | None:
        """Return where a movie lies; None: nowhere.

        Raises:
            DataError: there are several of this name.
        """
        if self.layout in {"movies", "cuts"}:
            found = [f"{self.folder}/{path}" for path in self._files.get(movie, ())]
        else:
            found = self._folders.get(movie, [])
        if len(found) > 1:
            what = f"there are several movies {movie}: {', '.join(found[:_SHOWN])}"
            raise DataError(what, hint="move all but one away, or list their whole paths")
        return found[0] if found else None

    def file(self, movie: str, second: float) -> str | None:
        """Return the file that a second of a movie lies in; None: there is none, or many."""
        try:
            place = self.find(movie)
            if place is None or self.layout == "frames":
                return None
            return place if self.layout != "seconds" else _files_of(place).get(int(second))
        except (DataError, OSError):
            return None

    @cached_property
    def _folders(self) -> Mapping[str, list[str]]:
        """The folders of the movies, right below ours or one deeper (``trainval/MOVIE``)."""
        found: dict[str, list[str]] = {}
        for entry in _folders_in(self.folder):
            if _holds_files(entry.path):
                found.setdefault(entry.name, []).append(entry.path)
                continue
            for below in _folders_in(entry.path):
                found.setdefault(below.name, []).append(below.path)
        return found

    def open(self, movie: str, second: float) -> Opened:
        """Open a movie that holds a second.

        Raises:
            DataError: there is no such movie, it cannot be read, or it ends before.
            OSError: the system cannot read it.
        """
        place = self.find(movie)
        if place is None:
            what = f"there is no movie {movie} in {self.folder} (layout {self.layout})"
            raise DataError(what, hint="is videos its folder, and layout how it lies there?")
        if self.layout == "seconds":
            files = _Seconds(place, second)
            return Opened(files.info, files.at, files.decode)
        start = self.start or 0.0
        if self.layout == "frames":
            return self._of_frames(place, start, second)
        video = open_video(place)
        times = video.seconds
        step = 1 / video.index.fps if video.index.fps else 0.0
        _check_within(second, start, start + float(times[-1]) + step, place)

        return Opened(video.info, clock(times, start), video.decode)

    def _of_frames(self, place: str, start: float, second: float) -> Opened:
        rate = self.rate or _FRAME_RATE
        video = self._listed.get(place)
        if video is None:
            video = open_frames(place, PICTURES.takes)
            numbers = video.numbers
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                # It would shift all that follow.
                what = f"does not hold the pictures {numbers[0]} to {numbers[-1]} without a gap"
                raise DataError(what, where=place)
            video = replace(video, files=Names.of(video.files))
            while len(self._listed) >= _KEPT:
                self._listed.pop(next(iter(self._listed)))
            self._listed[place] = video
        count = len(video.files)
        _check_within(second, start, start + count / rate, place)

        def at(seconds: Sequence[float], late: float) -> Sequence[int]:
            passed = (np.asarray(seconds) - start + late - _EXACT) * rate
            found: list[int] = np.clip(np.ceil(passed) - 1, 0, count - 1).astype(int).tolist()
            return found

        return Opened(video.info._replace(fps=rate), at, video.decode)


def clock(times: np.ndarray, start: float = 0.0) -> At:
    """Return what finds the frames of a film at given times, as ``maekit.contracts.Source.at``.

    Args:
        times: when each frame is shown, in seconds after the first one.
        start: the second at which the first one is.
    """

    def at(seconds: Sequence[float], late: float) -> Sequence[int]:
        wanted = np.asarray(seconds) - start + late - _EXACT
        last = np.searchsorted(times, wanted, side="left") - 1
        found: list[int] = np.clip(last, 0, len(times) - 1).tolist()
        return found

    return at


def _holds_files(folder: str) -> bool:
    """Return whether anything in a folder is no folder."""
    with os.scandir(folder) as entries:
        return any(not entry.is_dir() for entry in entries if not entry.name.startswith("."))


def _folders_in(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )


def _check_within(second: float, start: float, end: float, place: str) -> None:
    if start <= second < end:
        return
    what = f"second {second:g} is not in {place}, which goes from {start:g} to {end:.4g} s"
    raise DataError(what, hint="is it another cut of the movie? `start` says where a file begins")


def _files_of(folder: str) -> dict[int, str]:
    """Return the files of one second each of a movie, by their seconds."""
    return {
        int(stem): f"{folder}/{name}"
        for name in os.listdir(folder)  # noqa: PTH208
        if (stem := name.rpartition(".")[0]).isdecimal() and WANTED.takes(f"{folder}/{name}")
    }


class _Seconds:
    """The files of one second each (``902.mp4``) of a movie, as if they were one."""

    def __init__(self, folder: str, second: float) -> None:
        self._folder = folder
        self._files = _files_of(folder)
        if int(second) not in self._files:
            what = f"second {second:g} is not in {folder}, which holds {len(self._files)} seconds"
            if self._files:
                what += f", {min(self._files)} to {max(self._files)}"
            raise DataError(what)
        self._first, self._last = min(self._files), max(self._files)
        self._opened: dict[int, OpenVideo] = {}
        key = self._file(int(second))
        self.info = key.info._replace(frames=(self._last - self._first + 1) * _A_SECOND)

    def _file(self, number: int) -> OpenVideo:
        if number not in self._files:
            what = f"second {number} is missing in {self._folder}, and others around it are not"
            raise DataError(what)
        if number not in self._opened:
            self._opened[number] = open_video(self._files[number])
        return self._opened[number]

    def at(self, seconds: Sequence[float], late: float) -> Sequence[int]:
        """Return frames numbered from those of the first file on."""
        found = []
        for time in seconds:
            wanted = min(max(time + late, self._first) - _EXACT, self._last + 1 - _EXACT)
            wanted = max(wanted, float(self._first))
            video = self._file(int(wanted))
            shown = int(np.searchsorted(video.seconds, wanted - int(wanted), side="left")) - 1
            number = min(max(shown, 0), video.index.frames - 1, _A_SECOND - 1)
            found.append((int(wanted) - self._first) * _A_SECOND + number)
        return found

    def decode(self, ids: Sequence[int]) -> np.ndarray:
        """Decode frames, ``[T, H, W, C]``."""
        clip: list[np.ndarray | None] = [None] * len(ids)
        for number in sorted({place // _A_SECOND for place in ids}):
            here = [place for place, wanted in enumerate(ids) if wanted // _A_SECOND == number]
            video = self._file(self._first + number)
            shown = [min(ids[place] % _A_SECOND, video.index.frames - 1) for place in here]
            for place, frame in zip(here, video.decode(shown), strict=True):
                clip[place] = frame
        return np.stack([frame for frame in clip if frame is not None])
