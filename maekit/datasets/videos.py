"""Dataset ``videos``: any folder of videos, or a list of them, with or without labels.

Lists, besides CSV with a header (``path,label,start,end``; the last two in seconds) and JSONL with
the same keys, are plain lines in the columns of the official code:

- ``path`` or ``path label`` (VideoMAE, mae_st);
- ``path frames label`` (folders of frames, as MMAction lists them);
- ``path start frames`` and ``path start frames label`` (VideoMAEv2): ``start`` is the number of
  the first frame, of a folder that in its name; fewer than 0 frames are all there are.

Which of them it is follows from the numbers, or from ``columns``. A path that is a folder is a
video whose frames are the pictures in it.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import Field

from maekit.contracts import Label, PartOptions, Source
from maekit.data.files import is_url
from maekit.data.frame_folders import OpenFrames, open_frames
from maekit.data.index_file import key_of_file
from maekit.data.video import OpenVideo, open_video
from maekit.datasets.file_lists import (
    WHERE,
    Files,
    FileSet,
    Labels,
    Paths,
    for_lists_only,
    nothing_at,
    refuse_folder_labels,
)
from maekit.datasets.folders import Tally, Wanted, walk
from maekit.datasets.images import WANTED as PICTURES
from maekit.datasets.list_rows import columns_note, read_list
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from maekit.datasets.list_rows import Row

# What a folder set takes; a list takes every row.
SUFFIXES = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264"}
    | {".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv"}
    | {".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogv", ".qt", ".rm"}
    | {".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
WANTED = Wanted(SUFFIXES, frozenset({"video"}))
MOVING_PICTURES = frozenset({".apng", ".gif"})  # which are videos where something asks for them


def video_source(video: OpenVideo | OpenFrames, stretch: range, label: Label, name: str) -> Source:
    """Wrap an opened video, or a stretch of its frames: frame 0 is the stretch's first."""

    def read(frame_ids: Sequence[int]) -> np.ndarray:
        return video.decode([stretch[number] for number in frame_ids])

    return Source(video.info._replace(id=name, frames=len(stretch), label=label), read)


class Videos(FileSet):
    """Videos of a folder, at any depth, or of a list.

    Raises:
        DataError: nothing there, or a list with a row that makes no sense.
    """

    class Options(PartOptions):
        """Options of ``videos``."""

        path: Path = Field(description="a folder of videos, or a list (CSV, JSONL, plain lines)")
        layout: Literal["files", "frame-folders"] = Field(
            "files",
            description="of a folder: files are videos, or each folder that holds pictures is one",
        )
        labels: Literal["auto", "none", "folder"] = Field(
            "auto",
            description="auto: a list's labels, or the folders right below path where all videos "
            "lie in two or more of them; folder: those folders, always; none: unlabeled",
        )
        root: Path | None = Field(
            None, description="what a list's rows are relative to; unset: the list's folder"
        )
        columns: Literal["auto"] | Columns = Field(
            "auto", description="what stands after the path in a list of plain lines"
        )

    wanted = WANTED
    kept = ("labels", "_spans")

    def __init__(self, options: Options) -> None:
        # Of os.path, as pathlib raises on names that are too long or of an unknown user.
        path = Path(os.path.expanduser(options.path))  # noqa: PTH111
        self._spans: np.ndarray | None = None  # float64 [n, 3]: number of the unit, start, stop
        if os.path.isdir(path):  # noqa: PTH112
            if options.root is not None:
                raise for_lists_only("root", path)
            if options.columns != "auto":
                raise for_lists_only("columns", path)
            tally = Tally()
            if options.layout == "frame-folders":
                found = _frame_folders(path, tally)
            else:
                found = walk(str(path), WANTED, empty_folders=True, tally=tally)
            files = Files(str(path), Paths.of(found))
            if not len(files):
                raise _nothing_in(path, options.layout, tally)
            self._folder(files, tally, options.labels)
        elif os.path.isfile(path):  # noqa: PTH113
            self._index_list(path, options)
        else:
            raise nothing_at("videos", path, _LAYOUT)

    def open(self, index: int) -> Source:
        """Look at a video, and count its frames.

        Raises:
            DataError: no file, no video, or not the stretch of it that the list asks for.
            OSError: the system cannot read it.
        """
        name, place = self.name(index), self._files.place(index)
        video: OpenVideo | OpenFrames
        if not is_url(place) and os.path.isdir(place):  # noqa: PTH112
            video = open_frames(place, PICTURES.takes)
        else:
            video = open_video(place, name)
        return video_source(video, self._stretch(video, index), self._label(index), name)

    def _stretch(self, video: OpenVideo | OpenFrames, index: int) -> range:
        """Return the frames that a list's row is about."""
        if self._spans is None:
            return range(video.info.frames)
        unit, start, stop = self._spans[index].tolist()
        span = Span(UNITS[int(unit)], start, stop)
        stretch = _stretch(video, span)
        if not stretch or stretch.stop > video.info.frames:
            wanted = f"{start:g} s to {stop:g} s" if span.unit == "seconds" else f"{stop:g} frames"
            more = f" from {start:g} on" if span.unit == "frames" else ""
            what = f"the list asks for {wanted}{more}; the video has {video.info.frames} frames"
            raise DataError(what, where=self.name(index))
        return stretch

    def _index_list(self, path: Path, options: Options) -> None:
        refuse_folder_labels(options.labels, path)
        if options.layout == "frame-folders":
            what = "layout: frame-folders is for folders; this is a list"
            hint = "drop it: a path in a list that is a folder is a video of the pictures in it"
            raise DataError(what, where=str(path), hint=hint)
        self._note(columns_note(path, SUFFIXES))
        key = key_of_file(path, "videos", options.labels, options.columns, sorted(SUFFIXES))
        paths = self._recall(key)
        if paths is None:
            paths = self._read_list(path, options)
        self._list(str(options.root or path.parent), paths, path)
        self._keep(key)

    def _read_list(self, path: Path, options: Options) -> Paths:
        """Return the paths of a list, and take its labels and stretches."""
        columns = options.columns
        if columns == "auto":
            columns = sniff(read_list(path, SUFFIXES), str(path))
        labels = Labels() if options.labels == "auto" else None
        spans = array("d")
        paths = Paths.of(_rows(path, columns, labels, spans))
        table = np.array(spans).reshape(-1, 3)
        self._spans = table if table.any() else None
        if labels is not None and labels.seen:
            self.labels, self.classes = labels.by_value()
        return paths


