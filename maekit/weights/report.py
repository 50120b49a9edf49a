"""What became of each tensor of a foreign file: nothing is dropped, or filled in, unsaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from maekit.errors import WeightsError


@dataclass(frozen=True)
class Report:
    """How a file's tensors and a format's keys came together.

    Attributes:
        kind: the format that was recognized.
        matched: how many of the file's tensors have a place.
        missing: keys that a whole file of this kind has and this one lacks.
        unexpected: keys of the file that have no place in maekit's model.
        aside: what is not taken because of what it is, each with how many and why.
        reshaped: tensors that change shape on the way, as text.
        notes: what else one should know: a guess, a warning.
    """

    kind: str
    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self, where: str, allow_missing: Sequence[str] = ()) -> None:
        """Hold the file to 100 %.

        Args:
            allow_missing: patterns (``head.*``) of keys that may be missing or dropped.

        Raises:
            WeightsError: other keys are missing or unexpected; every one is named.
        """
        problems = []
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            left = [name for name in names if not allowed(name, allow_missing)]
            if left:
                problems.append(f"{len(left)} {what}: {', '.join(left)}")
        if not problems:
            return
        msg = f"{self.kind}: {self.matched} tensors match; " + "; ".join(problems)
        patterns = sorted({_pattern(name) for name in (*self.missing, *self.unexpected)})
        flags = " ".join(f"--allow-missing '{pattern}'" for pattern in patterns[:6])
        hint = (
            f"another file, or `maekit weights convert` with {flags} where it is right to drop "
            "what is unexpected and to start what is missing afresh"
        )
        raise WeightsError(msg, where=where, hint=hint)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"{self.kind}: {self.matched} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.reshaped)} reshaped"
        )
        for what in ("missing", "unexpected", "reshaped"):
            names: tuple[str, ...] = getattr(self, what)
            if names:
                yield f"{what}: {', '.join(names)}"
        yield from (f"left aside: {each}" for each in self.aside)
        yield from self.notes

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "format": self.kind,
            "matched": self.matched,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "aside": list(self.aside),
            "reshaped": list(self.reshaped),
            "notes": list(self.notes),
        }


def allowed(name: str, patterns: Sequence[str]) -> bool:
    """Whether a key matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _pattern(name: str) -> str:
    """A pattern that covers a key and its like: ``head.weight`` gives ``head.*``."""
    layer, dot, _ = name.rpartition(".")
    return f"{layer}.*" if dot else name
