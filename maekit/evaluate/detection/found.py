"""What a detector finds in key frames: read whole, at any grid, and gathered over ranks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from maekit.contracts import View
from maekit.data.boxes import widened
from maekit.data.grids import by_size
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering
from maekit.engine import distributed
from maekit.engine.left_out import counts_of
from maekit.engine.step import to_device_float01
from maekit.errors import NonFiniteError
from maekit.evaluate.detection.detector import padded
from maekit.evaluate.detection.supervision import regions
from maekit.progress import counted
from maekit.recipe.sections import NoAugment

if TYPE_CHECKING:
    from maekit.contracts import Boxes, Dataset
    from maekit.data.batch import BadFile, Batch
    from maekit.engine.precision import Precision
    from maekit.evaluate.detection.detector import Detector
    from maekit.evaluate.predictions import Reading
    from maekit.recipe.detection import BoxPooling
    from maekit.recipe.schema import Data, DataSpec

_LARGER = 8 / 7  # of the short side, when judged: 256 pixels for 224
Size = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """P boxes, and how likely each of K actions is in them.

    Attributes:
        rows: int64 ``[P]``, the key frame of each: its place in the set.
        corners: float64 ``[P, 4]``, as fractions of the picture.
        persons: float64 ``[P]``, how sure the person is.
        actions: float32 ``[P, K]``, probabilities.
        left_out: what of the key frames was not shown, counts by reason.
        bad: key frames that could not be read.
    """

    rows: np.ndarray
    corners: np.ndarray
    persons: np.ndarray
    actions: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)
    bad: tuple[BadFile, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


class Whole(NamedTuple):
    """How clips are read whole.

    Attributes:
        short: pixels of the short side.
        patch: height and width of a token; sides become multiples of it.
        pad: with zeros; else the long side is resized to one.
        fixed: the one size of an encoder that takes no other; None: any.
    """

    short: int
    patch: Size
    pad: bool = False
    fixed: Size | None = None

    @classmethod
    def of(cls, model: Detector, options: BoxPooling) -> Whole:
        """Return how a recipe judges clips with a detector."""
        patch = (model.backbone.patch[1], model.backbone.patch[2])
        height, width = model.clip[1:]
        if not model.backbone.any_grid:
            return cls(min(height, width), patch, fixed=(height, width))
        step = math.lcm(*patch)
        short = options.short or round(min(height, width) * _LARGER / step) * step
        return cls(short, patch, options.pad)

    def sizes(self, dataset: Dataset, indices: Sequence[int]) -> Mapping[Size, Sequence[int]]:
        """Return which samples are read at which height and width."""
        if self.fixed is not None:
            return {self.fixed: indices}
        found: Mapping[Size, Sequence[int]] = by_size(
            dataset, indices, short=self.short, multiple=1 if self.pad else math.lcm(*self.patch)
        )
        return found


def whole_reader(dataset: Dataset, data: Data, spec: DataSpec, size: Size) -> SampleReader:
    """Make a reader of whole pictures at one size; a side is stretched by less than a patch."""
    return SampleReader(
        dataset,
        spec=spec,
        augment=NoAugment(name="none", interpolation="bilinear"),
        views=(View("clip", size),),
        channels=data.channels,
        seed=0,
        purpose="test",
        held_out=True,
        rendering=Rendering("stretch", *_range(data)),
    )


def _range(data: Data) -> tuple[tuple[float, float] | None, bool]:
    own = Rendering.of(data)
    return own.span, own.float_ok


class Boxer:
    """A detector that scores the boxes of a batch as they are judged.

    Args:
        model: in evaluation mode.
        options: how boxes are pooled.
        precision: of the forward pass.
        whole: how clips were read.
    """

    def __init__(
        self, model: Detector, options: BoxPooling, precision: Precision, whole: Whole
    ) -> None:
        self.model, self.options, self.precision, self.whole = model, options, precision, whole

    @torch.inference_mode()
    def scores(self, views: np.ndarray, boxes: Sequence[Boxes]) -> np.ndarray:
        """Return probabilities, float32 ``[P, K]``, of the boxes of clips ``[B, C, T, H, W]``."""
        model = self.model
        pixels = model.normalize(to_device_float01(views, model.device))
        size = (pixels.shape[3], pixels.shape[4])
        corners = [
            widened(each, *self.options.widen) for each in regions(boxes, self.options.region)
        ]
        cells = model.cells(corners, size).to(model.device)
        if self.whole.pad:
            pixels = padded(pixels, self.whole.patch)
        with self.precision.autocast():
            logits = model(pixels, cells)
        found: np.ndarray = logits.float().sigmoid().cpu().numpy()
        return found


def find(
    dataset: Dataset,
    labels: Sequence[Boxes],
    boxer: Boxer,
    reader: Callable[[Size], SampleReader],
    reading: Reading,
) -> Found:
    """Score the boxes of every key frame that has any, each clip beside clips of its own size.

    Args:
        dataset: of the key frames.
        labels: its boxes; those that are asked for are scored.
        boxer: scores them.
        reader: makes a reader of a height and width.
        reading: how they are read.

    Raises:
        NonFiniteError: a score is not finite.
    """
    asked = [row for row, boxes in enumerate(labels) if any(boxes.asked)]
    # One list for all: what another node cannot open may not shift whose turn a key frame is.
    sizes = distributed.on_first(lambda: boxer.whole.sizes(dataset, asked))
    batches = [
        (size, [Key(0, row) for row in rows[first : first + reading.batch]])
        for size, rows in sorted(sizes.items())
        for first in range(0, len(rows), reading.batch)
    ]

    def read(own: Sequence[tuple[Size, list[Key]]]) -> Iterator[Batch]:
        for size in dict.fromkeys(size for size, _ in own):
            keys = [keys for other, keys in own if other == size]
            with reading.loader(reader(size), keys) as loader:
                yield from loader

    def score() -> list[tuple[Found, Counter[str]]]:
        own, made, done = distributed.share(batches), list[tuple[Found, Counter[str]]](), 0
        with counted("judging", sum(len(keys) for _, keys in own), "key frames") as count:
            for batch in read(own):
                count(done)
                made.append((_scored(batch, labels, boxer, dataset), counts_of([batch])))
                done += len(batch.keys)
        return made

    parts = [part for of_rank in distributed.together(score) for part in of_rank]
    return joined([found for found, _ in parts], sum((counts for _, counts in parts), Counter()))


def _scored(batch: Batch, labels: Sequence[Boxes], boxer: Boxer, dataset: Dataset) -> Found:
    good = [place for place in range(len(batch.keys)) if batch.weight[place] > 0]
    rows = [batch.keys[place].index for place in good]
    boxes = [labels[row].only(labels[row].asked) for row in rows]
    moved = [batch.boxes[place] for place in good]
    actions = boxer.scores(batch.views[0][good], moved) if good else np.zeros((0, 0), np.float32)
    if not np.isfinite(actions).all():
        hint = "a lower learning rate, or precision: fp32"
        names = ", ".join(dataset.name(row) for row in rows)
        raise NonFiniteError("its scores are not finite", where=names, hint=hint)
    return Found(
        np.repeat(np.array(rows, np.int64), [len(each) for each in boxes]),
        np.concatenate([np.zeros((0, 4)), *(each.corners for each in boxes)]),
        np.array([score for each in boxes for score in each.scores], np.float64),
        actions,
        bad=batch.bad,
    )


def joined(parts: Sequence[Found], left_out: Counter[str]) -> Found:
    """Put batches into one, by key frames, so that the number of ranks does not matter."""
    full = [each for each in parts if len(each)]
    bad = sorted((file for each in parts for file in each.bad), key=lambda file: file.index)
    if not full:
        nothing = np.zeros(0)
        return Found(
            nothing.astype(np.int64), np.zeros((0, 4)), nothing, np.zeros((0, 0)), bad=tuple(bad)
        )
    rows = np.concatenate([each.rows for each in full])
    order = np.argsort(rows, kind="stable")
    return Found(
        rows[order],
        np.concatenate([each.corners for each in full])[order],
        np.concatenate([each.persons for each in full])[order],
        np.concatenate([each.actions for each in full])[order],
        dict(left_out),
        tuple(bad),
    )
