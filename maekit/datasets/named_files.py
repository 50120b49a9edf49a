"""The pictures and videos that words of a command line name, and names for what is made of them.

What a file is shows in its suffix; one without a known suffix is tried as a picture, then as a
video. Animated pictures are read by their first frame, except that GIF and APNG are videos to a
model of more than one frame.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maekit.contracts import Dataset
from maekit.data.files import is_url, read_bytes
from maekit.data.images import open_image
from maekit.data.pillow_pages import Alpha
from maekit.data.video import open_video
from maekit.datasets.folders import Tally, suffix_of, walk
from maekit.datasets.images import WANTED as PICTURES
from maekit.datasets.images import image_source
from maekit.datasets.videos import MOVING_PICTURES, video_source
from maekit.datasets.videos import WANTED as VIDEOS
from maekit.errors import DataError, RecipeError

if TYPE_CHECKING:
    from maekit.contracts import Source

_LONGEST_STEM = 180  # bytes: what file systems allow, less the endings that are put on
_MAGIC = set("*?[")


@dataclass(frozen=True)
class NamedFile:
    """One file of the command line.

    Attributes:
        path: as it is opened.
        name: as it is shown; bytes that are not text are replaced.
        kind: by its suffix; unknown ones are tried.
        missing: why there is no such file; None where there is one.
    """

    path: str
    name: str
    kind: Literal["image", "video", "unknown"]
    missing: str | None = None


def find_files(
    words: Sequence[str],
    *,
    moving: bool = False,
    purpose: str = "reconstruct",
    tally: Tally | None = None,
) -> list[NamedFile]:
    """Find the files that words name.

    Files and links are taken as they are, folders by suffix at any depth (hidden files skipped),
    patterns (``**`` goes through folders) and fsspec URLs.

    Args:
        words: paths, patterns and URLs.
        moving: whether GIF and APNG are videos.
        purpose: a verb for error messages.
        tally: counts what is taken from folders, and left out of them.

    Raises:
        RecipeError: nothing at all is there.
    """
    tally = Tally() if tally is None else tally
    found = [each for word in words for each in _meant(word, moving, tally)]
    if all(each.missing for each in found):
        what = "; ".join(f"{each.name}: {each.missing}" for each in found) or "no INPUT"
        hint = "pictures, videos, folders of them, or quoted patterns ('photos/**/*.jpg')"
        raise RecipeError(f"nothing to {purpose}: {what}", where="INPUT", hint=hint)
    return found


def _meant(word: str, moving: bool, tally: Tally) -> Iterator[NamedFile]:
    if is_url(word):
        yield _input(word, moving)
    elif os.path.isdir(word):  # noqa: PTH112 - strings, as names that are not text pass through them
        files = walk(word, PICTURES | VIDEOS, tally=tally)
        inside = [f"{word.rstrip('/') or '/'}/{file}" for file in files]
        yield from (_input(path, moving) for path in inside)
        if not inside:
            what = "no pictures or videos in this folder, at any depth"
            yield _absent(word, f"{what} ({tally.strangers()})")
    elif os.path.lexists(word):
        yield _input(word, moving)
    elif _MAGIC & set(word):
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - as above
        for match in matches:
            yield from _meant(match, moving, tally)
        if not matches:
            yield _absent(word, "no file matches")
    else:
        yield _absent(word, "no such file or folder")


def _input(path: str, moving: bool) -> NamedFile:
    suffix = suffix_of(path)
    kind: Literal["image", "video", "unknown"] = "unknown"
    if suffix in VIDEOS.suffixes or (moving and suffix in MOVING_PICTURES):
        kind = "video"
    elif suffix in PICTURES.suffixes:
        kind = "image"
    return NamedFile(path, shown(path), kind)


def _absent(word: str, why: str) -> NamedFile:
    return NamedFile(word, shown(word), "unknown", why)


def shown(path: str) -> str:
    """Return a path as text; bytes that are not text become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")


@dataclass
class NamedFiles(Dataset):
    """Named files as a dataset, unlabeled."""

    items: Sequence[NamedFile]
    alpha: Alpha = "drop"

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Return the file's name as it is shown."""
        return self.items[index].name

    def open(self, index: int) -> Source:
        """Open a file; raises as ``open_named_file``."""
        return open_named_file(self.items[index], self.alpha)


def open_named_file(item: NamedFile, alpha: Alpha) -> Source:
    """Open a file without decoding its pixels.

    Raises:
        DataError: it is missing, or neither a picture nor a video.
        OSError: the system cannot read it.
    """
    if item.missing is not None:
        raise DataError(item.missing, where=item.name)
    if item.kind == "video":
        return _video(item)
    if item.kind == "image":
        return _image(item, alpha)
    try:
        return _image(item, alpha)
    except DataError as no_image:
        try:
            return _video(item)
        except DataError as no_video:
            what = f"neither a picture ({no_image.what}) nor a video ({no_video.what})"
            raise DataError(what, where=item.name) from no_video


def _image(item: NamedFile, alpha: Alpha) -> Source:
    return image_source(open_image(read_bytes(item.path), item.name, alpha), None, item.name)


def _video(item: NamedFile) -> Source:
    video = open_video(item.path, item.name)
    return video_source(video, range(video.info.frames), None, item.name)


def output_stems(paths: Iterable[str]) -> list[str]:
    """Name a result for each file: the file's name without suffix, numbered where names repeat.

    Names that differ only in case count as the same, as they are on some file systems.
    """
    wanted = [_stem(path) for path in paths]
    taken = {stem.casefold() for stem in wanted}
    given: set[str] = set()
    stems = []
    for stem in wanted:
        name, number = stem, 1
        while name.casefold() in given or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{stem}-{number}"
        given.add(name.casefold())
        stems.append(name)
    return stems


def _stem(path: str) -> str:
    stem = Path(shown(path).rstrip("/")).stem or "input"
    while len(stem.encode()) > _LONGEST_STEM:
        stem = stem[:-1]
    return stem
