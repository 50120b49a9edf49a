"""The errors a user can meet, and the exit code of every error.

Each says what happened, where, and what to try. Exit codes: 0 done, 1 a bug, 2 usage or recipe,
3 weights, 4 non-finite loss, 5 out of memory, 6 data, 7 storage, 8 a rank or worker died,
75 interrupted and resumable, 130 stopped by Ctrl-C, 141 where nobody reads stdout any more.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from typing import ClassVar

from maekit.text import printable

BUG = 1
OUT_OF_MEMORY = 5
INTERRUPTED = 75  # resumable (EX_TEMPFAIL): schedulers take it as "run me again"
STOPPED = 130  # by Ctrl-C

# What the system says where a disk is the cause, not the request. Windows has no
# quota, and calls a stale handle something else.
_STORAGE = {
    getattr(errno, name, errno.EIO)
    for name in (
        "EACCES", "EBUSY", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENODEV", "ENOSPC",
        "ENOTEMPTY", "EPERM", "EROFS", "ESTALE", "ETIMEDOUT", "ETXTBSY",
    )
}  # fmt: skip


NO_NAMES = {errno.ENAMETOOLONG, errno.ELOOP}  # what cannot be the name of anything


class MaekitError(Exception):
    """Base of all errors that maekit raises on purpose.

    Args:
        what: what is wrong, with the offending value.
        where: the place: ``file:line``, a key's path, or a file.
        hint: what to try next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{printable(self.where, lines=False)}: " if self.where else ""
        advice = f"\n  try: {self.hint}" if self.hint else ""
        return f"{place}{self.what}{advice}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive BaseException's own reduction, and errors cross
        # process borders (loader workers).
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(
    kind: type[MaekitError], what: str, where: str | None, hint: str | None
) -> MaekitError:
    return kind(what, where=where, hint=hint)


class RecipeError(MaekitError):
    """The recipe or the command line asks for something that cannot be (exit 2)."""

    exit_code = 2


class PartError(MaekitError):
    """A part is unknown, broken, or does not keep its contract (exit 2)."""

    exit_code = 2


class WeightsError(MaekitError):
    """Weights cannot be read, or do not match the model (exit 3)."""

    exit_code = 3


class NonFiniteError(MaekitError):
    """The loss or the gradients stayed non-finite (exit 4)."""

    exit_code = 4


class DataError(MaekitError):
    """A sample or a data set cannot be used (exit 6)."""

    exit_code = 6


class StorageError(MaekitError):
    """The disk is full or not writable, or a run folder is in use (exit 7)."""

    exit_code = 7


class RankError(MaekitError):
    """A rank or a loader worker died and could not be replaced (exit 8)."""

    exit_code = 8


class Interrupted(Exception):  # noqa: N818 (not an error: the run can go on)
    """A signal stopped the run; the text says what of it was saved."""

    exit_code: ClassVar[int] = INTERRUPTED


def code_of(error: BaseException) -> int:
    """Return the exit code of an error."""
    if isinstance(error, (MaekitError, Interrupted)):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    if _out_of_memory(error):
        return OUT_OF_MEMORY
    missing = isinstance(error, FileNotFoundError)
    if isinstance(error, OSError) and (missing or error.errno in NO_NAMES):
        return BUG if _is_internal(error) else RecipeError.exit_code
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return StorageError.exit_code
    return BUG


# Names that Python gives to what a program needs for itself.
_INTERNAL = ("psm_", "pymp-", "tmp", "sem.", "listener-")


def _is_internal(error: OSError) -> bool:
    """Return whether the file is none that a user named: no advice to check the path helps then."""
    if not isinstance(error.filename, str | bytes):
        return error.filename is None
    folder, name = os.path.split(os.fsdecode(error.filename))
    own = folder in {"", "/", "/dev/shm", tempfile.gettempdir()}  # noqa: S108 - compared
    return own and name.startswith(_INTERNAL)


_NO_MEMORY = ("DefaultCPUAllocator: can't allocate", "can't start new thread")


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # Not imported here: where torch was never loaded, the error is not torch's.
    torch = sys.modules.get("torch")
    kind = getattr(torch, "OutOfMemoryError", None)
    if kind is not None and isinstance(error, kind):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in _NO_MEMORY)


def storage_advice(error: OSError) -> str:
    """Return what to try where the system refuses a file."""
    if isinstance(error, FileNotFoundError):
        return "check the path" if _has_folder() else "change to a folder that is still there"
    if error.errno in NO_NAMES:
        return "a shorter name, without links that lead to themselves"
    if error.errno in {errno.EACCES, errno.EROFS}:
        return "a folder that you can write to (--out DIR)"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "allow more open files (ulimit -n 4096), or fewer data.workers"
    if error.errno in {errno.EIO, errno.ESTALE}:
        return "the disk or its connection failed: wait until it answers"
    return "free some space, or another disk (--out DIR)"


def _has_folder() -> bool:
    """Return whether the working directory still exists."""
    try:
        os.getcwd()  # noqa: PTH109 - the same, and only this is asked
    except FileNotFoundError:
        return False
    return True
