"""Which clips and crops of a test sample are evaluated.

Read in loader workers, so torch-free.

Dense sampling follows VideoMAE on Kinetics: frames at the stride, clips evenly over them
(kinetics.py:137-156). Windows of spread frames, which no paper tests on, begin evenly too. Segments
follow it on SSv2: each clip takes one frame of every segment, at another place in it
(ssv2.py:134-151). Crops lie along the longer side of the resized picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.contracts import View
from maekit.data.clips import (
    centered_frames,
    frame_ids,
    linspace_frames,
    timed_frames,
    timed_window,
)
from maekit.data.plan import Box, Plan
from maekit.data.reader import SampleReader
from maekit.data.rendering import PLAIN, Rendering, fitted_box, largest_box
from maekit.recipe.schema import SEGMENTS
from maekit.recipe.sections import NoAugment, Views

if TYPE_CHECKING:
    from maekit.contracts import Dataset, Source, SourceInfo
    from maekit.data.clips import At
    from maekit.data.order import Key
    from maekit.recipe.schema import DataSpec
    from maekit.recipe.sections import Fit

_ROUNDING = 1e-6  # a resized side that is whole but for floating point is whole


@dataclass(kw_only=True)
class ViewReader(SampleReader):
    """Reads all test views of a sample at once, as the repeats of one row: clip-major.

    Of more than one, the center view follows them (``Views``).

    Args:
        test: how many views, and how they are cut.
    """

    test: Views

    def plans(self, source: Source, key: Key) -> list[Plan]:  # noqa: ARG002 - nothing is drawn
        """Plan every view of an opened sample: clips in order, the crops of each in order."""
        plans = self._plans(source, self.test)
        return plans if len(plans) == 1 else plans + self._plans(source, self.test.center)

    def _plans(self, source: Source, test: Views) -> list[Plan]:
        size, info = self.views[0].size, source.info
        height, width = info.height, info.width
        fit = self.rendering.fit
        boxes = [crop_box(height, width, size, test, crop, fit) for crop in range(test.crops)]
        return [
            Plan(ids, box, "context", flip=False, interpolation=test.interpolation)
            for ids in clip_frames(info.frames, self.spec, test.clips, info.fps, source.at)
            for box in boxes
        ]

    def cuts(self, info: SourceInfo) -> float:
        """Return how much of a sample no view can show; several crops lie along all of it."""
        return super().cuts(info) if self.test.crops == 1 else 0.0

    @property
    def center_index(self) -> int:
        """The place of the center view, which single-view numbers are of: the last."""
        return self.test.read - 1


def view_reader(
    dataset: Dataset,
    spec: DataSpec,
    test: Views,
    *,
    size: tuple[int, int],
    channels: int,
    rendering: Rendering = PLAIN,
) -> ViewReader:
    """Make a reader of test views of a size (height, width), with ``spec``'s frames."""
    return ViewReader(
        dataset,
        spec=spec,
        augment=NoAugment(name="none", interpolation=test.interpolation),
        views=(View("clip", size),),
        channels=channels,
        seed=0,
        purpose="test",
        repeats=test.read,
        held_out=True,
        rendering=rendering,
        test=test,
    )


def clip_frames(
    available: int, spec: DataSpec, clips: int, fps: float | None = None, at: At | None = None
) -> list[tuple[int, ...]]:
    """Choose the frames of ``clips`` clips of a video of ``available`` frames.

    One clip is the center clip of held-out samples, and the only one of a label that is of one
    moment. A video that is too short is padded with its last frame.
    """
    if clips == 1 or at is not None:
        return [frame_ids(available, spec, None, fps, at)] * clips
    if spec.sampling in SEGMENTS:
        return [
            tuple(
                available * (clips * place + clip) // (clips * spec.frames)
                for place in range(spec.frames)
            )
            for clip in range(clips)
        ]
    if spec.sampling == "spread":
        spare = max(0, available - spec.frames * spec.stride)
        return [
            linspace_frames(clip * spare // (clips - 1), available, spec.frames, spec.stride)
            for clip in range(clips)
        ]
    if spec.sampling == "timed":  # mae_st: get_start_end_idx, with use_offset
        window = timed_window(spec, fps)
        apart = max(available - window, 0.0) // (clips - 1)
        return [timed_frames(clip * apart, available, spec.frames, window) for clip in range(clips)]
    if spec.sampling == "centered":
        middles = [available * (2 * clip + 1) // (2 * clips) for clip in range(clips)]
        return [centered_frames(available, spec, None, fps, middle) for middle in middles]
    strided = range(0, available, spec.stride)
    spare = max(0, len(strided) - spec.frames)
    starts = [clip * spare // (clips - 1) for clip in range(clips)]
    last = len(strided) - 1
    return [
        tuple(strided[min(start + place, last)] for place in range(spec.frames)) for start in starts
    ]


def crop_box(
    height: int, width: int, size: tuple[int, int], test: Views, crop: int, fit: Fit = "crop"
) -> Box:
    """Place crop number ``crop`` of a picture: of the output's aspect, at a whole resized pixel.

    One crop is centered: exactly, or with ``resize: whole-pixels`` at a pixel. Along the side that
    has room, the first crop touches one edge of the picture and the last the other; across it they
    are centered. A view that shows all of a sample has no room for several.
    """
    if fit != "crop":
        return fitted_box(height, width, size, fit, test.enlarge)
    if test.resize == "whole-pixels":
        return _whole_pixel_box(height, width, size, test, crop)
    largest = largest_box(height, width, size)
    sides = (largest[0] / test.enlarge, largest[1] / test.enlarge)
    top, left = (height - sides[0]) / 2, (width - sides[1]) / 2
    if test.crops == 1:
        return Box(top, left, *sides)
    # The side along which the largest box leaves more room; of a picture of the output's own
    # aspect, the longer one.
    room = (height - largest[0], width - largest[1])
    down = room[0] > room[1] or (room[0] == room[1] and height > width)
    limit, side, output = (height, sides[0], size[0]) if down else (width, sides[1], size[1])
    pixel = side / output  # of the resized picture, in this one's
    spare = max(0, int(limit / pixel + _ROUNDING) - output)
    start = min(crop * spare // (test.crops - 1) * pixel, limit - side)
    return Box(start, left, *sides) if down else Box(top, start, *sides)


def _whole_pixel_box(height: int, width: int, size: tuple[int, int], test: Views, crop: int) -> Box:
    """Place a crop as in a picture that was resized to whole pixels (torchvision, cv2).

    The short side becomes ``enlarge`` times the output's, the long one what follows, rounded down.
    """
    if size[0] * width >= size[1] * height:  # the height is short, for this output
        rows = round(size[0] * test.enlarge)
        columns = max(size[1], rows * width // height)
    else:
        columns = round(size[1] * test.enlarge)
        rows = max(size[0], columns * height // width)
    spare = (rows - size[0], columns - size[1])
    places = [round(each / 2) for each in spare]
    if test.crops > 1:
        along = 0 if spare[0] > spare[1] else 1
        places[along] = crop * spare[along] // (test.crops - 1)
    down, across = height / rows, width / columns
    return Box(places[0] * down, places[1] * across, size[0] * down, size[1] * across)
