"""Folders walked: which of their files a set takes, and which it leaves out.

A folder set takes files by suffix. A name that has none is no answer, so that the first bytes are
asked.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maekit.data.sniff import Family, content_of
from maekit.errors import DataError
from maekit.stop import hearing
from maekit.text import listed, quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN_LINKS = 3
_MOST_KINDS = 12  # of files that are left out, by name; all others together are one more
_WORD = re.compile(r"\.[a-z][a-z0-9]{0,9}")  # what a suffix looks like; `.1` and `.jpg?w=9` do not
NO_SUFFIX = ""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The files that a set takes.

    Attributes:
        suffixes: small letters, with the dot.
        families: of files whose names have no suffix, those that are taken.
    """

    suffixes: frozenset[str]
    families: frozenset[Family]

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.suffixes | other.suffixes, self.families | other.families)

    def takes(self, path: str, tally: Tally | None = None) -> bool:
        """Return whether a file is taken, and count it."""
        suffix = suffix_of(path)
        taken = suffix in self.suffixes
        if not taken and not _WORD.fullmatch(suffix):
            suffix, taken = NO_SUFFIX, self._holds(path)
        if tally is not None:
            tally.add(path, suffix, taken=taken)
        return taken

    def _holds(self, path: str) -> bool:
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - a million of them
        except (OSError, ValueError):
            return False
        found = content_of(path) if regular else None  # to open a named pipe would be to wait
        return found is not None and found.family in self.families


@dataclass
class Tally:
    """Counts of the files of a folder by suffix; NO_SUFFIX stands for none."""

    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)  # of what is left, the first file

    def add(self, path: str, suffix: str, *, taken: bool) -> None:
        """Count a file."""
        (self.taken if taken else self.left)[suffix] += 1
        if not taken:
            self.example.setdefault(suffix, path)

    @property
    def left_out(self) -> dict[str, int]:
        """Say what is left out, by reason, the most frequent first."""
        most = self.left.most_common(_MOST_KINDS)
        found = {_files(suffix): count for suffix, count in most}
        if rest := self.left.total() - sum(found.values()):
            found["files of other kinds"] = rest
        return found

    @property
    def composition(self) -> str | None:
        """Say what is taken; None where that is files of one suffix."""
        if len(self.taken) < 2 and NO_SUFFIX not in self.taken:
            return None
        return ", ".join(
            quantity(count, _files(suffix)) + ("" if suffix else " (known by their first bytes)")
            for suffix, count in self.taken.most_common()
        )

    def strangers(self) -> str:
        """Say what a folder holds in which nothing was found, and what may be done with it."""
        if not self.left:
            return "the folder is empty"
        what = listed(self.left_out)
        for suffix, _ in self.left.most_common():
            found = content_of(self.example[suffix])
            if found is not None and found.hint:
                return f"in it: {what}; {self.example[suffix]} is {found.name}: {found.hint}"
        return f"in it: {what}"


def _files(suffix: str) -> str:
    return f"{suffix} files" if suffix else "files without a suffix"


def suffix_of(name: str) -> str:
    """Return a name's suffix in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million, at a third of Path's cost


def walk(
    folder: str, wanted: Wanted, *, empty_folders: bool = False, tally: Tally | None = None
) -> Iterator[str]:
    """Yield the wanted files below a folder, relative to it, sorted; links are followed.

    With ``empty_folders``, a folder that has such a suffix itself, and no such file in it, is
    given in place of one. Hidden files and folders (and with them ``._*``) are skipped. Every
    folder is walked once, under its own name where it lies below this one: a link to a folder that
    is walked anyway would count its files again, and a web of links would never end. A suffix is
    enough: whether the file is good shows on reading.

    Args:
        folder: where to look.
        wanted: what to take.
        empty_folders: see above.
        tally: counts what is taken and what is left out.

    Raises:
        DataError: a folder cannot be listed.
        Interrupted: a signal has come.
    """
    seen = {_identity(folder)}
    own: set[tuple[int, int]] | None = None  # the folders below that are not links, once needed
    repeated: list[str] = []
    # Not recursive: folders may lie deeper than Python calls. Of each open folder: its path, what
    # is left of it, and whether a file was found in it.
    stack = [_Level("", _entries(folder))]
    while stack:
        level = stack[-1]
        entry = next(level.entries, None)
        if entry is None:
            stack.pop()
            named = bool(stack) and suffix_of(level.path) in wanted.suffixes
            if named and not level.found and empty_folders:
                yield level.path
            if stack and (named or level.found):
                stack[-1].found = True
            continue
        path = f"{level.path}/{entry.name}" if level.path else entry.name
        if not _is_folder(entry):
            if wanted.takes(entry.path, tally):
                level.found = True
                yield path
            continue
        here = _identity(entry.path)
        if entry.is_symlink() and here not in seen:
            own = _own_folders(folder) if own is None else own
        if here in seen or (own is not None and entry.is_symlink() and here in own):
            repeated.append(path)
            continue
        seen.add(here)
        stack.append(_Level(path, _entries(entry.path)))
    if repeated:
        shown = ", ".join(repeated[:_SHOWN_LINKS]) + (", ..." if repeated[_SHOWN_LINKS:] else "")
        text = "%s: %d links lead to folders that are listed anyway and are not followed: %s"
        _log.warning(text, folder, len(repeated), shown)


@dataclass
class _Level:
    """A folder that is being walked."""

    path: str
    entries: Iterator[os.DirEntry[str]]
    found: bool = False


def _identity(folder: str) -> tuple[int, int]:
    """Return what tells a folder from all others, by whatever name it is reached."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - as above
    except OSError as error:
        raise _unlisted(folder, error) from error
    return status.st_dev, status.st_ino


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Iterate over what lies in a folder and is not hidden, sorted."""
    try:
        with os.scandir(folder) as listing:
            entries = [each for each in hearing(listing) if not each.name.startswith(".")]
    except OSError as error:
        raise _unlisted(folder, error) from error
    yield from hearing(sorted(entries, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself: to read it fails, by name
            return False
        raise _unlisted(entry.path, error) from error


def _own_folders(top: str) -> set[tuple[int, int]]:
    """Return the folders at and below one that are reached without a link."""
    found = {_identity(top)}
    left = [top]
    while left:
        for entry in _entries(left.pop()):
            if entry.is_dir(follow_symlinks=False):
                found.add(_identity(entry.path))
                left.append(entry.path)
    return found


def _unlisted(folder: str, error: OSError) -> DataError:
    what = f"the folder cannot be listed: {error.strerror}"
    return DataError(what, where=folder, hint="make it readable, or move it away")
