"""Dataset ``ava``: what people do in each box, at seconds of movies.

Reads AVA's own files, and a plain CSV of one's own:

- ``path``: AVA's rows (v2.1 or v2.2), or a header with
  ``video,second,x1,y1,x2,y2,label[,person]``; corners are fractions of width and height;
- ``videos``: the movies, by the clock: whole ones, cuts, AlphAction's files of one second,
  SlowFast's and MMAction's folders of frames;
- ``persons``: boxes that a detector found, in the formats that AVA's public codes share.

A sample is a second with boxes. Its label (``maekit.contracts.Boxes``) is known without opening a
movie, so that boxes in movies that are missing still count where a model is judged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from maekit.contracts import Dataset, PartOptions, Source
from maekit.datasets.box_moments import Ask, gather
from maekit.datasets.box_table import BoxTable
from maekit.datasets.movies import Layout, Movies
from maekit.errors import DataError
from maekit.text import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 3  # names in a message


class Ava(Dataset):
    """Boxes with actions at seconds of movies.

    Raises:
        DataError: a list has a row that makes no sense, or none of the movies is there.
    """

    class Options(PartOptions):
        """Options of ``ava``."""

        path: Path = Field(
            description="the annotations: AVA's CSV, or one's own with a header: "
            "video,second,x1,y1,x2,y2,label[,person], corners as fractions"
        )
        videos: Path = Field(description="the folder of the movies")
        layout: Layout = Field(
            "movies",
            description="movies: files named as the movie; cuts: files that begin at second 900 "
            "of it; seconds: <movie>/<second>.mp4, a second each (AlphAction, VideoMAE); frames: "
            "<movie>/*.jpg, 30 a second from second 900 (SlowFast, MMAction)",
        )
        start: float | None = Field(
            None,
            description="the second of the movie that a file, or the first frame of a folder, "
            "begins at; unset: 0, of cuts and frames 900",
        )
        frame_rate: float | None = Field(
            None, gt=0, le=1000, description="of folders of frames, frames a second; unset: 30"
        )
        actions: Path | None = Field(
            None,
            description="the list of actions: AVA's .pbtxt, or names, one a line; unset: what path "
            "holds, numbers or names. Only the actions that a .pbtxt lists are judged",
        )
        classes: int | None = Field(
            None, ge=1, description="outputs, of AVA 80; unset: the highest number there is"
        )
        excluded: Path | None = Field(
            None, description="seconds that are left out: rows of video,second"
        )
        included: Path | None = Field(
            None, description="the seconds of every movie that count, one a line; unset: all"
        )
        persons: Path | None = Field(
            None,
            description="detected persons: CSV (video,second,x1,y1,x2,y2,[action],score) or "
            "AlphAction's JSON",
        )
        person_images: Path | None = Field(
            None, description="of AlphAction's JSON: its annotations (ava_val_v2.2_min.json)"
        )
        min_score: float = Field(
            0.8, description="persons that are at least so sure are used (VideoMAE: 0.8)"
        )
        or_best: bool = Field(
            False, description="where no person is so sure, use the surest one (MMAction)"
        )
        iou: float = Field(
            0.9,
            gt=0,
            le=1,
            description="a detected person without a label of its own has that of the annotated "
            "box that it overlaps most, by at least this",
        )
        ask: Ask = Field(
            "auto",
            description="the boxes that a model learns, or is asked for; auto: detected ones where "
            "persons is given, else the annotated ones",
        )

        @model_validator(mode="after")
        def _fits(self) -> Ava.Options:
            if self.persons is None:
                for key in ("person_images", "min_score", "or_best", "iou"):
                    if getattr(self, key) != type(self).model_fields[key].default:
                        raise ValueError(f"{key} is of detected persons; give persons, or drop it")
                if self.ask in {"detected", "both"}:
                    raise ValueError(f"ask: {self.ask} needs persons, the list of detected ones")
            elif self.ask == "truth":
                raise ValueError("persons means nothing with ask: truth; drop one of the two")
            if self.frame_rate is not None and self.layout != "frames":
                raise ValueError(
                    "frame_rate is of folders of frames; drop it, or set layout: frames"
                )
            if self.start is not None and self.layout == "seconds":
                raise ValueError("files of one second say by their names when they begin")
            return self

    def __init__(self, options: Options) -> None:
        found = gather(options)
        self.classes, self.judged = found.classes, found.judged
        self._table = self.labels = BoxTable(found.moments)
        self.excluded = BoxTable(found.excluded)
        self._movies = Movies(
            os.path.expanduser(options.videos),  # noqa: PTH111 - pathlib raises on unknown users
            options.layout,
            options.start,
            options.frame_rate,
        )
        self.left_out = dict(found.left_out)
        self.notes = self._found_movies(str(options.path))

    def __len__(self) -> int:
        """Return the number of seconds that have boxes."""
        return len(self._table)

    def name(self, index: int) -> str:
        """Return the moment, as AVA's lists name it: ``movie,0902``."""
        return self._table[index].frame

    def containing_file(self, index: int) -> str:
        """Return the movie of a moment, or its file of one second; of frames there are too many."""
        label = self._table[index]
        return self._movies.file(label.movie, label.second) or self.name(index)

    def open(self, index: int) -> Source:
        """Open the movie of a moment.

        Raises:
            DataError: there is no such movie, it cannot be read, or it has no such second; says
                which row asks for it.
            OSError: the system cannot read it.
        """
        label = self._table[index]
        try:
            movie = self._movies.open(label.movie, label.second)
        except DataError as error:
            what = f"{error.what}; {self._table.where(index)} asks for it"
            raise DataError(what, where=error.where, hint=error.hint) from error

        def at(seconds: Sequence[float], late: float) -> Sequence[int]:
            return movie.at([label.second + second for second in seconds], late)

        info = movie.info._replace(id=label.frame, label=label)
        return Source(info, movie.decode, at)

    def sources(self, by: str) -> Sequence[str]:
        """Return what stays together in a split: ``movie`` keeps a movie whole."""
        if by == "movie":
            return [self._table[index].movie for index in range(len(self))]
        return super().sources(by)

    def _found_movies(self, path: str) -> tuple[str, ...]:
        """Look for every movie, and say how many are not there.

        Raises:
            DataError: none of them is.
        """
        missing = [movie for movie in self._table.movies if self._movies.find(movie) is None]
        if not missing:
            return ()
        count, shown = len(self._table.movies), ", ".join(missing[:_SHOWN])
        what = f"{len(missing)} of {quantity(count, 'movies')} of {path} are not in "
        what += f"{self._movies.folder} ({shown}{', ...' if missing[_SHOWN:] else ''})"
        if len(missing) == count:
            layouts = "layout: movies, cuts (<movie>.mp4), seconds or frames (<movie>/...)"
            raise DataError(what, hint=f"videos: the folder of the movies, and {layouts}")
        return (what,)
