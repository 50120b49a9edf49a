"""Named files, of which videos may be cut into windows: one sample each, wherever they overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from maekit.contracts import Dataset
from maekit.data.video import open_video
from maekit.datasets.named_files import NamedFile, open_named_file
from maekit.datasets.videos import video_source
from maekit.errors import DataError

if TYPE_CHECKING:
    from maekit.contracts import Source
    from maekit.data.pillow_pages import Alpha
    from maekit.data.video import OpenVideo


class Window(NamedTuple):
    """A file, or a stretch of a video.

    Attributes:
        file: which one.
        frames: of the video; None: the whole file.
        start: of the stretch, in seconds after the first frame.
        stop: when its last frame ends.
    """

    file: NamedFile
    frames: range | None = None
    start: float | None = None
    stop: float | None = None


class Cutting(NamedTuple):
    """How videos are cut into windows.

    Attributes:
        every: seconds from the beginning of one to that of the next.
        length: seconds of each; None: as long as the next one is away, or a clip.
        span: frames that a clip takes, at so many frames a second.
    """

    every: float
    length: float | None
    span: Callable[[float], int]


def windows_of(files: Iterable[NamedFile], cutting: Cutting | None) -> Iterator[Window]:
    """List the windows of each file, in order; pictures have one, and so has what cannot be read.

    Args:
        files: what is cut.
        cutting: how; None: each file is one.
    """
    for file in files:
        video = None if cutting is None else _video(file)
        if video is None or cutting is None:
            yield Window(file)
            continue
        try:
            yield from _cut(file, video, cutting)
        except DataError as error:  # it has no times; said where it would be read
            yield Window(replace(file, missing=error.what))


def _video(file: NamedFile) -> OpenVideo | None:
    """Open a video; None for pictures, and for what is none of both."""
    if file.missing is not None or file.kind == "image":
        return None
    try:
        if file.kind == "unknown":
            try:
                open_named_file(replace(file, kind="image"), "drop")
            except DataError:
                return open_video(file.path, file.name)
            return None
        return open_video(file.path, file.name)
    except (DataError, OSError):
        return None


def _cut(file: NamedFile, video: OpenVideo, cutting: Cutting) -> Iterator[Window]:
    seconds = video.seconds
    tick = float(seconds[-1]) / max(1, len(seconds) - 1)  # how long the last frame is shown
    rate = video.info.fps or (1 / tick if tick else 1.0)
    span = cutting.span(rate)
    length = cutting.length or max(cutting.every, span / rate)
    number = 0
    while (begin := number * cutting.every) <= seconds[-1] or number == 0:
        number += 1
        found = video.between(begin, begin + length)
        if not found:  # nothing is shown for so long
            continue
        first = min(found.start, max(0, found.stop - span))  # the last one has a whole clip, too
        following = seconds[found.stop] if found.stop < len(seconds) else seconds[-1] + tick
        frames = range(first, found.stop)
        yield Window(file, frames, float(seconds[first]), float(following))


@dataclass
class NamedWindows(Dataset):
    """Windows as a dataset, unlabeled."""

    items: Sequence[Window]
    alpha: Alpha = "drop"

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Return the file's name as it is shown."""
        return self.items[index].file.name

    def open(self, index: int) -> Source:
        """Open a file, or a stretch of it; raises as ``open_named_file``."""
        item = self.items[index]
        if item.frames is None:
            return open_named_file(item.file, self.alpha)
        video = open_video(item.file.path, item.file.name)
        return video_source(video, item.frames, None, item.file.name)
