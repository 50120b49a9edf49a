"""The index of a video file, made from its packets and its first frame.

What files say of themselves is often wrong (number of frames, duration, rate), so it is not used.
A look at the packets, which costs about a millisecond for each megabyte, sorts files in two kinds:

- *timed*: a container with an index, a codec whose packets say how many frames they make, and
  times that are all there and all different. Frames are counted by packets, and can be sought.
- *counted*: all others (AVI, whose times lie where there are B-frames; raw streams, transport
  streams; HEVC with leading pictures, which are dropped where the file was cut; files whose packets
  show damage). Frames are counted by decoding, without what only makes pixels; their times come
  with them.

A counted file with damage is as long as what decodes before the decoder's first error. A timed one,
whose packets show none, has as many frames as packets, until a clip that needs the damaged frames
shows that they do not come: from then on it is counted. (Codecs without prediction give no such
clip, and all others.)
"""

from __future__ import annotations

import errno
import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import av
import numpy as np
from av.stream import Disposition

from maekit.data.header import oriented

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# FFmpeg's log would go through Python and its locks, where decoders have hung. Errors are raised.
av.logging.set_level(None)

_INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Not mpeg4 (packed and skipped packets), nor ffv1 (paints over damage without a word, from whatever
# was decoded before).
_TELLING = frozenset(
    {"av1", "dnxhd", "h264", "hevc", "mjpeg", "png", "prores", "rawvideo", "vp8", "vp9"}
)
_INTRA = frozenset({"dnxhd", "mjpeg", "png", "prores", "rawvideo"})
# 8,192 x 8,192; decoders keep up to 16 frames to predict others from.
_MOST_PIXELS = 2**26
# Where FFmpeg's own 5 MB and 5 s do not reach the first keyframe, and with it a stream's size: a
# recording that begins between two of them.
_DEEPER = {"probesize": str(2**27), "analyzeduration": str(120 * 10**6)}
# What makes pixels of what was parsed: without filters and transforms, and an eighth as large where
# the codec can, as many frames come, at the same times, and damage stops it at the same place.
_ONLY_PARSED = {"skip_loop_filter": "all", "skip_idct": "all", "lowres": "3"}
_MOST_REORDERED = 32  # frames that a decoder may hold back: 16 of H.264, fields of each
_PASSING = {errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENOENT}


@dataclass(frozen=True)
class Index:
    """Facts of a video file, from one look at it; height and width are upright."""

    frames: int
    fps: float | None
    height: int
    width: int
    channels: Literal[1, 3]
    orientation: int  # as EXIF counts them, 1 to 8
    intra: bool  # each frame is coded by itself
    interlaced: bool  # the first frame is of two fields
    times: np.ndarray | None  # int64 [frames], rising, in ``tick``s; None: the file has none
    timed: bool  # the times are the packets', so that frames can be sought and checked by them
    keys: np.ndarray  # int64 [K]: the times of keyframes, rising; empty for counted files
    tick: float  # seconds
    passing: bool = False  # an error of the system, and not of the file, ended the counting

    @property
    def nbytes(self) -> int:
        """About what it costs to keep."""
        return 512 + self.keys.nbytes + (0 if self.times is None else self.times.nbytes)


@contextmanager
def opened(
    file: str | bytes, *, strict: bool = False, pixels: bool = True
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container and its first video stream, to be decoded by one thread.

    Strict: damage that a decoder notices is an error; else most of it is painted over, from the
    frames decoded before. Without pixels, frames come but for what is in them.
    """
    container, stream = _open(file, {})
    if stream is None or not stream.codec_context.width:
        container.close()
        container, stream = _open(file, _DEEPER)
    with container:
        if stream is None:
            what = "has no video stream"
            raise ValueError(what)
        stream.codec_context.thread_count = 1
        options = {"max_pixels": str(_MOST_PIXELS)}
        if strict:
            options["err_detect"] = "crccheck+bitstream+buffer+explode"
        stream.codec_context.options = options if pixels else options | _ONLY_PARSED
        yield container, stream


def _open(file: str | bytes, probing: dict[str, str]) -> tuple[InputContainer, VideoStream | None]:
    """Open a container, and find its first video stream."""
    # "file:", for names that look like URLs to FFmpeg ("12:30.mp4"). The list of protocols keeps
    # a playlist that calls itself x.mp4 from leading anywhere else.
    source = io.BytesIO(file) if isinstance(file, bytes) else f"file:{file}"
    container = av.open(source, "r", options={"protocol_whitelist": "file"} | probing)
    # The picture on the cover of a song is a video stream, too.
    videos = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return container, next(videos, None)


def decoded(packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """Yield frames in the order in which a plain decode gives them."""
    for packet in packets:
        yield from packet.decode()


def scan(file: str | bytes, *, trust: bool = True) -> Index:
    """Index a file.

    Args:
        file: where it lies, or the whole of it.
        trust: whether packets may be believed; else the file is counted.

    Raises:
        ValueError, av.FFmpegError: none of it decodes.
    """
    with opened(file) as (container, stream):
        codec = stream.codec_context
        _check_frame(codec.height, codec.width)
        name = codec.codec.canonical_name
        timed = trust and container.format.name in _INDEXED and name in _TELLING
        units = PacketUnits(name, codec.extradata) if timed else None
        tick, rate = float(stream.time_base or 0), stream.average_rate
        first, times, keys = _look(container.demux(stream), units)
    if first is None:
        what = "has a video stream, but no frame in it decodes"
        raise ValueError(what)
    _check_frame(first.height, first.width)
    found = None if times is None else _times(times, keys, first)
    timed, count, passing = found is not None, 0 if found is None else len(found), False
    if found is None:
        count, found, passing = _count(file)
    orientation = _orientation(first)
    height, width = oriented(first.height, first.width, orientation)
    return Index(
        frames=count,
        fps=float(rate) if rate else None,
        height=height,
        width=width,
        channels=_channels(first),
        orientation=orientation,
        intra=name in _INTRA,
        interlaced=first.interlaced_frame,
        times=found,
        timed=timed,
        keys=np.array(sorted(set(keys)) if timed else [], dtype=np.int64),  # type: ignore[type-var]
        tick=tick,
        passing=passing,
    )


def _look(
    packets: Iterable[Packet[VideoStream]], units: PacketUnits | None
) -> tuple[VideoFrame | None, list[int | None] | None, list[int | None]]:
    """Decode the first frame, and take the times of the packets that are shown.

    Args:
        packets: of the stream, from its start.
        units: what is in them; None: they are not to be believed, and only looked at up to the
            first frame.

    Returns:
        The first frame; all times, or None where they are not to be believed; those of keyframes.

    Raises:
        av.FFmpegError: no frame decodes before the decoder fails.
    """
    first: VideoFrame | None = None
    times: list[int | None] = []
    keys: list[int | None] = []
    try:
        for packet in packets:
            if first is None:
                first = next(iter(packet.decode()), None)
            if units is None and first is not None:
                break
            if units is None or packet.size == 0:  # the last one only flushes the decoder
                continue
            shown = None if packet.is_corrupt or packet.is_discard else units.frames(packet)
            if shown is None or (packet.is_keyframe and not shown):
                units = None
            elif shown:
                times.append(packet.pts)
                keys.extend([packet.pts] if packet.is_keyframe else [])
    except av.FFmpegError:
        if first is None:
            raise
        units = None
    return first, None if units is None else times, keys


def _check_frame(height: int, width: int) -> None:
    if height * width > _MOST_PIXELS:
        what = f"has frames of {height} x {width} pixels, more than the limit of {_MOST_PIXELS}"
        raise ValueError(what)


def _times(times: list[int | None], keys: list[int | None], first: VideoFrame) -> np.ndarray | None:
    """Return the packets' times in rising order, or None where they cannot be trusted."""
    if None in times or not keys:
        return None
    rising = np.unique(np.array(times, dtype=np.int64))
    whole = len(rising) == len(times)
    # What is shown before the first keyframe may or may not decode.
    starts = times[0] == keys[0] == rising[0] == first.pts
    return rising if whole and starts else None


def _count(file: str | bytes) -> tuple[int, np.ndarray | None, bool]:
    """Count the frames that a plain decode gives before it ends, or fails.

    Returns:
        How many; their times; and whether it was the system that failed, not the file.
    """
    times: list[int | None] = []
    passing = False
    with opened(file, pixels=False) as (container, stream):
        try:
            times.extend(frame.pts for frame in decoded(container.demux(stream)))
        except av.FFmpegError as error:
            if not times:
                raise
            passing = error.errno in _PASSING
    return len(times), _shown(times), passing


def _shown(times: list[int | None]) -> np.ndarray | None:
    """Return when frames are shown, of the times that they carry, in the order in which they come.

    They come in the order in which they are shown. Where their times are out of order by no more
    than a decoder reorders, packets have their places in the file (AVI with B-frames): sorted, they
    are right. A frame without a time stands between its neighbors.

    Returns:
        int64 ``[frames]``, rising; None where they say nothing: none are there, some are equal, or
        they start anew in the middle.
    """
    carried = np.array([place for place, time in enumerate(times) if time is not None])
    if len(carried) < 2:
        return None
    known = np.array([times[place] for place in carried], dtype=np.int64)
    order = np.argsort(known, kind="stable")
    if np.abs(order - np.arange(len(order))).max() > _MOST_REORDERED:
        return None
    known = known[order]
    ends = carried[0] == 0 and carried[-1] == len(times) - 1  # nothing to be guessed beyond them
    filled = np.interp(np.arange(len(times)), carried, known - known[0]).astype(np.int64) + known[0]
    return filled if ends and (np.diff(filled) > 0).all() else None


def _channels(frame: VideoFrame) -> Literal[1, 3]:
    """Return 1 where there is nothing but luma, else 3."""
    form = frame.format
    gray = all(part.is_luma or part.is_alpha for part in form.components)
    return 1 if gray and not form.has_palette else 3


def _orientation(frame: VideoFrame) -> int:
    """Return the display matrix of a frame as an EXIF orientation, 1 to 8.

    The matrix takes a column x and a row y to (a x + c y, b x + d y), in 16.16 fixed point.

    Raises:
        ValueError: it turns by something else than quarters.
    """
    try:
        matrix = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # other side data, of a kind that this PyAV has no name for (EXIF)
        turns = {0: 1, 90: 8, 180: 3, 270: 6}  # counter-clockwise
        if frame.rotation % 360 in turns:
            return turns[frame.rotation % 360]
        raise
    if matrix is None:
        return 1
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
    if (a and d) and not (b or c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[
            a > 0, d > 0
        ]
    if (b and c) and not (a or d):
        # Transposed first: the new column comes from the row, by c; the new row by b.
        return {(True, True): 5, (False, True): 6, (False, False): 7, (True, False): 8}[
            c > 0, b > 0
        ]
    what = "is to be shown turned by something else than quarters"
    raise ValueError(what)


# HEVC's leading pictures (RASL_N, RASL_R; ITU-T H.265 table 7-1). They need pictures from before
# their keyframe: after a cut, which no packet shows, decoders drop them.
_SKIPPED = (8, 9)
# H.264's slices that are no key picture's, and units that change nothing behind their own picture:
# SEI, delimiters, filler (ITU-T H.264, table 7-1).
_PICTURES, _REMARKS = (1,), (6, 9, 12)
# Where the byte with the size of lengths is in the codec's configuration record
# (ISO/IEC 14496-15: avcC 5.3.3.1.2, hvcC 8.3.3.1.2).
_SIZE_AT = {"h264": 4, "hevc": 21}


class PacketUnits:
    """What is in packets: the length-prefixed units of H.264 and HEVC, and VP8's first bytes.

    Args:
        codec: FFmpeg's name of the codec; of others every packet makes a frame.
        record: the codec's configuration; without one, packets have start codes: H.264's pass,
            HEVC's do not.
    """

    def __init__(self, codec: str, record: bytes | None) -> None:
        at = _SIZE_AT.get(codec)
        self._hevc, self._vp8 = codec == "hevc", codec == "vp8"
        self._size = 0
        # A configuration with start codes begins with zeros, a record with its version, 1.
        if at is not None and record and len(record) > at and record[0] == 1:
            self._size = (record[at] & 3) + 1

    def frames(self, packet: Packet[VideoStream]) -> int | None:
        """Return how many frames must come of the packet, 0 or 1; None: that cannot be told.

        Units fill a packet to the last byte, and none is a picture that a decoder may drop.
        """
        if self._vp8:
            return _vp8_frames(memoryview(packet))
        if not self._size:
            return None if self._hevc else 1  # units between start codes are not looked for
        content, place = memoryview(packet), 0
        while place + self._size <= len(content):
            length = int.from_bytes(content[place : place + self._size], "big")
            place += self._size
            if self._hevc and place < len(content) and content[place] >> 1 & 63 in _SKIPPED:
                return None
            place += length
        return 1 if place == len(content) else None

    def spare(self, packet: Packet[VideoStream]) -> bool:
        """Return whether no other frame needs the packet's: H.264 says so of each picture.

        The two bits before a unit's kind (nal_ref_idc; ITU-T H.264, 7.4.1) are 0 where nothing is
        predicted from it. Where units are not as they must be, the answer is no.
        """
        if self._hevc or not self._size:
            return False
        content, place, pictures = memoryview(packet), 0, 0
        while place + self._size < len(content):
            length = int.from_bytes(content[place : place + self._size], "big")
            place += self._size
            head = content[place]
            if head & 31 in _PICTURES:
                pictures += 1
                if head & 96:
                    return False
            elif head & 31 not in _REMARKS:
                return False
            place += length
        return pictures > 0 and place == len(content)


def _vp8_frames(content: memoryview) -> int | None:
    """Return 0 for a packet that only others predict from (RFC 6386, 9.1), 1 for one shown."""
    if len(content) < 3:
        return None
    tag = int.from_bytes(content[:3], "little")
    whole = (tag >> 5) + 3 + 7 * (tag & 1 == 0) <= len(content)
    return tag >> 4 & 1 if whole else None
