"""Samples by the size at which they are shown whole: batches of one grid, with nothing padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.contracts import Boxes
from maekit.progress import counted
from maekit.stop import check, hearing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.contracts import Dataset


def whole_size(height: int, width: int, short: int, multiple: int = 1) -> tuple[int, int]:
    """Return the size at which a picture is shown whole.

    Args:
        height: of the picture.
        width: of the picture.
        short: the shorter side then, in pixels.
        multiple: sides are of so many pixels, rounded to the nearest; with 1 the longer side is
            rounded down, as cv2's and AVA's public codes have it.
    """
    sides = [side * short / min(height, width) for side in (height, width)]
    if multiple == 1:
        rows, columns = (int(side + 1e-6) for side in sides)
    else:
        rows, columns = (max(1, round(side / multiple)) * multiple for side in sides)
    return rows, columns


def by_size(
    dataset: Dataset, indices: Sequence[int], short: int, multiple: int = 1
) -> dict[tuple[int, int], list[int]]:
    """Group samples by the size, height and width, at which they are shown whole.

    Those that cannot be opened are with the first size, where reading them says why. Of moments of
    one movie, one is opened: they are all as large.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    of_movie: dict[str, tuple[int, int]] = {}
    unread = []
    with counted("looking at sizes", len(indices), "samples") as count:
        for place, index in enumerate(hearing(indices)):
            label = None if dataset.labels is None else dataset.labels[index]
            movie = label.movie if isinstance(label, Boxes) else ""
            size = of_movie.get(movie)
            if size is None:
                check()
                count(place)
                try:
                    info = dataset.open(index).info
                except Exception:  # noqa: BLE001 - as a reader, which takes such a sample for bad
                    unread.append(index)
                    continue
                size = whole_size(info.height, info.width, short, multiple)
                if movie:
                    of_movie[movie] = size
            sizes.setdefault(size, []).append(index)
    if unread:
        first = next(iter(sizes), whole_size(short, short, short, multiple))
        sizes[first] = sorted([*sizes.get(first, ()), *unread])
    return sizes
