"""The pictures of ``maekit predict``: sheets of pictures, and films of videos, with the answers."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from maekit.atomic import write_bytes
from maekit.data.order import Key
from maekit.data.pixels import to_float01
from maekit.datasets.named_files import output_stems
from maekit.engine import distributed
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.answers import LIKELY, best
from maekit.progress import counted
from maekit.stop import check
from maekit.visualize.answered import COLUMNS, ROWS, Line, answered, laid_out
from maekit.visualize.movies import Mp4

if TYPE_CHECKING:
    from PIL import Image

    from maekit.contracts import Dataset
    from maekit.evaluate.answers import Answer
    from maekit.evaluate.scorer import Scorer
    from maekit.evaluate.views import ViewReader

    Asked = tuple[int, Answer]  # a sample's row, and what was answered

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
    """Draws answers into a folder.

    Pictures, and videos of which one frame is looked at, stand on sheets of 20; of other videos
    there is a film each: the frames that the model saw, window after window. A second call writes
    the same files again. Of several ranks each draws its share of sheets and films.

    Args:
        folder: is there.
        scorer: reads samples.
        dataset: what is asked about.
        top: lines of an answer, at most.
    """

    def __init__(self, folder: Path, scorer: Scorer, dataset: Dataset, top: int) -> None:
        self.folder, self.count = folder, len(dataset)
        reader = scorer.reader(dataset, center=True)
        self.artist = Artist(scorer, reader, min(top, MOST_LINES))
        self.still = scorer.spec.frames == 1  # what has no windows is one picture
        names = dict.fromkeys(map(dataset.name, range(len(dataset))))
        self.stems = dict(zip(names, output_stems(names), strict=True))
        # Whatever has one name is one rank's: it is one file.
        self.mine = set(distributed.share(list(names)))

    def draw(self, answers: Iterable[Answer]) -> int:
        """Draw this rank's share of the answers of all samples; return how many files it made.

        Args:
            answers: of all samples, in their order.

        Raises:
            StorageError: a file cannot be written.
            Interrupted: a signal asked for it.
        """
        try:
            with counted("drawing", self.count, "answers") as count:

                def passing() -> Iterator[Asked]:
                    for row, answer in enumerate(answers):
                        check()
                        yield row, answer
                        count(row + 1)

                return sum(self._write(path, rows) for path, rows in self._files(passing()))
        except (OSError, av.FFmpegError) as error:
            msg = f"a picture cannot be written: {error}"
            hint = "free some space, or name another folder"
            raise StorageError(msg, where=f"--pictures {self.folder}", hint=hint) from error

    def _files(self, answers: Iterable[Asked]) -> Iterator[tuple[Path, Iterable[Asked]]]:
        """Yield this rank's files, each with the answers that it shows."""
        sheet: list[Asked] = []
        numbers = itertools.count(1)
        for name, rows in itertools.groupby(answers, key=lambda asked: asked[1].input):
            for stills, some in itertools.groupby(rows, key=self._is_still):
                if not stills:
                    if name in self.mine:
                        yield self.folder / f"{self.stems[name]}.mp4", some
                    continue
                for asked in some:
                    if asked[1].scores is not None:
                        sheet.append(asked)
                    if len(sheet) == COLUMNS * ROWS:
                        yield from self._sheet(next(numbers), sheet)
                        sheet = []
        if sheet:
            yield from self._sheet(next(numbers), sheet)

    def _is_still(self, asked: Asked) -> bool:
        return self.still and asked[1].start is None

    def _sheet(self, number: int, rows: list[Asked]) -> Iterator[tuple[Path, list[Asked]]]:
        if (number - 1) % distributed.size() == distributed.rank():
            yield self.folder / f"sheet-{number:03d}.png", rows

    def _write(self, path: Path, rows: Iterable[Asked]) -> bool:
        """Draw a file; none where nothing of it can be shown."""
        drawn = (frame for row, answer in rows for frame in self.artist.drawn(row, answer))
        first = next(drawn, None)
        if first is None:
            return False
        frames = itertools.chain([first], drawn)
        if path.suffix == ".png":
            buffer = io.BytesIO()
            laid_out(list(frames)).save(buffer, "PNG")
            write_bytes(path, buffer.getvalue())
            return True
        film = Mp4(path, first.size, WINDOW_FPS if self.still else CLIP_FPS)
        try:
            for frame in frames:
                film.add(frame)
        finally:
            film.close()
        return True


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
        titles = [answer.input.rpartition("/")[2]]
        if answer.start is not None:
            titles.append(f"{answer.start:.1f} to {answer.stop:.1f} s")
        room = min(self.top, len(self.scorer.described.outputs))
        yield from answered(pixels, titles, self._lines(answer.scores), room)

    def _lines(self, scores: np.ndarray) -> list[Line]:
        described = self.scorer.described
        names, kind = described.outputs, described.kind
        if kind == "multiclass":
            places = best(scores, self.top)
        else:  # labels that it has, the likeliest first; or the first values
            likely = [place for place in best(scores, self.top) if scores[place] > LIKELY]
            places = likely if kind == "multilabel" else list(range(min(len(names), self.top)))
        if not places:
            return [Line("(none)", None, None)]
        bars = kind != "regression"
        return [
            Line(names[place], float(scores[place]), float(scores[place]) if bars else None)
            for place in places
        ]
