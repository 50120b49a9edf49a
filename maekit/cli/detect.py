"""``maekit detect``: what is done in each box of films, as rows and as films that show it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av

from maekit.atomic import write_text
from maekit.cli.output import as_json, print_json, print_table, say
from maekit.cli.quantities import seconds
from maekit.cli.reconstruct import empty_folder, write_result
from maekit.cli.reporters import shown
from maekit.datasets.box_lists import read_regions
from maekit.datasets.movies import clock
from maekit.datasets.named_files import NamedFile, find_files, output_stems
from maekit.datasets.named_moments import (
    Listed,
    NamedMoments,
    boxes_at,
    film,
    moments_every,
    of_rows,
    whole_frames,
)
from maekit.engine.events import Emit, Note
from maekit.engine.precision import pick_device
from maekit.errors import DataError, MaekitError, RecipeError, StorageError
from maekit.evaluate.detection.found import Found, find
from maekit.evaluate.detection.load import Trained, trained
from maekit.evaluate.detection.persons import MODELS, PersonDetector
from maekit.evaluate.predictions import Reading
from maekit.progress import counted
from maekit.stop import StopSignal, check
from maekit.text import quantity
from maekit.visualize.boxes import Scene, Shown, drawn_film
from maekit.visualize.movies import Mp4
from maekit.weights.locate import newest_classifier

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from maekit.contracts import Boxes

VERB = "detect"
FULL_FRAME = "full-frame"
EVERY = 1.0  # seconds: AVA's
SHOWN = 20  # rows of the table on stdout
LINES = 3  # actions that a box in a film has at most
_COLUMNS = ("video", "second", "x1", "y1", "x2", "y2", "person", "action", "score")


class Row(NamedTuple):
    """One action in one box."""

    video: str
    second: float
    corners: tuple[float, float, float, float]
    person: float
    action: str
    score: float

    @property
    def cells(self) -> tuple[str, ...]:
        """As they are written."""
        numbers = (*self.corners, self.person)
        shown = (f"{number:.5f}" for number in numbers)
        return (self.video, f"{self.second:.3f}", *shown, self.action, f"{self.score:.5f}")


def detect(
    inputs: Sequence[str],
    source: str | None,
    boxes: str | None,
    persons: Path | None,
    persons_model: str | None,
    persons_score: float,
    every: str | None,
    least: float,
    film_too: bool,
    recipe: str | None,
    out: Path | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Detect actions in all films; return the exit code: 6 where some could not be read."""
    listed = boxes is not None and boxes != FULL_FRAME
    _refuse_nonsense(boxes, persons, every if listed else None)
    step = EVERY if every is None else seconds(every, "--every")
    with shown(quiet=quiet, verbose=verbose) as terminal, StopSignal():
        where = pick_device(device)
        if source is None:
            located = newest_classifier()
            source = located.source
            terminal(Note(f"weights: {located.description}"))
        detector = trained(source, recipe, where, terminal)
        files = find_files(list(inputs), moving=True, purpose=VERB)
        finder = None
        if persons is not None:
            finder = PersonDetector(persons_model or MODELS[0], persons, where, persons_score)
        elif not listed:
            terminal(Note("no boxes of persons: the whole frame is one box (--boxes, --persons)"))
        errors: dict[str, str] = {}
        given = _given(files, boxes) if listed else None
        for text in () if given is None else given.left_out:
            terminal(Note(text, warning=True))
        labels = _labels(files, given, finder, step, errors)
        folder = empty_folder(out)
        dataset = NamedMoments({file.name: file for file in files}, labels)
        found = _found(detector, dataset, where, terminal)
        for bad in found.bad:
            errors.setdefault(labels[bad.index].movie, bad.reason)
        rows = list(_rows(detector, dataset, found))
        kept = [row for row in rows if row.score >= least]
        _write_rows(folder, kept, labels)
        films = _films(files, labels, kept, folder, errors) if film_too else {}
        for name, reason in errors.items():
            terminal(Note(f"{name}: {reason}", warning=True))
    code = DataError.exit_code if errors else 0
    result = {
        "verb": VERB,
        "exit": code,
        "weights": source,
        "boxes": boxes or (FULL_FRAME if persons is None else str(persons)),
        "films": films,
        "moments": len(labels),
        "rows": len(kept),
        "least": least,
        "errors": [{"input": name, "error": reason} for name, reason in errors.items()],
    }
    write_result(result, folder)
    if json:
        print_json(result)
    else:
        _print(kept, folder)
    return code


def _refuse_nonsense(boxes: str | None, persons: Path | None, every: str | None) -> None:
    if boxes is not None and persons is not None:
        raise RecipeError("give either --boxes or --persons", where="--persons")
    if every is not None:
        hint = "the list of --boxes says at which seconds"
        raise RecipeError("means nothing beside a list of boxes", where="--every", hint=hint)


def _given(files: Sequence[NamedFile], listed: str | None) -> Listed:
    """Read a list of boxes.

    Raises:
        RecipeError: there is none, or it is of other films.
        DataError: a row makes no sense.
    """
    if listed is None or not Path(listed).is_file():
        hint = f"a CSV, or {FULL_FRAME}"
        raise RecipeError(f"there is no file {listed}", where="--boxes", hint=hint)
    return of_rows(list(read_regions(Path(listed))), files, listed)


