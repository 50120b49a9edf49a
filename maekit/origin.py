"""Which part an error comes from: its kind, name and distribution, and its place in the recipe.

What a part does wrong is said as that part's, and never as a bug of maekit: by ``naming`` where it
is known which part is at work, and by ``blamed`` of an error that came from within one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from maekit.errors import BUG, Interrupted, MaekitError, PartError, RecipeError, code_of
from maekit.installed import OURS


@dataclass(frozen=True)
class Place:
    """Where a recipe names a part; all are alike, as it is no part of what is named.

    Attributes:
        key: ``pretrain.masker``.
        mark: ``file:line``, or the command line.
    """

    key: str | None = None
    mark: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place)

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True)
class Origin:
    """Where a part comes from.

    Attributes:
        kind: ``masker``, ``target``, ``backbone``, ``decoder`` or ``dataset``.
        name: as its distribution calls it.
        distribution, version: that it is of.
        place: in the recipe.
    """

    kind: str
    name: str
    distribution: str
    version: str
    place: Place = Place()

    @property
    def ours(self) -> bool:
        """Whether it is one of maekit's own."""
        return self.distribution == OURS

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.distribution} {self.version}"

    def error(self, what: str, hint: str | None = None) -> PartError:
        """Return the error that says what this part does: ``what`` begins with a verb."""
        key = f"{self.place.key}: " if self.place.key else ""
        return PartFault(f"{key}{self} {what}", where=self.place.mark, hint=hint)

    def named(self, error: Exception) -> Exception:
        """Return what an error within this part means, or the error itself.

        One of maekit's own kinds says what it is; a part's own (PartError) does not know its place.
        Any other is the part's failure, unless it is one of the machine's (memory, a full disk), or
        the part is maekit's own: then it is a bug.
        """
        if isinstance(error, PartFault):
            return error
        if isinstance(error, PartError):
            return self._placed(error)
        foreseen = isinstance(error, (MaekitError, Interrupted))
        if foreseen or self.ours or code_of(error) not in (BUG, RecipeError.exit_code):
            return error
        hint = f"report this to the authors of {self.distribution}, or use another part"
        if "meta tensor" in str(error):  # torch: "Tensor.item() cannot be called on meta tensors"
            hint = (
                "parts are also built on torch's meta device, where tensors have no values: "
                "compute sizes and rates with Python's numbers or numpy"
            )
        return self.error(f"fails: {type(error).__name__}: {error}", hint)

    def _placed(self, error: PartError) -> PartError:
        """Say where the part stands that refuses something."""
        key, mark = self.place.key, self.place.mark
        if self.ours and mark is None:
            return error
        where, said = error.where, error.what
        if where is not None and key is not None and where.startswith(key):
            key, where = where, None
        subject = [] if self.ours else [str(self)]
        words = [*([key] if key else []), *subject, *([where] if where and mark else []), said]
        return PartFault(": ".join(words), where=mark or where, hint=error.hint)


class PartFault(PartError):  # noqa: N818 - as it reads
    """An error that says which part it is of, and where a recipe names it."""


@contextmanager
def naming(origin: Origin | None) -> Iterator[None]:
    """Let errors within say which part they are of; None: let them pass."""
    try:
        yield
    except Exception as error:
        named = error if origin is None else origin.named(error)
        if named is error:
            raise
        raise named from error


# Of parts that are alive, by their ids.
_known: dict[int, tuple[weakref.ref[object], Origin]] = {}


def remember(part: object, origin: Origin) -> None:
    """Remember where a part comes from, as long as it lives."""
    number = id(part)
    try:
        known = weakref.ref(part, lambda _: _known.pop(number, None))
    except TypeError:  # a class with slots: its errors stay as they are
        return
    _known[number] = (known, origin)


def origin_of(part: object) -> Origin | None:
    """Return where a part comes from; None: it was not built of a recipe or of weights."""
    known, origin = _known.get(id(part), (None, None))
    return origin if known is not None and known() is part else None


def fault(part: object, what: str, hint: str | None = None) -> PartError:
    """Return the error that says what a part does: ``what`` begins with a verb."""
    origin = origin_of(part)
    if origin is None:
        return PartError(f"{type(part).__name__} {what}", hint=hint)
    return origin.error(what, hint)


def blamed(error: BaseException) -> PartError | None:
    """Return what an error means that came from within a part; None: it came from none."""
    if not isinstance(error, Exception) or isinstance(error, PartFault):
        return None
    cause: BaseException | None = error
    while cause is not None:
        origin = _within(cause.__traceback__)
        if origin is not None:
            named = origin.named(error)
            return named if named is not error and isinstance(named, PartError) else None
        cause = cause.__cause__
    return None


def _within(trace: TracebackType | None) -> Origin | None:
    """Return the first part whose code was running."""
    while trace is not None:
        origin = origin_of(trace.tb_frame.f_locals.get("self"))
        if origin is not None:
            return origin
        trace = trace.tb_next
    return None
