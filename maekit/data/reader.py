"""From a key to a sample: open, plan, read, cut, mask. Runs in workers, so never imports torch."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from maekit.contracts import Boxes
from maekit.data.augment import draw_plan
from maekit.data.batch import CUT, FURTHER, PADDED, BadFile, Layout, Sample
from maekit.data.boxes import moved
from maekit.data.clips import resample
from maekit.data.masks import MaskDraw, read_only
from maekit.data.pixels import DTYPES, apply, convertible, crop_resize, fill_holes, to_channels
from maekit.data.rendering import (
    MUCH,
    PLAIN,
    Placed,
    Rendering,
    cut_share,
    extremes,
    padded,
    placed,
)
from maekit.data.rng import generator
from maekit.errors import DataError, MaekitError, PartError, StorageError
from maekit.origin import origin_of
from maekit.recipe.sections import NoAugment
from maekit.text import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maekit.contracts import Dataset, Grid, Masker, Source, SourceInfo, View
    from maekit.data.boxes import BoxDraw
    from maekit.data.order import Key
    from maekit.data.plan import Plan
    from maekit.data.transform import Transform
    from maekit.origin import Origin
    from maekit.recipe.schema import DataSpec
    from maekit.recipe.sections import Augment


# Returns the arrays of all views, [R, C, T, h, w] each, of a dtype that it is given the name of.
Room = Callable[[str], Sequence[np.ndarray]]
_LONGEST_REASON = 1000
_KNOWN = frozenset(map(np.dtype, DTYPES))  # whose names take long to be asked for
_COMMON = (1, 3)  # channels of most pictures
_MORE_BY_ALPHA = ((1, 2), (3, 4))  # without and with transparency


@dataclass(kw_only=True)
class SampleReader:
    """Reader of samples by key, the same for the same key wherever and whenever it is read.

    Args:
        dataset: what to read from.
        spec: frames, stride and sampling of a clip.
        augment: how crops are drawn.
        views: the model's own clip first, then the further views of a target.
        channels: C of every view.
        seed: the recipe's seed.
        purpose: keeps the randomness of different uses apart (``"pretrain"``, ``"holdout"``).
        masker: draws what is hidden; None: no masks.
        decoder_masker: draws what is to be predicted; None: what is hidden.
        grid: the backbone's tokens; needed with a masker.
        mask_unit: tokens per maskable unit.
        repeats: R views and masks of each decoded sample.
        repeat_from: whether each repeat draws frames anew, or only box, flip and mask.
        held_out: fixed views: the clip in the middle, no flip.
        rendering: what is done to pixels that are not of the view's size, or not of a known range.
        transform: a further change of the pixels, alike for all frames of a clip.
        boxes: how a sample's boxes are drawn; None: they move with the pixels, and no further.

    Raises:
        PartError: a masker does not keep its contract at this grid.
    """

    dataset: Dataset = field(kw_only=False)
    spec: DataSpec
    augment: Augment
    views: tuple[View, ...]
    channels: int
    seed: int
    purpose: str
    masker: Masker | None = None
    decoder_masker: Masker | None = None
    grid: Grid | None = None
    mask_unit: tuple[int, int, int] = (1, 1, 1)
    repeats: int = 1
    repeat_from: Literal["new-clip", "same-frames"] = "new-clip"
    held_out: bool = False
    rendering: Rendering = PLAIN
    transform: Transform | None = None
    boxes: BoxDraw | None = None
    origin: Origin | None = field(init=False)  # of the dataset; workers know of no other part
    layout: Layout = field(init=False)
    hidden: MaskDraw | None = field(init=False)
    decode: MaskDraw | None = field(init=False)

    def __post_init__(self) -> None:
        shapes = tuple(
            (self.channels, view.frames or self.spec.frames, *view.size) for view in self.views
        )
        self.origin = origin_of(self.dataset)
        channels, frames, height, width = shapes[0]
        self._clip = (frames, height, width, channels)
        self.hidden = self._mask_draw(self.masker)
        self.decode = self._mask_draw(self.decoder_masker, after=self.hidden)
        tokens = self.grid.tokens if self.hidden and self.grid else 0
        self.layout = Layout(shapes, self.repeats, tokens, self.decode is not None)

    def prepare(self) -> None:
        """Import what reading needs, whose time counts for no sample."""
        if self.transform is not None:
            self.transform.make()

    def read(self, key: Key, room: Room | None = None) -> Sample:
        """Read one sample; one that cannot be read comes back as bad, with the reason.

        Args:
            key: of the sample.
            room: where its views go; None: into new arrays.

        Raises:
            PartError: a part does not keep its contract.
            StorageError: this process has too many files open, which is not the sample's fault.
        """
        try:
            source = self.dataset.open(key.index)
            plans = self.plans(source, key)
            views, known = self.read_views(source, plans, key, room)
        except PartError as error:
            named = error if self.origin is None else self.origin.named(error)
            raise named from error
        except StorageError:
            raise
        except MaekitError as error:
            return self.bad(key, error.what + (f" ({error.hint})" if error.hint else ""))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
                hint = "allow more (ulimit -n 4096), or fewer data.workers"
                raise StorageError("too many open files", hint=hint) from error
            return self.bad(key, f"{type(error).__name__}: {error}")
        # Masks are drawn outside: what fails there is the masker, not the file.
        crops = views[0].transpose(0, 2, 3, 4, 1)
        left_out = self._left_out(source.info, plans)
        masks = self.masks(key, crops)
        label, boxes = source.info.label, self._boxes(source.info, plans, key)
        return Sample(views, *masks, label, left_out=left_out, known=known, boxes=boxes)

    def bad(self, key: Key, reason: str) -> Sample:
        """Return a stand-in for a sample that cannot be read: masks, no pixels.

        It keeps the sample's place in the batch, with a weight of 0.
        """
        try:
            file = self.dataset.name(key.index)
        except Exception as error:  # noqa: BLE001 - a dataset that cannot even name it
            file = f"sample {key.index} ({type(error).__name__}: {error})"
        crops = np.zeros((self.repeats, *self._clip), np.uint8)
        bad = BadFile(file, reason[:_LONGEST_REASON], key.index)
        return Sample((), *self.masks(key, crops), bad=bad)

    def cuts(self, info: SourceInfo) -> float:
        """Return how much of a sample no view can show, as it is of another aspect, 0 to 1.

        Of views that are drawn at random, none is lost for good.
        """
        if not isinstance(self.augment, NoAugment) or self.rendering.fit != "crop":
            return 0.0
        return cut_share(info.height, info.width, self.views[0].size)

    def _left_out(self, info: SourceInfo, plans: Sequence[Plan]) -> dict[str, int]:
        """Return what a sample leaves out, by reason."""
        found = {FURTHER: info.further} if info.further else {}
        if any(len(set(plan.frame_ids)) < len(plan.frame_ids) for plan in plans):
            found[PADDED] = 1
        if self.cuts(info) > MUCH:
            found[CUT] = 1
        return found

    def plans(self, source: Source, key: Key) -> list[Plan]:
        """Draw what is read of an opened sample, for each repeat."""
        plans: list[Plan] = []
        for repeat in range(self.repeats):
            rng = None if self.held_out else self._rng("plan", key, repeat)
            plan = draw_plan(
                self.augment, source, self.spec, self.views[0].size, rng, self.rendering.fit
            )
            if self.repeat_from == "same-frames" and plans:
                plan = replace(plan, frame_ids=plans[0].frame_ids)
            plans.append(plan)
        return plans

    def _boxes(self, info: SourceInfo, plans: Sequence[Plan], key: Key) -> tuple[Boxes, ...]:
        """Return the boxes that are asked for, in fractions of the model's own view."""
        if not isinstance(info.label, Boxes):
            return ()
        asked, (height, width) = info.label.only(info.label.asked), self.views[0].size
        found = []
        for repeat, plan in enumerate(plans):
            where = placed(plan.box, info.height, info.width, (height, width))
            picture = (info.height, info.width)
            boxes = moved(asked, picture, where, (height, width), flip=plan.flip)
            if self.boxes is not None:
                boxes = self.boxes(boxes, (height, width), self._rng("boxes", key, repeat))
            found.append(boxes)
        return tuple(found)

    def _mask_draw(self, masker: Masker | None, after: MaskDraw | None = None) -> MaskDraw | None:
        if masker is None:
            return None
        if self.grid is None:
            what = "a reader with a masker needs the grid"
            raise ValueError(what)
        return MaskDraw(masker, self.grid, self.mask_unit, self._clip, after=after)

    def masks(self, key: Key, crops: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Draw both masks, bool ``[R, N]`` each or None, for crops ``[R, T, H, W, C]``."""

        def draw(
            masks: MaskDraw | None, purpose: str, hidden: np.ndarray | None
        ) -> np.ndarray | None:
            if masks is None:
                return None
            drawn = []
            for repeat, crop in enumerate(crops):
                known = None if hidden is None else hidden[repeat]
                drawn.append(masks.draw(self._rng(purpose, key, repeat), crop, known))
            return np.stack(drawn)

        hidden = draw(self.hidden, "mask", None)
        return hidden, draw(self.decode, "decoder-mask", hidden)

    def _rng(self, what: str, key: Key, repeat: int) -> np.random.Generator:
        purpose = f"{self.purpose}/{what}"
        return generator(
            self.seed, purpose=purpose, epoch=key.epoch, index=key.index, repeat=repeat
        )

    def read_views(
        self, source: Source, plans: Sequence[Plan], key: Key, room: Room | None = None
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
        """Read each view ``[R, C, T, h, w]``, in the source's dtype, and which tokens are known."""
        rendering, room = self.rendering, room or self._new_arrays
        if source.info.dtype == "float32" and not rendering.span and not rendering.float_ok:
            raise _without_range(source)
        _check_channels(source.info, self.channels)
        ids = [
            [resample(plan.frame_ids, frames, source.info.frames) for plan in plans]
            for _, frames, _, _ in self.layout.views
        ]
        wanted = sorted({frame for view in ids for clip in view for frame in clip})
        whole = self.transform is not None and self.transform.on == "frames"
        frames: dict[int, np.ndarray] | None = None
        if whole or not source.info.crops:
            clip = self._checked(source, source.read(wanted), len(wanted))
            frames = dict(zip(wanted, clip, strict=True))
        views: Sequence[np.ndarray] = ()
        # Of the model's own view of some repeats: pixels that were filled, and what is padding.
        holes: dict[int, np.ndarray] = {}
        places: dict[int, Placed] = {}
        for repeat, plan in enumerate(plans):
            own = frames
            if frames is not None and self.transform is not None and whole:
                changed = self.transform(list(frames.values()), key, repeat, source.info.id)
                own = dict(zip(frames, changed, strict=True))
            for place, view in enumerate(self.views):
                info = source.info
                where = placed(plan.box, info.height, info.width, view.size)
                clip, filled = self._view(source, plan, view, where, ids[place][repeat], own)
                if filled is not None and place == 0:
                    holes[repeat] = filled
                if place == 0 and where.size != view.size:
                    places[repeat] = where
                if self.transform is not None and not whole:
                    clip = np.stack(self.transform(list(clip), key, repeat, source.info.id))
                views = views or room(clip.dtype.name)
                views[place][repeat] = clip.transpose(3, 0, 1, 2)
        return tuple(views), self._known(holes, places)

    def _new_arrays(self, dtype: str) -> list[np.ndarray]:
        repeats = self.repeats
        return [np.empty((repeats, *shape), dtype) for shape in self.layout.views]

    def _checked(
        self, source: Source, clip: object, frames: int, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        ours = self.origin is None or self.origin.ours
        return _checked(source, clip, frames, size, ours=ours)

    def _known(
        self, holes: Mapping[int, np.ndarray], places: Mapping[int, Placed]
    ) -> np.ndarray | None:
        """Return which tokens hold no filled pixel, and not only padding, bool ``[R, N]``.

        None: all of them.
        """
        if not (holes or places) or self.grid is None or not self.layout.tokens:
            return None
        known = np.ones((self.repeats, self.layout.tokens), np.bool_)
        view, (_, down, across) = self.views[0].size, self.grid
        for repeat, shown in places.items():
            cells = np.zeros((down, view[0] // down, across, view[1] // across), np.bool_)
            cells.reshape(view)[shown.rows, shown.columns] = True
            known[repeat].reshape(self.grid)[:] = cells.any(axis=(1, 3))
        for repeat, filled in holes.items():
            found = zip(np.nonzero(filled), self.grid, filled.shape, strict=True)
            tokens = tuple(where * count // size for where, count, size in found)
            known[repeat].reshape(self.grid)[tokens] = False
        return known

    def _view(
        self,
        source: Source,
        plan: Plan,
        view: View,
        where: Placed,
        ids: Sequence[int],
        frames: dict[int, np.ndarray] | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read one view of one plan, ``[T, h, w, C]``, and where it was filled, ``[T, h, w]``."""
        if frames is None:
            clip = self._checked(
                source, source.read(ids, where.box, where.size), len(ids), where.size
            )
        else:
            # The augmentation says how the model's own clip is resized, a target how its views.
            wanted = None if view is self.views[0] else view.interpolation
            interpolation = wanted or plan.interpolation
            parts = {
                frame: crop_resize(frames[frame], where.box, where.size, plan.edge, interpolation)
                for frame in set(ids)
            }
            clip = _stacked([parts[frame] for frame in ids])
        clip, filled = fill_holes(to_channels(clip, self.channels, source.info.id))
        clip = self.rendering.spread(clip)
        if plan.color:
            clip = apply(clip, plan.color, source.info.id)
        if where.size != view.size:
            clip = padded(clip, where, view.size)
            if filled is not None:
                shown, filled = filled, np.zeros(clip.shape[:-1], np.bool_)
                filled[:, where.rows, where.columns] = shown
        if plan.flip:
            clip, filled = clip[:, :, ::-1], None if filled is None else filled[:, :, ::-1]
        return clip, filled


def _stacked(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Stack frames; one needs no copy."""
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _without_range(source: Source) -> DataError:
    """Build the error of pixels that nobody knows the white of, and say what they are here."""
    what = "has float pixels (or integers), whose range is not known"
    with suppress(Exception):
        low, high = extremes(source)
        what += f"; here they go from {low:g} to {high:g}"
    hint = "set data.range to [low, high] or auto, or data.stats to {mean, std} or auto"
    return DataError(what, where=source.info.id, hint=hint)


def _check_channels(info: SourceInfo, channels: int) -> None:
    """Raise DataError where a sample's channels cannot become those of the model."""
    have, want = info.channels, channels
    if convertible(have, want):
        return
    what = f"has {quantity(have, 'channels')}, data.channels is {want}"
    hint = f"set data.channels to {have}"
    if info.height < min(info.width, have) and (info.height == want or info.height in _COMMON):
        what = f"is read as {info.height} x {info.width} pixels of {have} channels"
        hint = "is it [C, H, W]? save it as [H, W, C], by np.moveaxis(array, 0, -1)"
    elif (have, want) in _MORE_BY_ALPHA:
        hint = f"alpha: keep makes transparency a channel, where files have it; else {hint}"
    elif (want, have) in _MORE_BY_ALPHA:
        hint = f"if the last one is transparency, save the file without it; else {hint}"
    raise DataError(what, where=info.id, hint=hint)


def _checked(
    source: Source, clip: object, frames: int, size: tuple[int, int] | None, *, ours: bool
) -> np.ndarray:
    """Return a dataset's answer, which nothing may write into: it may be what the set keeps.

    Args:
        source: what was read.
        clip: the answer.
        frames: that were asked for.
        size: height and width that were asked for; None: those of the whole sample.
        ours: whether the data set is maekit's own.

    Raises:
        PartError: it is no clip ``[T, H, W, C]``, or not the one that the sample's header
            announced.
        DataError: likewise of maekit's own sets: then it is the file that contradicts itself.
    """
    info = source.info
    if (
        not isinstance(clip, np.ndarray)
        or clip.ndim != 4
        or len(clip) != frames
        or (size is not None and clip.shape[1:3] != size)
        or clip.dtype not in _KNOWN
    ):
        sides = "H, W" if size is None else f"{size[0]}, {size[1]}"
        wanted = f"[{frames}, {sides}, C] of {', '.join(DTYPES)}"
        what = f"a dataset's read must return {wanted}; got {_described(clip)}"
        raise PartError(what, where=info.id)
    announced = (frames, *(size or (info.height, info.width)), info.channels)
    if clip.shape != announced or clip.dtype != info.dtype:
        what = f"its header announces {info.dtype} {announced}, read returns {_described(clip)}"
        raise (DataError if ours else PartError)(what, where=info.id)
    return read_only(clip)


def _described(clip: object) -> str:
    return f"{clip.dtype} {clip.shape}" if isinstance(clip, np.ndarray) else type(clip).__name__
