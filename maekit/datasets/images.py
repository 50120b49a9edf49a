"""Dataset ``images``: any folder of pictures, or a list of them, with or without labels."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from maekit.contracts import Label, PartOptions, Source, SourceInfo
from maekit.data.files import MOST_CLIP_BYTES, check_regular, is_url, read_bytes
from maekit.data.header import check_pixels
from maekit.data.images import OpenImage, open_image
from maekit.data.index_file import key_of_file
from maekit.data.pages import TIFF_MAGIC, tiff_pages
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
from maekit.progress import counted
from maekit.stop import check

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
        return pixels[None].repeat(len(frame_ids), axis=0) if len(frame_ids) > 1 else pixels[None]

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


def pages_source(image: OpenImage, label: Label, name: str, nodata: float | None = None) -> Source:
    """Wrap a file of several pages as a video of as many frames, of the first one's size and depth.

    Reading raises DataError where a page is unlike the first.
    """
    head, count = image.header, image.pages.count

    def read(frame_ids: Sequence[int]) -> np.ndarray:
        shape = (len(frame_ids), head.height, head.width, head.channels)
        check_pixels(shape, head.dtype, name, most=MOST_CLIP_BYTES)
        clip = np.empty(shape, head.dtype)
        wanted = np.asarray(frame_ids)
        for number in np.unique(wanted).tolist():
            pixels = image.page(number).decode(nodata)
            if pixels.shape != clip.shape[1:] or pixels.dtype != clip.dtype:
                shapes = f"{pixels.dtype} {pixels.shape}, not {clip.dtype} {clip.shape[1:]}"
                what = f"page {number} is unlike the first one: {shapes}"
                raise DataError(what, where=name, hint="pages: all makes each a sample")
            clip[wanted == number] = pixels
        return clip

    source = image_source(image, label, name)
    return Source(source.info._replace(frames=count, further=0), read)


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
        pages: Literal["first", "all", "clip"] = Field(
            "first",
            description="of TIFFs with several; first: the others are left out; all: each is a "
            "sample; clip: they are the frames of a video",
        )

    wanted = WANTED

    def __init__(self, options: Options) -> None:
        self._alpha, self._nodata = options.alpha, options.nodata
        self._clips = options.pages == "clip"
        self._pages: np.ndarray | None = None  # int64 [n, 2]: file and page of each sample
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
        if options.pages == "all":
            self._count_pages()

    def _count_pages(self) -> None:
        """Make a sample of each page."""
        found = []
        with counted("counting pages", len(self._files), "files") as count:
            for index in range(len(self._files)):
                check()
                found.append(_page_count(self._files.place(index)))
                count(index + 1)
        counts = np.array(found)
        files = np.repeat(np.arange(len(counts)), counts)
        pages = np.arange(len(files)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._pages = np.stack([files, pages], axis=1)
        if self.labels is not None:
            self.labels = self.labels[files]
        self._in_index = ()  # labels were of files
        self._keep_arrays(("labels", "_pages"))

    def __len__(self) -> int:
        return super().__len__() if self._pages is None else len(self._pages)

    def name(self, index: int) -> str:
        """Return the file, as it is listed; of further pages with their number, from 0."""
        file, page = self._place(index)
        return super().name(file) + (f"#page={page}" if page else "")

    def sources(self, by: str) -> Sequence[str]:
        """Return where each sample comes from; pages of one file come from that file."""
        of_files = super().sources(by)
        if self._pages is None:
            return of_files
        return [of_files[file] for file in self._pages[:, 0].tolist()]

    def _place(self, index: int) -> tuple[int, int]:
        """Return the file and the page of a sample."""
        if self._pages is None:
            return index, 0
        if not 0 <= index < len(self._pages):
            what = f"sample {index} of {len(self._pages)}"
            raise IndexError(what)
        file, page = self._pages[index].tolist()
        return file, page

    def open(self, index: int) -> Source:
        """Read the file and its header.

        Raises:
            DataError: no file, or no picture.
            OSError: the system cannot read it.
        """
        name, (file, page) = self.name(index), self._place(index)
        image = open_image(read_bytes(self._files.place(file)), name, self._alpha)
        if self._clips and image.pages.count > 1:
            return pages_source(image, self._label(index), name, self._nodata)
        image = image.page(page) if page else image
        source = image_source(image, self._label(index), name, self._nodata)
        if self._pages is not None and image.pages.count > 1:
            source = replace(source, info=source.info._replace(further=0))
        return source

    def _index_list(self, path: Path, root: str, labels: Literal["auto", "none", "folder"]) -> None:
        refuse_folder_labels(labels, path)
        self._note(columns_note(path, SUFFIXES))
        key = key_of_file(path, "images", labels, sorted(SUFFIXES))
        paths, found = self._recall(key), Labels()
        if paths is None:
            paths = Paths.of(_label_rows(path, found, labeled=labels == "auto"))
        self._list(root, paths, path)
        if found.seen:
            self.labels, self.classes = found.by_value()
        self._keep(key)


def _page_count(path: str) -> int:
    """Count the pages of a TIFF; 1 of other files, and of those that cannot be read: it shows."""
    try:
        if is_url(path):
            data = read_bytes(path)
            return len(tiff_pages(io.BytesIO(data))) if data.startswith(TIFF_MAGIC) else 1
        check_regular(path)
        with open(path, "rb") as file:  # noqa: PTH123 - names that are not text
            found = file.read(4) in TIFF_MAGIC
            file.seek(0)
            return len(tiff_pages(file)) if found else 1
    except (DataError, OSError):
        return 1


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