_LAYOUT = (
    "a folder `path/<class>/*.mp4` (or any other nesting), or a list: lines `path label`, or CSV "
    "with the columns `path,label`"
)


def _rows(
    path: Path, columns: Columns, labels: Labels | None, spans: array[float]
) -> Iterator[str]:
    """Yield the paths of a list, and put their labels and stretches aside."""
    for row in read_list(path, SUFFIXES):
        where = f"{path}:{row.line}"
        span, label = split(row, columns, where)
        yield row.path
        spans.extend((UNITS.index(span.unit), span.start, span.stop))
        if labels is not None:
            labels.take(label, where)


def _stretch(video: OpenVideo | OpenFrames, span: Span) -> range:
    if span.unit == "seconds":
        return video.between(span.start, span.stop)
    first, count = int(span.start), int(span.stop)
    if span.unit == "frames":
        if isinstance(video, OpenFrames):
            return video.numbered(first, count)
        return range(first, first + count)
    # How many frames a file has is counted; what a list says of it is often wrong.
    if span.unit == "first" and isinstance(video, OpenFrames):
        return range(count)
    return range(video.info.frames)


def _frame_folders(path: Path, tally: Tally) -> Iterator[str]:
    """Yield folders that hold pictures, relative to ``path``."""
    # A dictionary, as a folder's pictures come in two runs where it holds folders too.
    files = walk(str(path), PICTURES, tally=tally)
    yield from dict.fromkeys(folder for folder, _, _ in (file.rpartition("/") for file in files))


