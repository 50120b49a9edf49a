"""The errors a user can meet. Each says what happened, where, and what to try."""

from __future__ import annotations

from typing import ClassVar


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
        place = f"{self.where}: " if self.where else ""
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
