"""Whether packets hold what their own lengths say: damage that shows without decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

# Where the byte with the size of lengths stands in the codec's configuration record
# (ISO/IEC 14496-15: avcC 5.3.3.1.2, hvcC 8.3.3.1.2).
_SIZE_AT = {"h264": 4, "hevc": 21}


class Framing:
    """Walks the length-prefixed units of H.264 and HEVC packets in MP4 and MKV.

    Args:
        codec: FFmpeg's name of the codec; of others every packet passes.
        record: the codec's configuration; without one, packets have start codes, and pass too.
    """

    def __init__(self, codec: str, record: bytes | None) -> None:
        at = _SIZE_AT.get(codec)
        self._size = 0
        # A configuration with start codes begins with zeros, a record with its version, 1.
        if at is not None and record and len(record) > at and record[0] == 1:
            self._size = (record[at] & 3) + 1

    def whole(self, packet: Packet[VideoStream]) -> bool:
        """Whether the units fill the packet to its last byte."""
        if not self._size:
            return True
        content, place = memoryview(packet), 0
        while place + self._size <= len(content):
            length = int.from_bytes(content[place : place + self._size], "big")
            place += self._size + length
        return place == len(content)
