"""What a detector finds in key frames: read whole, at any grid, and gathered over ranks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from maekit.contracts import View
from maekit.data.boxes import widened
from maekit.data.grids import by_size, whole_size
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering
from maekit.engine import distributed
from maekit.engine.left_out import counts_of
from maekit.engine.step import to_device_float01
from maekit.errors import NonFiniteError
from maekit.evaluate.detection.detector import padded
from maekit.evaluate.detection.supervision import regions
from maekit.evaluate.feature_cache import FeatureSet
from maekit.evaluate.predictions import batches_of
from maekit.progress import counted
from maekit.recipe.sections import NoAugment
from maekit.stop import check, hearing

if TYPE_CHECKING:
    from maekit.contracts import Boxes, Dataset
    from maekit.data.batch import BadFile, Batch
    from maekit.data.order import Key
    from maekit.engine.precision import Precision
    from maekit.evaluate.detection.detector import Detector
    from maekit.evaluate.feature_cache import FeatureShards
    from maekit.evaluate.predictions import Reading
    from maekit.recipe.detection import BoxPooling
    from maekit.recipe.schema import Data, DataSpec

_LARGER = 8 / 7  # of the short side, when judged: 256 pixels for 224
_ARRAYS = ("corners", "persons", "actions")
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

    @classmethod
    def of(cls, made: FeatureSet) -> Self:
        """Return what ``kept`` returned."""
        corners, persons, actions = (made.features[name] for name in _ARRAYS)
        return cls(made.rows, corners, persons, actions, made.left_out, made.unread)

    def kept(self) -> FeatureSet:
        """Return the same as it is kept in shards."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return FeatureSet(self.rows, arrays, self.bad, Counter(self.left_out))


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
        step = 1 if self.pad else math.lcm(*self.patch)
        found: Mapping[Size, Sequence[int]] = by_size(
            dataset, indices, short=self.short, multiple=step
        )
        return found

    @property
    def said(self) -> str | None:
        """What of a clip is not as the recipe says, in words; None: nothing."""
        if self.fixed is not None:
            size = "{} x {}".format(*self.fixed)
            return f"the encoder takes no other clips: whole ones are stretched to {size} pixels"
        step = math.lcm(*self.patch)
        short = whole_size(self.short, self.short, self.short, step)[0]
        if self.pad or short == self.short:
            return None
        text = f"finetune.boxes.short is {self.short}, which is no multiple of {step} pixels"
        return f"{text}: the short side is {short}; boxes.pad: true pads it"


class KeyFrames:
    """The key frames of a set, as a detector is shown them: whole.

    Args:
        dataset: of the key frames.
        labels: its boxes; those that are asked for are scored.
        whole: how clips are shown.
        data: how pixels are read.
        spec: how clips are taken.
    """

    def __init__(
        self, dataset: Dataset, labels: Sequence[Boxes], whole: Whole, data: Data, spec: DataSpec
    ) -> None:
        self.dataset, self.labels, self.whole = dataset, labels, whole
        self.data, self.spec = data, spec

    @cached_property
    def sizes(self) -> Mapping[Size, Sequence[int]]:
        """Which key frames with boxes that are asked for are read at which height and width.

        It is looked up once, on the first rank: what another node cannot open may not shift whose
        turn a key frame is.
        """
        return distributed.on_first(
            lambda: self.whole.sizes(
                self.dataset,
                [row for row, boxes in enumerate(hearing(self.labels)) if any(boxes.asked)],
            )
        )

    def reader(self, size: Size) -> SampleReader:
        """Return a reader at one size; without padding a side is stretched to whole patches."""
        return SampleReader(
            self.dataset,
            spec=self.spec,
            augment=NoAugment(name="none", interpolation="bilinear"),
            views=(View("clip", size),),
            channels=self.data.channels,
            seed=0,
            purpose="test",
            held_out=True,
            rendering=Rendering("stretch", *_range(self.data)),
        )

    def batches(self, size: int) -> list[tuple[Size, list[Key]]]:
        """Return batches of at most so many key frames, each of one size."""
        return [
            (shape, keys)
            for shape, rows in sorted(self.sizes.items())
            for keys in batches_of(rows, size)
        ]


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


