"""What packets say without being decoded: damage to their lengths, pictures that may be skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

# HEVC's leading pictures (RASL_N, RASL_R; ITU-T H.265 table 7-1). They need pictures from before
# their keyframe: after a cut, which no packet shows, decoders drop them.
_SKIPPED = (8, 9)
# Where the byte with the size of lengths stands in the codec's configuration record
# (ISO/IEC 14496-15: avcC 5.3.3.1.2, hvcC 8.3.3.1.2).
_SIZE_AT = {"h264": 4, "hevc": 21}


class Framing:
    """Walks the length-prefixed units of H.264 and HEVC packets in MP4 and MKV.

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
        """Whether a frame must come of the packet.

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
