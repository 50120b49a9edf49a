"""The nearest known word to one that is not known."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str | None:
    """``did you mean ...?`` for the nearest of ``known``, or None if nothing is near."""
    words = {str(item).lower(): str(item) for item in known}
    near = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return f"did you mean '{words[near[0]]}'?" if near else None
