"""What a judged detection shows: a table of actions, their curves, key frames with boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.atomic import write_text
from maekit.data.order import Key, evenly
from maekit.data.pixels import to_float01
from maekit.engine.events import Emit, Note
from maekit.errors import Interrupted
from maekit.evaluate.detection.judged import JudgedBoxes
from maekit.evaluate.judged import save_picture, table_text
from maekit.visualize.boxes import Shown, drawn
from maekit.visualize.confusion import CLASSES, CURVES, KEY_FRAMES

if TYPE_CHECKING:
    from maekit.contracts import Boxes
    from maekit.evaluate.detection.found import KeyFrames
    from maekit.evaluate.detection.frame_map import Curve

_FRAMES, _COLUMNS = 9, 3  # key frames on the sheet, and side by side
_SIDE, _GAP, _ACROSS = 150, 14, 5  # of a curve's square, and how many are side by side
_NAMED = 2  # actions of a box, the likeliest
_INK, _LINE, _GRID = (40, 40, 40), (8, 48, 107), (215, 215, 215)


def show(
    judged: JudgedBoxes,
    folder: Path,
    frames: KeyFrames,
    emit: Emit,
    step: int,
) -> None:
    """Write ``classes.csv``, ``curves.png`` and ``key_frames.png`` into a run's folder.

    Failing to make them, in whatever way, only warns: the training before is worth more.

    Args:
        judged: what was found.
        folder: of the run.
        frames: what it was found in.
        emit: called with a warning, and what was drawn.
        step: of the run.
    """
    try:
        ordered = sorted(judged.per_class(), key=lambda each: -(each[1].average or 0.0))
        header = ("class", "true", "found", "average_precision")
        rows = [(name, each.true, each.found, each.average) for name, each in ordered]
        write_text(folder / CLASSES, table_text(header, rows))
        save_picture(curves_picture(ordered), folder / CURVES, emit, step)
        pictures = list(_key_frames(judged, frames))
        if pictures:
            save_picture(_sheet(pictures), folder / KEY_FRAMES, emit, step)
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it may not fail the training
        reason = str(error) or type(error).__name__
        emit(Note(f"what {folder} shows of actions cannot be made: {reason}", warning=True))


def curves_picture(curves: Sequence[tuple[str, Curve]]) -> Image.Image:
    """Draw precision (up) over recall (right) of each action, in a square of its own."""
    font = ImageFont.load_default(12)
    columns = min(_ACROSS, max(1, len(curves)))
    rows = -(-len(curves) // columns)
    wide, high = _SIDE + 2 * _GAP, _SIDE + 2 * _GAP + 18
    whole = Image.new("RGB", (columns * wide, max(1, rows) * high), "white")
    pen = ImageDraw.Draw(whole)
    for number, (name, curve) in enumerate(curves):
        left, top = number % columns * wide + _GAP, number // columns * high + _GAP + 18
        value = "-" if curve.average is None else f"{curve.average:.2f}"
        short = name if len(name) <= 14 else f"{name[:13]}…"
        pen.text((left, top - 17), f"{short} {value} ({curve.true})", fill=_INK, font=font)
        for share in (0.0, 0.5, 1.0):
            place = round(_SIDE * share)
            pen.line((left + place, top, left + place, top + _SIDE), fill=_GRID)
            pen.line((left, top + place, left + _SIDE, top + place), fill=_GRID)
        recall = np.concatenate([[0.0], np.repeat(curve.recall, 2)])
        precision = np.repeat(curve.precision, 2)
        # A step: the precision up to a recall is that of the next point.
        line = [
            (left + x * _SIDE, top + (1 - y) * _SIDE)
            for x, y in zip(recall[:-1].tolist(), precision.tolist(), strict=True)
        ]
        if len(line) > 1 and curve.true:
            pen.line(line, fill=_LINE, width=2)
    return whole


def _key_frames(judged: JudgedBoxes, frames: KeyFrames) -> Iterator[Image.Image]:
    size_of = {row: size for size, rows in frames.sizes.items() for row in rows}
    rows = np.unique(judged.found.rows).tolist()
    for place in evenly(len(rows), _FRAMES):
        row = rows[place]
        sample = frames.reader(size_of[row]).read(Key(0, row))
        if sample.bad is None:  # it could be read a moment ago
            clip = to_float01(sample.views[0][0].transpose(1, 2, 3, 0))
            frame = (clip[len(clip) // 2] * 255).round().astype(np.uint8)
            yield drawn(frame, boxes_shown(judged, row))


def boxes_shown(judged: JudgedBoxes, row: int) -> list[Shown]:
    """Return the boxes of a key frame: found ones with their likeliest actions, and true ones."""
    names, label = judged.task.outputs, judged.task.val[row]
    own = np.flatnonzero(judged.found.rows == row)
    found = []
    alike = [place for place, asks in enumerate(label.asked) if asks]
    for place, box in zip(own.tolist(), alike, strict=True):
        scores = judged.found.actions[place]
        best = np.argsort(-scores, kind="stable")[:_NAMED].tolist()
        lines = [f"{names[action]} {scores[action]:.2f}" for action in best]
        lines += [f"true: {_said(label, box, names)}"] if label.truth[box] else []
        found.append(Shown(tuple(label.corners[box].tolist()), tuple(lines)))
    for box, (true, asks) in enumerate(zip(label.truth, label.asked, strict=True)):
        if true and not asks:
            line = f"true: {_said(label, box, names)}"
            found.append(Shown(tuple(label.corners[box].tolist()), (line,)))
    return found


def _said(label: Boxes, box: int, names: Sequence[str]) -> str:
    return ", ".join(names[action] for action in sorted(label.labels[box])) or "nothing"


def _sheet(frames: Sequence[Image.Image]) -> Image.Image:
    wide, high = max(each.width for each in frames), max(each.height for each in frames)
    rows = -(-len(frames) // _COLUMNS)
    columns = min(_COLUMNS, len(frames))
    whole = Image.new("RGB", (columns * (wide + 6), rows * (high + 6)), "white")
    for number, each in enumerate(frames):
        whole.paste(each, (number % columns * (wide + 6), number // columns * (high + 6)))
    return whole