def _labels(
    files: Sequence[NamedFile],
    given: Listed | None,
    finder: PersonDetector | None,
    every: float,
    errors: dict[str, str],
) -> list[Boxes]:
    """Return the boxes of every moment of every film that can be read."""
    labels: list[Boxes] = []
    with counted("looking at films", len(files), "films") as count:
        for place, file in enumerate(files):
            check()
            count(place)
            try:
                video = film(file)
                moments = moments_every(video, every)
                if given is not None:
                    labels += given.moments.get(file.name, [])
                elif finder is None:
                    labels += whole_frames(file.name, moments)
                else:
                    at = clock(video.seconds)(moments, 0.0)
                    for second, number in zip(moments, at, strict=True):
                        check()
                        labels.append(
                            boxes_at(file.name, second, *finder(video.decode([number])[0]))
                        )
            except (MaekitError, OSError) as error:
                errors[file.name] = error.what if isinstance(error, MaekitError) else str(error)
    return labels


def _found(detector: Trained, dataset: NamedMoments, device: torch.device, listener: Emit) -> Found:
    frames = detector.frames(dataset, dataset.labels, listener)
    reading = Reading(device, 1, 0, detector.data.timeout)
    return find(frames, detector.boxer(frames), reading)


def _rows(detector: Trained, dataset: NamedMoments, found: Found) -> Iterator[Row]:
    """Yield every action of every box, the likeliest first."""
    for place, moment in enumerate(found.rows.tolist()):
        label, person = dataset.labels[moment], float(found.persons[place])
        scores = found.actions[place] * (person if detector.boxes.person_score else 1.0)
        corners = tuple(found.corners[place].tolist())
        for action in (-scores).argsort(kind="stable").tolist():
            name = detector.actions[action]
            yield Row(label.movie, label.second, corners, person, name, float(scores[action]))


def _write_rows(folder: Path, rows: Sequence[Row], labels: Sequence[Boxes]) -> None:
    """Write ``actions.csv`` and ``actions.json``.

    Raises:
        StorageError: they cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_COLUMNS, *(row.cells for row in rows)])
    moments: dict[tuple[str, float], dict[tuple[float, ...], dict[str, Any]]] = {
        (label.movie, label.second): {
            tuple(corners): {"corners": corners, "person": score, "actions": {}}
            for corners, score in zip(label.corners.tolist(), label.scores, strict=True)
        }
        for label in labels
    }
    for row in rows:
        moments[row.video, row.second][row.corners]["actions"][row.action] = round(row.score, 5)
    listed = [
        {"video": video, "second": second, "boxes": list(boxes.values())}
        for (video, second), boxes in moments.items()
    ]
    try:
        write_text(folder / "actions.csv", text.getvalue())
        write_text(folder / "actions.json", as_json(listed))
    except OSError as error:
        msg = f"actions could not be written: {error}"
        raise StorageError(msg, where=str(folder), hint="free some space") from error


def _films(
    files: Sequence[NamedFile],
    labels: Sequence[Boxes],
    rows: Sequence[Row],
    folder: Path,
    errors: dict[str, str],
) -> dict[str, str]:
    """Write a film of each that was read, with its boxes; return where each is.

    Raises:
        StorageError: one cannot be written.
    """
    lines: dict[tuple[str, float, tuple[float, ...]], list[str]] = {}
    for row in rows:
        lines.setdefault((row.video, row.second, row.corners), []).append(
            f"{row.action} {row.score:.2f}"
        )
    written: dict[str, str] = {}
    stems = output_stems(file.path for file in files)
    with counted("drawing films", len(files), "films") as count:
        for place, (file, stem) in enumerate(zip(files, stems, strict=True)):
            check()
            count(place)
            if file.name in errors:
                continue
            scenes = [
                Scene(
                    label.second,
                    tuple(
                        Shown(
                            corners,
                            tuple(lines.get((file.name, label.second, corners), [])[:LINES]),
                        )
                        for corners in map(tuple, label.corners.tolist())
                    ),
                )
                for label in labels
                if label.movie == file.name
            ]
            path = folder / f"{stem}.mp4"
            try:
                video = film(file)
                _write_film(drawn_film(video, scenes), path, video.info.fps or 25.0)
            except MaekitError as error:
                errors[file.name] = error.what
                path.unlink(missing_ok=True)
            except (OSError, av.FFmpegError) as error:
                msg = f"the film could not be written: {error}"
                raise StorageError(msg, where=str(path), hint="free some space") from error
            else:
                written[file.name] = str(path)
    return written


def _write_film(frames: Iterator[Image.Image], path: Path, fps: float) -> None:
    opening = next(frames)
    with closing(Mp4(path, opening.size, fps)) as writer:
        for frame in chain([opening], frames):
            check()
            writer.add(frame)


def _print(rows: Sequence[Row], folder: Path) -> None:
    best = rows[:SHOWN]
    print_table(
        ("video", "second", "box", "action", "score"),
        [
            (
                row.video,
                f"{row.second:.2f}",
                " ".join(f"{value:.2f}" for value in row.corners),
                row.action,
                f"{row.score:.3f}",
            )
            for row in best
        ],
    )
    more = len(rows) - len(best)
    if more > 0:
        say(f"{quantity(more, 'rows')} more in {folder}/actions.csv")
    say(f"written: {folder}", err=True)
