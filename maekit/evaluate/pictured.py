"""The pictures of ``maekit predict``: sheets of pictures, and films of videos, with the answers."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from maekit.atomic import write_bytes
from maekit.data.order import Key
from maekit.data.pixels import to_float01
from maekit.datasets.named_files import output_stems
from maekit.engine.events import Note
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.answers import LIKELY, best
from maekit.progress import counted
from maekit.stop import check
from maekit.text import quantity
from maekit.visualize.answered import COLUMNS, ROWS, Line, answered, laid_out
from maekit.visualize.movies import Mp4

if TYPE_CHECKING:
    from PIL import Image

    from maekit.contracts import Dataset
    from maekit.engine.events import Emit
    from maekit.evaluate.answers import Answer
    from maekit.evaluate.scorer import Scorer
    from maekit.evaluate.views import ViewReader

MOST_LINES = 3  # of an answer
# Frames a second of films: of a clip's, as the model saw them, and where a window has one.
CLIP_FPS, WINDOW_FPS = 8.0, 2.0


def make_folder(folder: Path) -> None:
    """Make the folder of pictures.

    Raises:
        RecipeError: something else has its name.
        StorageError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError("not a folder", where=f"--pictures {folder}", hint="name another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the folder cannot be made: {error}"
        hint = "choose another"
        raise StorageError(msg, where=f"--pictures {folder}", hint=hint) from error


class Pictured:
    """Draw answers into a folder while they go by.

    Pictures, and videos of which one frame is looked at, stand on sheets of 20; of other videos
    there is a film each: the frames that the model saw, window after window. A second call writes
    the same files again.

    Args:
        folder: is there.
        dataset: what is asked about.
        emit: called with how many files there are, at the end.
    """

    def __init__(self, folder: Path, dataset: Dataset, emit: Emit) -> None:
        self.folder, self.emit = folder, emit
        self.written = self.sheets = 0  # files, and those of them that are sheets
        names = dict.fromkeys(map(dataset.name, range(len(dataset))))
        self.stems = dict(zip(names, output_stems(names), strict=True))

    def passing(
        self, answers: Iterable[Answer], scorer: Scorer, dataset: Dataset, top: int
    ) -> Iterator[Answer]:
        """Pass the answers of all samples on, in their order, and draw them.

        Args:
            answers: of all samples.
            scorer: reads samples.
            dataset: what was asked about.
            top: lines of an answer, at most.

        Raises:
            StorageError: a file cannot be written.
            Interrupted: a signal asked for it.
        """
        artist = Artist(scorer, scorer.reader(dataset, center=True), min(top, MOST_LINES))
        try:
            with counted("drawing", len(dataset), "answers") as count:
                for place, answer in enumerate(self._passing(answers, artist), 1):
                    yield answer
                    count(place)
            self.emit(Note(f"pictures: {quantity(self.written, 'files')} in {self.folder}"))
        except (OSError, av.FFmpegError) as error:
            msg = f"a picture cannot be written: {error}"
            hint = "free some space, or name another folder"
            raise StorageError(msg, where=f"--pictures {self.folder}", hint=hint) from error

    def _passing(self, answers: Iterable[Answer], artist: Artist) -> Iterator[Answer]:
        tiles: list[Image.Image] = []
        film: Mp4 | None = None
        name: str | None = None
        try:
            for row, answer in enumerate(answers):
                yield answer
                check()
                if film is not None and answer.input != name:
                    film.close()
                    film = None
                name, frames = answer.input, list(artist.drawn(row, answer))
                if len(frames) == 1 and answer.start is None:
                    tiles += frames
                elif frames and film is None:
                    pace = CLIP_FPS if len(frames) > 1 else WINDOW_FPS
                    path = self.folder / f"{self.stems[name]}.mp4"
                    film = Mp4(path, frames[0].size, pace)
                    self.written += 1
                if film is not None:
                    for frame in frames:
                        film.add(frame)
                if len(tiles) == COLUMNS * ROWS:
                    self._sheet(tiles)
                    tiles = []
        finally:
            if film is not None:
                film.close()
        if tiles:
            self._sheet(tiles)

    def _sheet(self, tiles: Sequence[Image.Image]) -> None:
        self.sheets += 1
        self.written += 1
        buffer = io.BytesIO()
        laid_out(tiles).save(buffer, "PNG")
        write_bytes(self.folder / f"sheet-{self.sheets:03d}.png", buffer.getvalue())


class Artist(NamedTuple):
    """Draws one answer.

    Attributes:
        scorer: of a classifier.
        reader: of the center view of samples.
        top: lines of an answer, at most.
    """

    scorer: Scorer
    reader: ViewReader
    top: int

    def drawn(self, row: int, answer: Answer) -> Iterator[Image.Image]:
        """Draw a sample's frames, with its answer; none where it could not be read."""
        if answer.scores is None:
            return
        sample = self.reader.read(Key(0, row))
        if sample.bad is not None:  # it could be read a moment ago
            return
        pixels = to_float01(sample.views[0][0].transpose(1, 2, 3, 0))
        title = answer.input.rpartition("/")[2]
        if answer.start is not None:
            title += f"  {answer.start:.1f} to {answer.stop:.1f} s"
        yield from answered(pixels, title, self._lines(answer.scores))

    def _lines(self, scores: np.ndarray) -> list[Line]:
        described = self.scorer.described
        names, kind = described.outputs, described.kind
        if kind == "multiclass":
            places = best(scores, self.top)
        else:  # labels that it has, the likeliest first; or the first values
            likely = [place for place in best(scores, self.top) if scores[place] > LIKELY]
            places = likely if kind == "multilabel" else list(range(min(len(names), self.top)))
        bars = kind != "regression"
        return [
            Line(names[place], float(scores[place]), float(scores[place]) if bars else None)
            for place in places
        ]
