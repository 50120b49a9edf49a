"""The index of a video file, made from its packets and its first frame.

What files say of themselves is often wrong (number of frames, duration, rate), so it is not used.
A look at the packets, which costs about a millisecond for each megabyte, sorts files in two kinds:

- *timed*: a container with an index, a codec that makes one frame of each packet, and times that
  are all there and all different. Frames are counted by packets, and can be sought.
- *counted*: all others (AVI, whose times lie where there are B-frames; raw streams, transport
  streams; HEVC with leading pictures, which are dropped where the file was cut; files whose packets
  show damage). Frames are counted by decoding.

A counted file with damage is as long as what decodes before the decoder's first error. A timed one,
whose packets show none, has as many frames as packets, until a clip that needs the damaged frames
shows that they do not come: from then on it is counted. (Codecs without prediction give no such
clip, and all others.)
"""

from __future__ import annotations

import io
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import av
import numpy as np
from av.stream import Disposition

from maekit.data.images import oriented

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
# Not vp8 (hidden packets), mpeg4 (packed and skipped ones), nor ffv1 (paints over damage without a
# word, from whatever was decoded before).
_FRAME_EACH = frozenset(
    {"av1", "dnxhd", "h264", "hevc", "mjpeg", "png", "prores", "rawvideo", "vp9"}
)
_INTRA = frozenset({"dnxhd", "mjpeg", "png", "prores", "rawvideo"})
# 8,192 x 8,192; decoders keep up to 16 frames to predict others from.
_MOST_PIXELS = 2**26
_KEPT_BYTES = 32 * 2**20  # of indices, in each process


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
    times: np.ndarray | None  # int64 [frames], in units of ``tick``; None for counted files
    keys: np.ndarray  # int64 [K]: the times of keyframes, rising
    tick: float  # seconds

    @property
    def nbytes(self) -> int:
        """About what it costs to keep."""
        return 512 + self.keys.nbytes + (0 if self.times is None else self.times.nbytes)


class IndexCache:
    """Indices by file, size and time of change; the ones longest unused are dropped."""

    def __init__(self) -> None:
        self._indices: OrderedDict[tuple[str, int, int], Index] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, int, int]) -> Index | None:
        """Return a kept index, which is then the last to be dropped."""
        if key in self._indices:
            self._indices.move_to_end(key)
        return self._indices.get(key)

    def put(self, key: tuple[str, int, int], index: Index) -> Index:
        """Keep an index, and drop those used least recently where they are too large."""
        old = self._indices.pop(key, None)
        self._indices[key] = index
        self._bytes += index.nbytes - (0 if old is None else old.nbytes)
        while self._bytes > _KEPT_BYTES and len(self._indices) > 1:
            self._bytes -= self._indices.popitem(last=False)[1].nbytes
        return index


index_cache = IndexCache()


@contextmanager
def opened(
    file: str | bytes, *, strict: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container and its first video stream, to be decoded by one thread.

    Strict: damage that a decoder notices is an error; else most of it is painted over, from the
    frames decoded before.
    """
    # "file:", for names that look like URLs to FFmpeg ("12:30.mp4"). The list of protocols keeps
    # a playlist that calls itself x.mp4 from leading anywhere else.
    source = io.BytesIO(file) if isinstance(file, bytes) else f"file:{file}"
    with av.open(source, "r", options={"protocol_whitelist": "file"}) as container:
        # The picture on the cover of a song is a video stream, too.
        videos = (
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        )
        stream = next(videos, None)
        if stream is None:
            what = "has no video stream"
            raise ValueError(what)
        stream.codec_context.thread_count = 1
        limits = {"max_pixels": str(_MOST_PIXELS)}
        stream.codec_context.options = limits
        if strict:
            damage = {"err_detect": "crccheck+bitstream+buffer+explode"}
            stream.codec_context.options = limits | damage
        yield container, stream


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
    first: VideoFrame | None = None
    with opened(file) as (container, stream):
        codec = stream.codec_context
        _check_frame(codec.height, codec.width)
        name = codec.codec.canonical_name
        units = PacketUnits(name, codec.extradata)
        timed = trust and container.format.name in _INDEXED and name in _FRAME_EACH
        tick, rate = float(stream.time_base or 0), stream.average_rate
        times: list[int | None] = []
        keys: list[int | None] = []
        try:
            for packet in container.demux(stream):
                if first is None:
                    first = next(iter(packet.decode()), None)
                if packet.size == 0:  # the last one only flushes the decoder
                    continue
                flawed = packet.is_corrupt or packet.is_discard
                timed = timed and not flawed and units.one_frame(packet)
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except av.FFmpegError:
            if first is None:
                raise
            timed = False
    if first is None:
        what = "has a video stream, but no frame in it decodes"
        raise ValueError(what)
    _check_frame(first.height, first.width)
    found = _times(times, keys, first) if timed else None
    orientation = _orientation(first)
    height, width = oriented(first.height, first.width, orientation)
    return Index(
        frames=_count(file) if found is None else len(found),
        fps=float(rate) if rate else None,
        height=height,
        width=width,
        channels=_channels(first),
        orientation=orientation,
        intra=name in _INTRA,
        times=found,
        keys=np.array([] if found is None else sorted(set(keys)), dtype=np.int64),  # type: ignore[type-var]
        tick=tick,
    )


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


def _count(file: str | bytes) -> int:
    """Count the frames that a plain decode gives before it ends, or fails."""
    count = 0
    with opened(file) as (container, stream):
        try:
            for _ in decoded(container.demux(stream)):
                count += 1
        except av.FFmpegError:
            if count == 0:
                raise
    return count


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
# Where the byte with the size of lengths is in the codec's configuration record
# (ISO/IEC 14496-15: avcC 5.3.3.1.2, hvcC 8.3.3.1.2).
_SIZE_AT = {"h264": 4, "hevc": 21}


class PacketUnits:
    """The length-prefixed units of H.264 and HEVC packets in MP4 and MKV.

    Args:
        codec: FFmpeg's name of the codec; of others every packet passes.
        record: the codec's configuration; without one, packets have start codes: H.264's pass,
            HEVC's do not.
    """

    def __init__(self, codec: str, record: bytes | None) -> None:
        at = _SIZE_AT.get(codec)
        self._hevc = codec == "hevc"
        self._size = 0
        # A configuration with start codes begins with zeros, a record with its version, 1.
        if at is not None and record and len(record) > at and record[0] == 1:
            self._size = (record[at] & 3) + 1

    def one_frame(self, packet: Packet[VideoStream]) -> bool:
        """Return whether exactly one frame must come of the packet.

        Its units fill it to the last byte, and none is a picture that a decoder may drop.
        """
        if not self._size:
            return not self._hevc  # units between start codes are not looked for
        content, place = memoryview(packet), 0
        while place + self._size <= len(content):
            length = int.from_bytes(content[place : place + self._size], "big")
            place += self._size
            if self._hevc and place < len(content) and content[place] >> 1 & 63 in _SKIPPED:
                return False
            place += length
        return place == len(content)