def _nothing_in(path: Path, layout: Literal["files", "frame-folders"], tally: Tally) -> DataError:
    if layout == "frame-folders":
        what = f"no folder with pictures in {path}, at any depth"
        return DataError(what, where=WHERE, hint=f"{tally.strangers()}; layout: files takes videos")
    what = f"no videos in {path}, at any depth; looked for {' '.join(sorted(SUFFIXES))}"
    return DataError(what, where=WHERE, hint=f"{tally.strangers()}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    """Say what to do with a folder that holds no videos; pictures may be frames, or move."""
    pictures = Tally()
    for _ in walk(str(path), PICTURES, tally=pictures):
        pass
    if not pictures.taken:
        return f"wanted is {_LAYOUT}"
    if pictures.taken.keys() <= MOVING_PICTURES:
        listed = f"cd {path}; find . -name '*.gif' > list.txt"
        return (
            "animated pictures are videos in a list, which takes every row: "
            f"`{listed}`, and set path to list.txt (layout: frame-folders would make one video "
            "of the first frame of each)"
        )
    return "for folders of frames, set layout: frame-folders; for pictures, name: images"


Columns = Literal["label", "frames-label", "start-frames", "start-frames-label"]
_NUMBERS = {"label": 0, "frames-label": 1, "start-frames": 2, "start-frames-label": 2}


_MOST_FRAMES = 2**31  # years of video; also in the table's float64, each is itself


class Span(NamedTuple):
    """The stretch of a video that a row is about."""

    unit: Literal["whole", "seconds", "frames", "first"]
    start: float = 0  # seconds, or the number of a frame
    stop: float = 0  # seconds; of "frames" and "first": how many frames


UNITS: tuple[Literal["whole", "seconds", "frames", "first"], ...] = (
    "whole",
    "seconds",
    "frames",
    "first",
)


def sniff(rows: Iterable[Row], path: str) -> Columns:
    """Find out which columns a list has, from all of its rows.

    Two numbers are a start and a number of frames (VideoMAEv2's ``path 0 -1``) where the second is
    ever negative, or the first is never more than 1; else a number of frames and a label.

    Raises:
        DataError: rows with different columns, or with more than there can be.
    """
    count, starts, negative = -1, True, False
    for row in rows:
        here = len(row.fields)
        if count >= 0 and here != count and max(here, count) > 1:
            what = f"has {here} fields after the path, the rows before it have {count}"
            hint = "put paths with spaces in double quotes, or use CSV with a header"
            raise DataError(what, where=f"{path}:{row.line}", hint=hint)
        count = max(count, here)
        if here == 2:
            starts = starts and row.fields[0] in ("0", "1")
            negative = negative or row.fields[1].startswith("-")
    if count < 2:
        return "label"
    if count > 2:
        return "start-frames-label"
    return "start-frames" if starts or negative else "frames-label"


def split(row: Row, columns: Columns, where: str) -> tuple[Span, str | None]:
    """Split a row into its stretch and its label.

    Raises:
        DataError: its fields are not those columns.
    """
    wanted = _NUMBERS[columns] + columns.endswith("label")
    # A label may be missing where it is all there is: then the list is unlabeled.
    if len(row.fields) != wanted and not (columns == "label" and not row.fields):
        text = " ".join(row.fields)[:200] or "none"
        what = f"the columns are {columns}, the fields after the path are {text}"
        hint = (
            "put paths with spaces in double quotes, use CSV with a header, or set the data "
            "set's `columns`"
        )
        raise DataError(what, where=where, hint=hint)
    numbers = [_integer(text, where) for text in row.fields[: _NUMBERS[columns]]]
    label = row.fields[-1] if columns.endswith("label") and row.fields else None
    if any(time is not None and str(time).strip() for time in row.times):
        return _seconds(row.times, where), label
    if not numbers or numbers[-1] < 0:
        return Span("whole"), label
    if numbers[-1] == 0 or numbers[0] < 0:
        what = f"{' '.join(map(str, numbers))} is not a range of frames"
        raise DataError(what, where=where)
    if columns == "frames-label":
        return Span("first", 0, numbers[0]), label
    return Span("frames", *numbers), label


def _seconds(times: tuple[object, object], where: str) -> Span:
    """Parse two times; a missing or empty one is the start or the end of the file."""
    start, end = (text if (text := "" if t is None else str(t).strip()) else None for t in times)
    try:
        first, last = float(start or 0), float(end or "inf")
    except ValueError as error:
        what = (
            f"start {start and start[:40]!r} or end {end and end[:40]!r} is not a number of seconds"
        )
        raise DataError(what, where=where) from error
    if not 0 <= first < last:
        what = f"start {first:g} and end {last:g} are not a range of time"
        raise DataError(what, where=where)
    return Span("seconds", first, last)


def _integer(text: str, where: str) -> int:
    try:
        number = int(text)
    except ValueError as error:  # also where it has more digits than Python reads
        what = f"{text[:40]!r} is not a number of frames"
        raise DataError(what, where=where) from error
    if abs(number) > _MOST_FRAMES:
        what = f"{text[:40]} frames are more than any video has"
        raise DataError(what, where=where)
    return number