def find(frames: KeyFrames, boxer: Boxer, reading: Reading) -> Found:
    """Score the boxes of every key frame that has any, each clip beside clips of its own size.

    Args:
        frames: a set's.
        boxer: scores their boxes.
        reading: how they are read.

    Raises:
        NonFiniteError: a score is not finite.
    """
    batches = frames.batches(reading.batch)

    def score() -> list[Found]:
        return list(_scores(frames, boxer, reading, distributed.share(batches)))

    return joined(part for of_rank in distributed.together(score) for part in of_rank)


def find_shards(
    frames: KeyFrames, boxer: Boxer, reading: Reading, shards: FeatureShards, size: int
) -> int:
    """Do the same, but keep what is found in shards; what is kept already is not scored again.

    Args:
        frames: a set's.
        boxer: scores their boxes.
        reading: how they are read.
        shards: where scores are kept.
        size: key frames of a shard.

    Returns:
        How many shards there are.

    Raises:
        NonFiniteError: a score is not finite.
        Interrupted: a signal asked for it; the shards that are done are kept.
        StorageError: a shard cannot be written.
    """
    batches, each = frames.batches(reading.batch), max(1, size // reading.batch)
    groups = [batches[first : first + each] for first in range(0, len(batches), each)]
    missing = distributed.share(
        distributed.on_first(
            lambda: [number for number in range(len(groups)) if not shards.has(number)]
        )
    )

    def score() -> None:
        own = [batch for number in missing for batch in groups[number]]
        with closing(_scores(frames, boxer, reading, own)) as made:
            for number in missing:
                check()
                shards.save(number, joined(islice(made, len(groups[number]))).kept())

    distributed.together(score)
    return len(groups)


def _scores(
    frames: KeyFrames, boxer: Boxer, reading: Reading, batches: Sequence[tuple[Size, list[Key]]]
) -> Generator[Found, None, None]:
    """Yield what is found in each batch, in their order."""
    done = 0
    with counted("judging", sum(len(keys) for _, keys in batches), "key frames") as count:
        for size in dict.fromkeys(size for size, _ in batches):  # they stand together
            keys = [keys for other, keys in batches if other == size]
            with reading.loader(frames.reader(size), keys) as loader:
                for batch in loader:
                    count(done)
                    yield _scored(batch, frames, boxer)
                    done += len(batch.keys)


def _scored(batch: Batch, frames: KeyFrames, boxer: Boxer) -> Found:
    good = [place for place in range(len(batch.keys)) if batch.weight[place] > 0]
    rows = [batch.keys[place].index for place in good]
    boxes = [frames.labels[row].only(frames.labels[row].asked) for row in rows]
    moved = [batch.boxes[place] for place in good]
    actions = boxer.scores(batch.views[0][good], moved) if good else np.zeros((0, 0), np.float32)
    if not np.isfinite(actions).all():
        hint = "a lower learning rate, or precision: fp32"
        names = ", ".join(frames.dataset.name(row) for row in rows)
        raise NonFiniteError("its scores are not finite", where=names, hint=hint)
    return Found(
        np.repeat(np.array(rows, np.int64), [len(each) for each in boxes]),
        np.concatenate([np.zeros((0, 4)), *(each.corners for each in boxes)]),
        np.array([score for each in boxes for score in each.scores], np.float64),
        actions,
        counts_of([batch]),
        batch.bad,
    )


def joined(parts: Iterable[Found]) -> Found:
    """Put batches into one, by key frames, so that the number of ranks does not matter."""
    every = list(parts)
    bad = sorted((file for each in every for file in each.bad), key=lambda file: file.index)
    left_out = sum((Counter(each.left_out) for each in every), Counter[str]())
    # Of a batch without boxes nobody knows how many actions there are.
    full = [each for each in every if len(each)] or [_NOTHING]
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


_NOTHING = Found(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 0), np.float32))
