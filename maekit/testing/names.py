"""Names that look like a contract's: a member that is spelled wrong is never called."""

from __future__ import annotations

import inspect
from difflib import SequenceMatcher
from inspect import get_annotations

NEAR = 0.8  # difflib's ratio: `fits` and `fit` have 0.86, `patch_embed` and `patch` 0.63


def check_names(part: object, base: type) -> None:
    """Name a public attribute of a part that is close to a member of its base, but is none.

    A method counts, and anything else where the member itself is left at its default: a target's
    ``self.encoder`` beside ``encode``, or a backbone's ``widths`` beside ``width``, is no mistake.
    """
    members = _public(base)
    # Every module has these names from torch: they are not the author's spelling.
    torchs = {
        name
        for each in type(part).__mro__
        if each.__module__.split(".")[0] == "torch"
        for name in vars(each)
    }
    for name in sorted({name for name in dir(part) if name[0] != "_"} - members - torchs):
        near = max(members, key=lambda member: SequenceMatcher(None, name, member).ratio())
        ratio = SequenceMatcher(None, name, near).ratio()
        method = inspect.isroutine(inspect.getattr_static(type(part), name, None))
        if not (method or _left(part, base, near)):
            continue
        assert ratio < NEAR, f"has an attribute `{name}`; did you mean `{near}`? Else rename it"


def _left(part: object, base: type, member: str) -> bool:
    """Return whether a member is not set, or is what the base has."""
    unset = object()
    found = inspect.getattr_static(part, member, unset)
    return found is unset or found is inspect.getattr_static(base, member, unset)


def _public(base: type) -> set[str]:
    """Return the members of a contract, annotated ones without a default too."""
    annotated = (name for each in base.__mro__ for name in get_annotations(each))
    return {name for name in (*dir(base), *annotated) if name[0] != "_"}
