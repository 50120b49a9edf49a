"""Dataset ``images``: any folder of pictures, or a list of them, with or without labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from maekit.contracts import Label, PartOptions, Source, SourceInfo
from maekit.data.files import read_bytes
from maekit.data.images import OpenImage, open_image
from maekit.datasets.file_lists import (
    WHERE,
    Files,
    FileSet,
    Labels,
    Paths,
    for_lists_only,
    nothing_at,
    refuse_folder_labels,
)
from maekit.datasets.folders import Tally, Wanted, walk
from maekit.datasets.list_rows import columns_note, read_list
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What a folder set takes; a list takes every row.
SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2"}
    | {
        ".jpe",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".npy",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    }
)
WANTED = Wanted(SUFFIXES, frozenset({"picture"}))


def image_source(image: OpenImage, label: Label, name: str, nodata: float | None = None) -> Source:
    """Wrap an opened picture: a video of one frame, decoded on reading."""
    header = image.header

    def read(frame_ids: Sequence[int]) -> np.ndarray:
        pixels = image.decode(nodata)
        return np.broadcast_to(pixels, (len(frame_ids), *pixels.shape))

    info = SourceInfo(
        name,
        header.height,
        header.width,
        header.channels,
        header.dtype,
        label=label,
        further=header.further,
    )
    return Source(info, read)


class Images(FileSet):
    """Pictures of a folder, at any depth, or of a list.

    Raises:
        DataError: nothing there, or a list with a row that makes no sense.
    """

    class Options(PartOptions):
        """Options of ``images``."""

        path: Path = Field(description="a folder of pictures, or a list (CSV, JSONL, plain lines)")
        labels: Literal["auto", "none", "folder"] = Field(
            "auto",
            description="auto: a list's labels, or the folders right below path where all pictures "
            "lie in two or more of them; folder: those folders, always; none: unlabeled",
        )
        root: Path | None = Field(
            None, description="what a list's rows are relative to; unset: the list's folder"
        )
        alpha: Literal["drop", "keep"] = Field(
            "drop", description="transparency: drop it, or keep it as a channel"
        )
        nodata: float | None = Field(
            None,
            description="value of float pixels that hold no data, besides NaN; up to 1 % of a "
            "picture are filled with its mean, and their patches do not count in the loss",
        )

    wanted = WANTED

    def __init__(self, options: Options) -> None:
        self._alpha, self._nodata = options.alpha, options.nodata
        # Of os.path, as pathlib raises on names that are too long or of an unknown user.
        path = Path(os.path.expanduser(options.path))  # noqa: PTH111
        if os.path.isdir(path):  # noqa: PTH112
            if options.root is not None:
                raise for_lists_only("root", path)
            tally = Tally()
            files = Files(str(path), Paths.of(walk(str(path), WANTED, tally=tally)))
            if not len(files):
                what = f"no pictures in {path}, at any depth; looked for {_LOOKED_FOR}"
                hint = f"{tally.strangers()}; wanted is {_LAYOUT}"
                raise DataError(what, where=WHERE, hint=hint)
            self._folder(files, tally, options.labels)
        elif os.path.isfile(path):  # noqa: PTH113
            self._index_list(path, str(options.root or path.parent), options.labels)
        else:
            raise nothing_at("pictures", path, _LAYOUT)

    def open(self, index: int) -> Source:
        """Read the file and its header.

        Raises:
            DataError: no file, or no picture.
            OSError: the system cannot read it.
        """
        name = self.name(index)
        image = open_image(read_bytes(self._files.place(index)), name, self._alpha)
        return image_source(image, self._label(index), name, self._nodata)

    def _index_list(self, path: Path, root: str, labels: Literal["auto", "none", "folder"]) -> None:
        refuse_folder_labels(labels, path)
        self._note(columns_note(path, SUFFIXES))
        found = Labels()
        self._list(root, Paths.of(_label_rows(path, found, labeled=labels == "auto")), path)
        if found.seen:
            self.labels, self.classes = found.by_value()


_LOOKED_FOR = " ".join(sorted(SUFFIXES))
_LAYOUT = (
    "a folder `path/<class>/*.jpg` (or any other nesting), or a list with the columns `path,label`"
)


def _label_rows(path: Path, labels: Labels, *, labeled: bool) -> Iterator[str]:
    """Yield the paths of a list and put their labels aside; either every row has one, or none."""
    for row in read_list(path, SUFFIXES):
        yield row.path
        if not labeled:
            continue
        where = f"{path}:{row.line}"
        if len(row.fields) > 1:
            what = f"has {len(row.fields)} fields after the path: {' '.join(row.fields)[:200]}"
            raise DataError(what, where=where, hint="images take `path label`, or labels: none")
        labels.take(row.fields[0] if row.fields else None, where)
