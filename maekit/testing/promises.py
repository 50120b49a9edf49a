"""Promises: each is checked by itself, under its own name, and all that are broken are told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from maekit.data.rng import seeded
from maekit.errors import MaekitError
from maekit.text import quantity


class OfPart(Protocol):
    """What a check is given at least."""

    @property
    def part(self) -> type:
        """The class that is checked."""


Trial = TypeVar("Trial", bound=OfPart)


class NotApplicableError(Exception):
    """A promise that this part has no occasion to break; the text says why."""


@dataclass(frozen=True)
class Promise(Generic[Trial]):
    """One promise of a kind of parts.

    Attributes:
        name: in words, joined by underscores.
        says: the same as a sentence.
        check: raises AssertionError where it is broken.
        needs: promises without which this one cannot be looked at.
    """

    name: str
    says: str
    check: Callable[[Trial], None]
    needs: tuple[str, ...] = ()


class Promises(Generic[Trial]):
    """All promises of one kind of parts, in the order in which they are checked."""

    def __init__(self) -> None:
        self._all: dict[str, Promise[Trial]] = {}

    def __iter__(self) -> Iterator[Promise[Trial]]:
        return iter(self._all.values())

    def __call__(self, *needs: str) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
        """Declare a function as the check of a promise of its own name.

        Args:
            needs: promises, declared before, without which it cannot be checked.
        """
        unknown = set(needs) - self._all.keys()
        if unknown:
            msg = f"declared before: {sorted(unknown)}"
            raise ValueError(msg)

        def declare(check: Callable[[Trial], None]) -> Callable[[Trial], None]:
            says = (check.__doc__ or "").partition("\n")[0]
            self._all[check.__name__] = Promise(check.__name__, says, check, needs)
            return check

        return declare


@dataclass(frozen=True)
class Outcome:
    """What became of one promise; ``broken`` says how, ``left`` why it was not looked at."""

    promise: str
    says: str
    broken: str | None = None
    left: str | None = None


class BrokenPromiseError(AssertionError):
    """A part does not keep its contract.

    Attributes:
        outcomes: those of all promises.
        promises: the names of those that are broken.
    """

    def __init__(self, part: str, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = tuple(outcomes)
        broken = [each for each in outcomes if each.broken is not None]
        self.promises = tuple(each.promise for each in broken)
        lines = [f"  {each.promise}: {each.broken}" for each in broken]
        head = f"{part} breaks {quantity(len(broken), 'promises')} of maekit.contracts"
        super().__init__("\n".join([head, *lines]))


def kept(
    promises: Promises[Trial],
    trial: Trial,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> list[Outcome]:
    """Check promises one by one, each under the same state of the global generators.

    Args:
        promises: of the part's kind.
        trial: holds the part, and how it is built.
        only: names of those to check; None: all.
        without: names of those that are left out.

    Raises:
        ValueError: there is no promise of such a name.
    """
    names = [each.name for each in promises]
    unknown = sorted({*without, *(only or ())} - set(names))
    if unknown:
        msg = f"no promise {', '.join(unknown)}; there are {', '.join(names)}"
        raise ValueError(msg)
    found: dict[str, Outcome] = {}
    for each in promises:
        if each.name in without or (only is not None and each.name not in only):
            found[each.name] = Outcome(each.name, each.says, left="not asked for")
            continue
        lost = [name for name in each.needs if found[name].broken is not None]
        lost += [name for name in each.needs if (found[name].left or "").startswith("without ")]
        if lost:
            found[each.name] = Outcome(each.name, each.says, left=f"without {lost[0]}")
            continue
        with seeded(0, purpose="testing"):
            found[each.name] = _outcome(each, trial)
    return list(found.values())


def _outcome(promise: Promise[Trial], trial: Trial) -> Outcome:
    broken = left = None
    try:
        promise.check(trial)
    except NotApplicableError as error:
        left = str(error)
    except AssertionError as error:
        broken = str(error) or f"an assertion fails{_place(error, trial.part)}"
    except Exception as error:  # noqa: BLE001 - whatever a part does
        text = str(error).partition("\n")[0][:300]
        what = error.what if isinstance(error, MaekitError) else f"{type(error).__name__}: {text}"
        broken = f"raises {what}{_place(error, trial.part)}"
    return Outcome(promise.name, promise.says, broken, left)


def _place(error: BaseException, part: type) -> str:
    """Return where the part's own code raised an error, as ``(file:line)`` after a space."""
    home, found, trace = part.__module__.partition(".")[0], "", error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == home and not module.startswith(__package__ or "."):
            found = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def raise_broken(part: str, outcomes: Sequence[Outcome]) -> None:
    """Raise BrokenPromiseError where one is broken."""
    if any(each.broken is not None for each in outcomes):
        raise BrokenPromiseError(part, outcomes)
