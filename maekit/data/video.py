"""Videos as arrays: exactly the frames that a plain decode from the first to the last gives.

How many there are, and whether it is possible to seek, ``maekit.data.video_index`` finds out. With
times that can be trusted, reading seeks to the keyframe before the first frame wanted, decodes
nothing that no wanted frame needs, and holds every frame that comes out against the time it must
have; otherwise it starts at the first frame.
What is damaged without a sign in its packets shows only here. Where frames then do not come at
their times, the file is counted after all, and the clip is bad only if it has no such frames. Of
codecs without prediction a damaged frame is always bad: what decoders leave of it is not defined.

Pixels are 8-bit RGB, or gray where the video is; deeper ones are reduced. Transparency is dropped.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from maekit.contracts import SourceInfo
from maekit.data.files import (
    MOST_CLIP_BYTES,
    check_regular,
    check_scheme,
    local_path,
    read_bytes,
)
from maekit.data.header import check_pixels, oriented, upright
from maekit.data.index_cache import index_cache
from maekit.data.video_index import Index, PacketUnits, decoded, opened, scan
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class OpenVideo:
    """A video whose frames are counted; ``decode`` gives any of them."""

    name: str
    index: Index
    file: str | bytes = field(repr=False)  # where it lies, or the whole of it

    @property
    def info(self) -> SourceInfo:
        """What is known of it before decoding."""
        index = self.index
        return SourceInfo(
            self.name,
            index.height,
            index.width,
            index.channels,
            frames=index.frames,
            fps=index.fps,
        )

    @cached_property
    def seconds(self) -> np.ndarray:
        """When each frame is shown, in seconds after the first, float64 ``[frames]``.

        By the frames' own times; where the file has none, by its frame rate.

        Raises:
            DataError: the file has neither times nor a frame rate.
        """
        if self.index.times is not None:
            shown: np.ndarray = (self.index.times - self.index.times[0]) * self.index.tick
            return shown
        if self.index.fps:
            return np.arange(self.index.frames) / self.index.fps
        what = "has no frame rate, so that seconds mean nothing in it"
        raise DataError(what, where=self.name, hint="remux it to MP4 or MKV")

    def between(self, start: float, end: float) -> range:
        """Return the frames from ``start`` to before ``end``, in seconds after the first frame.

        Raises:
            DataError: the file has neither times nor a frame rate.
        """
        first, last = np.searchsorted(self.seconds, (start - 1e-6, end - 1e-6)).tolist()
        return range(first, last)

    def decode(self, frame_ids: Sequence[int]) -> np.ndarray:
        """Decode frames, uint8 ``[T, H, W, C]``, upright, in the requested order.

        Raises:
            DataError: a frame is broken.
            IndexError: a number lies beyond the last frame.
        """
        places: dict[int, list[int]] = {number: [] for number in sorted(set(frame_ids))}
        for place, number in enumerate(frame_ids):
            if not 0 <= number < self.index.frames:
                what = f"frame {number} of {self.index.frames}"
                raise IndexError(what)
            places[number].append(place)
        index = self.index
        height, width = oriented(index.height, index.width, index.orientation)
        shape = (len(frame_ids), index.height, index.width, index.channels)
        check_pixels(shape, "uint8", self.name, most=MOST_CLIP_BYTES)
        clip = np.empty(shape, np.uint8)
        pixels = Pixels(index.channels, height, width)
        with _reading(self.name):
            if self.index.timed:
                # Damage looks different after a seek; a plain decode decides.
                with suppress(_LostError, av.FFmpegError):
                    self._fill(clip, places, pixels, self.index, seek=True)
                    return clip
            try:
                self._fill(clip, places, pixels, self.index, seek=False)
            except (_LostError, av.FFmpegError):
                if not self.index.timed or self.index.intra:
                    raise
                self._fill(clip, places, pixels, self._recount(), seek=False)
        return clip

    def _recount(self) -> Index:
        """Index the file without times, for everyone who opens it from now on."""
        if isinstance(self.file, bytes):
            return scan(self.file, trust=False)
        key = (self.file, *check_regular(self.file))
        found = scan(self.file, trust=False)
        # Where the count finds what the packets said, it was the disk that failed for a moment:
        # others may go on to seek.
        before, now = self.index.times, found.times
        same = before is not None and now is not None and np.array_equal(before, now)
        return index_cache.put(key, replace(found, passing=found.passing or same))

    def _fill(
        self,
        clip: np.ndarray,
        places: dict[int, list[int]],
        pixels: Pixels,
        index: Index,
        *,
        seek: bool,
    ) -> None:
        strict = seek or (index.intra and index.timed)
        with opened(self.file, strict=strict) as (container, stream):
            for number, frame in _wanted(container, stream, index, places, seek=seek):
                first, *others = places[number]
                clip[first] = upright(pixels.of(frame), self.index.orientation)
                for place in others:
                    clip[place] = clip[first]


class Pixels:
    """Converter of decoded frames to arrays, one for all of them.

    Args:
        channels: 3 for RGB, 1 for gray.
        height, width: as decoded.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self._format = "rgb24" if channels == 3 else "gray"
        self._shape = (height, width, channels)
        self._reformatter = VideoReformatter()

    def of(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 ``[H, W, C]``, valid as long as the frame; raise where the size changes."""
        height, width, channels = self._shape
        if (frame.height, frame.width) != (height, width):
            what = f"changes its size from {height}x{width} to {frame.height}x{frame.width}"
            raise ValueError(what)
        plane = self._reformatter.reformat(frame, format=self._format, threads=1).planes[0]
        rows: np.ndarray = np.frombuffer(memoryview(plane), np.uint8).reshape(
            height, plane.line_size
        )
        return rows[:, : width * channels].reshape(height, width, channels)


class _LostError(ValueError):
    """Frames are not where the index has them, or damaged."""


def open_video(path: str, name: str | None = None) -> OpenVideo:
    """Look at a video's packets, decode its first frame, and count.

    Args:
        path: a regular file, or an fsspec URL, which is read whole.
        name: the file, for errors; None: ``path``.

    Raises:
        DataError: no file, no video, or none of it decodes.
        OSError: the system cannot read it.
    """
    name = name or path
    check_scheme(path)
    local = local_path(path)
    if local is None:
        data = read_bytes(path, most=MOST_CLIP_BYTES)
        with _reading(name):
            return OpenVideo(name, scan(data), data)
    path = local
    key = (path, *check_regular(path))
    with _reading(name):
        return OpenVideo(name, index_cache.get(key, scan), path)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an error that names the file."""
    try:
        yield
    except DataError:
        raise
    except av.FFmpegError as error:
        what = f"cannot be decoded: {error.strerror} ({type(error).__name__})"
        raise DataError(what, where=name) from error
    except Exception as error:  # PyAV has errors of its own, and files that meet none of them
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise DataError(what, where=name) from error


def _wanted(
    container: InputContainer,
    stream: VideoStream,
    index: Index,
    wanted: Iterable[int],
    *,
    seek: bool,
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the wanted frames, by rising number.

    Raises:
        _LostError: frames are not those of the index, or damaged, or end too early.
    """
    if not seek or index.times is None:
        yield from _numbered(decoded(container.demux(stream)), wanted, index)
        return
    needed = Needed(stream, index.times, hurry=not index.interlaced)
    for key, numbers in _stretches(index, index.times, wanted):
        packets: Iterable[Packet[VideoStream]] = container.demux(stream)
        position = 0
        if key is not None:
            arrived, packets = _sought(container, stream, index.keys, key)
            position = int(np.searchsorted(index.times, arrived))
        frames = needed.frames(packets, numbers)
        yield from _numbered(frames, numbers, index, position, needed)


def _numbered(
    frames: Iterator[VideoFrame],
    wanted: Iterable[int],
    index: Index,
    position: int = 0,
    needed: Needed | None = None,
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield those of frames that are wanted; ``position`` is the number of the first that comes.

    Raises:
        _LostError: as ``_wanted``.
    """
    times = index.times if index.timed else None
    for number in wanted:
        for frame in frames:
            while needed is not None and position < number and not needed.comes(position):
                position += 1
            here, position = position, position + 1
            if times is not None and frame.pts != times[here]:
                what = f"frame {here} of {index.frames} is not at its time"
                raise _LostError(what)
            if frame.is_corrupt and (needed is not None or (index.intra and here == number)):
                what = f"frame {here} of {index.frames} is damaged"
                raise _LostError(what)
            if here == number:
                yield number, frame
                break
        else:
            what = f"decoding ends at frame {position} of {index.frames}"
            raise _LostError(what)


def _stretches(
    index: Index, times: np.ndarray, wanted: Iterable[int]
) -> Iterator[tuple[int | None, list[int]]]:
    """Cut rising numbers where seeking leaves out frames; yield the keyframe to be sought.

    None: decoding starts with the file.
    """
    start: int | None = None
    stretch: list[int] = []
    position = 0
    for number in wanted:
        key = index.keys[np.searchsorted(index.keys, times[number], side="right") - 1]
        if np.searchsorted(times, key) > position:
            if stretch:
                yield start, stretch
            start, stretch = int(key), []
        stretch.append(number)
        position = number + 1
    if stretch:
        yield start, stretch


def _sought(
    container: InputContainer, stream: VideoStream, keys: np.ndarray, key: int
) -> tuple[int, Iterator[Packet[VideoStream]]]:
    """Seek to a keyframe; return the time arrived at, and the packets from there on.

    Raises:
        _LostError: seeking arrived at something else than a keyframe, or at one that is too late.
    """
    container.seek(int(key), stream=stream)
    packets = iter(container.demux(stream))
    first = next(packets)
    start = first.pts
    if start is None or start not in keys or start > key:
        what = "the file cannot be sought"
        raise _LostError(what)
    # What comes after a keyframe but is shown before it needs frames that are not there.
    shown = (packet for packet in packets if packet.pts is None or packet.pts >= start)
    return start, chain([first], shown)


class Needed:
    """Decodes no more than it takes to have some frames of a stretch of packets.

    Packets whose frames are not wanted, and from which no other is predicted, never come to the
    decoder; nor does anything behind the last packet wanted: the decoder is asked for what it holds
    back instead. All frames that come are as they would be with the others.

    Args:
        stream: of the packets.
        times: of all frames, by their numbers.
        hurry: whether to end with the last packet wanted. Not of interlaced videos: the second
            field of a frame may be a packet of its own.
    """

    def __init__(self, stream: VideoStream, times: np.ndarray, *, hurry: bool) -> None:
        self._codec = stream.codec_context
        self._units = PacketUnits(self._codec.codec.canonical_name, self._codec.extradata)
        self._times, self._hurry = times, hurry
        self._sent: set[int] = set()  # times of packets
        self._left_out: set[int] = set()
        self._ended = False

    def frames(
        self, packets: Iterable[Packet[VideoStream]], wanted: list[int]
    ) -> Iterator[VideoFrame]:
        """Yield the frames of a stretch, at least those wanted, by their numbers.

        Raises:
            _LostError: a frame is of fields after all.
        """
        self._ended = False
        yield from decoded(self._of(packets, set(self._times[wanted].tolist())))
        if self._ended:
            for frame in self._codec.decode(None):
                if frame.interlaced_frame:
                    what = "a frame is interlaced"
                    raise _LostError(what)
                yield frame

    def comes(self, number: int) -> bool:
        """Return whether the frame of this number may still come."""
        time = self._times[number]
        return time in self._sent if self._ended else time not in self._left_out

    def _of(
        self, packets: Iterable[Packet[VideoStream]], wanted: set[int]
    ) -> Iterator[Packet[VideoStream]]:
        """Yield the packets that are to be decoded."""
        missing: set[int | None] = set(wanted)
        for packet in packets:
            time = packet.pts
            if time is None or time in wanted or not self._units.spare(packet):
                if time is not None:
                    self._sent.add(time)
                yield packet
            else:
                self._left_out.add(time)
            missing.discard(time)
            if not missing and self._hurry:
                self._ended = True
                return
