"""Names as text: of files that are not UTF-8, and of ones that would steer a terminal.

Python gives a byte of a file's name that is not UTF-8 as a lone surrogate (PEP 383). That is the
file's name in every call, but it is no text: encoders refuse it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# But for line ends and tabs: what terminals obey (C0, DEL, C1), what reorders the text around it,
# and what cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
    "\U0010fe80-\U0010feff]"
)
_BYTES = re.compile("[\udc80-\udcff]")
_CARRIED = re.compile("[\U0010fe80-\U0010feff]")
_TO_CARRIED = 0x10FE80 - 0xDC80


_THINGS = "channel|clip|file|folder|frame|kind|page|picture|promise|sample|source|video|view"
_PLURAL = re.compile(rf"(?<![\w.])({_THINGS})s\b")


def quantity(count: int, things: str) -> str:
    """Put a number before things: ``1 .txt file``, ``1,200 .txt files``."""
    named = _PLURAL.sub(r"\1", things) if count == 1 else things
    return f"{count:,} {named}"


def listed(counts: Mapping[str, int]) -> str:
    """Put counts of things into words: ``3 .txt files, 1 page``."""
    return ", ".join(quantity(count, things) for things, count in counts.items())


def printable(text: str, *, lines: bool = True) -> str:
    r"""Return text that may go to a terminal or a log: ``\x1b`` and the like are written out.

    Args:
        text: what is to be shown, with names in it.
        lines: whether it may have more than one line; else line ends are written out, too.
    """
    shown = _UNPRINTABLE.sub(_escaped, text)
    return shown if lines else shown.replace("\n", "\\n")


def as_text(name: str) -> str:
    r"""Return a file's name as text that can be encoded: bytes that are not UTF-8 as ``\xe9``."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def carried(text: str) -> str:
    """Return a name whose bytes that are not UTF-8 are private characters, for strict encoders."""
    return _BYTES.sub(lambda found: chr(ord(found[0]) + _TO_CARRIED), text)


def restored(text: str) -> str:
    """Return the name that was ``carried``."""
    return _CARRIED.sub(lambda found: chr(ord(found[0]) - _TO_CARRIED), text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(restored(found[0]))
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
