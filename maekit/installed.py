"""What installed distributions declare: their entry points, from metadata, importing nothing."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OURS = "maekit"  # our own distribution, and what the names of all entry-point groups begin with


class Declared(NamedTuple):
    """One entry point.

    Attributes:
        group: the entry-point group without ``maekit.``: ``maskers``, ``recipes`` ...
        distribution: its name as package indexes compare it.
    """

    group: str
    distribution: str
    version: str
    point: metadata.EntryPoint


def declared(groups: Iterable[str]) -> Iterator[Declared]:
    """Yield what is declared under the groups ``maekit.<group>``, in no order."""
    found = metadata.entry_points()
    for group in groups:
        for point in found.select(group=f"{OURS}.{group}"):
            name = normal(point.dist.name) if point.dist else "unknown"
            version = point.dist.version if point.dist else "unknown"
            yield Declared(group, name, version, point)


def normal(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
