"""Read inputs as a model sees them: its frames, its size, its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.contracts import Dataset, Source, SourceInfo, View
from maekit.data.batch import PADDED
from maekit.data.clips import mean_step
from maekit.data.order import Key
from maekit.data.pixels import convertible, to_float01
from maekit.data.plan import Box
from maekit.data.reader import SampleReader
from maekit.data.rendering import PLAIN, Rendering
from maekit.errors import DataError
from maekit.recipe.schema import SEGMENTS, DataSpec, Sampling
from maekit.recipe.sections import NoAugment
from maekit.visualize.masks import MaskInput

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder
    from maekit.recipe.sections import Interpolation

FRAMES = 16  # of a video, at most, that an image model is given, one by one
# Of a native size: the memory of one pass grows with the square of its tokens, most of all where
# the attention of all layers is kept; the passes over a video's frames are shown together.
MOST_TOKENS, MOST_ATTENDED, MOST_TOGETHER = 16_384, 2048, 65_536
_DEFAULT_FPS = 10.0  # of videos whose file does not say
_KEY = Key(0, 0)


@dataclass(frozen=True)
class ClipOptions:
    """How clips are read: as the run of the weights read its own, where that is known."""

    stride: int = 1
    sampling: Sampling = "dense"
    rate: float | None = None
    interpolation: Interpolation = "bicubic"
    rendering: Rendering = PLAIN
    native: bool = False


@dataclass(frozen=True)
class InputClip:
    """An input as the model sees it.

    Attributes:
        views: float32 ``[B, C, T, H, W]``, the model's own first; B is 1, or a video's frames for
            an image model.
        mask_input: what a mask is drawn for.
        fps: of the frames that were read.
        notes: what a user should know.
    """

    views: list[Tensor]
    mask_input: MaskInput
    fps: float
    notes: tuple[str, ...]


def native_size(
    source: Source, model: MaskedAutoencoder, *, attention: bool = False
) -> tuple[int, int]:
    """Return the height and width of a source, cut to whole patches (or whole maskable units).

    Args:
        source: the input.
        model: that sees it.
        attention: whether its attention is kept and shown.

    Raises:
        DataError: there is less than one, or more tokens than memory is likely to hold.
    """
    _, high, wide = model.backbone.patch
    _, rows, columns = model.backbone.mask_unit
    down, across = high * rows, wide * columns
    height, width = source.info.height // down * down, source.info.width // across * across
    size = f"{source.info.height}x{source.info.width}"
    if height * width == 0:
        what = f"{size} pixels are less than one patch of {down}x{across}"
        raise DataError(what, where=source.info.id, hint="leave --native out")
    tokens = model.grid.t * (height // high) * (width // wide)
    passes = num_passes(source, model)
    most = min(MOST_ATTENDED if attention else MOST_TOKENS, MOST_TOGETHER // passes)
    if tokens > most:
        options = "--native or --attention" if attention else "--native"
        frames = f" in each of {passes} frames" if passes > 1 else ""
        what = f"{size} pixels make {tokens:,} tokens{frames}, more than {most:,}"
        raise DataError(what, where=source.info.id, hint=f"leave {options} out, or make it smaller")
    return height, width


def num_passes(source: Source, model: MaskedAutoencoder) -> int:
    """Count the passes over a source: an image model is given a video's frames one by one."""
    return 1 if model.clip[0] > 1 else min(FRAMES, source.info.frames)


def read_clip(
    source: Source, number: int, model: MaskedAutoencoder, channels: int, options: ClipOptions
) -> InputClip:
    """Read an input as a model sees it: upright, resized and cut at the center, or only cut.

    Raises:
        DataError: the file is bad, or has channels that do not become the model's.
    """
    if not convertible(source.info.channels, channels):
        have = f"{source.info.channels} channel{'s' if source.info.channels > 1 else ''}"
        hint = "use weights that were trained on such files"
        raise DataError(f"has {have}, the model {channels}", where=source.info.id, hint=hint)
    frames, height, width = model.clip
    passes = num_passes(source, model)
    single = passes > 1  # a video for an image model
    more = () if model.target is None or single else tuple(model.target.views)
    spec = DataSpec(
        name="inputs",
        frames=passes if single else frames,
        stride=1 if single else options.stride,
        sampling="segments" if single else options.sampling,
        rate=None if single else options.rate,
    )
    opened = _cut(source, height, width) if options.native else source
    reader = SampleReader(
        _Opened(opened),
        spec=spec,
        augment=NoAugment(name="none", interpolation=options.interpolation),
        views=(View("clip", (height, width)), *more),
        channels=channels,
        seed=0,
        purpose="reconstruct",
        held_out=True,
        rendering=options.rendering,
    )
    sample = reader.read(_KEY)
    if sample.bad is not None:
        raise DataError(sample.bad.reason, where=source.info.id)
    # [1, C, T, H, W]; the frames of a video for an image model become the batch.
    views = [torch.from_numpy(to_float01(view)).to(model.device) for view in sample.views]
    if single:
        views = [views[0].transpose(0, 2)]
    crop = sample.views[0][0, :, :1] if single else sample.views[0][0]
    box = reader.plans(source, _KEY)[0].box
    if options.native:
        box = Box(*_center(source, height, width), height, width)
    info = source.info
    seen = crop.transpose(1, 2, 3, 0)
    mask_input = MaskInput(info.id, number, seen, box, (info.height, info.width))
    fps = (info.fps or _DEFAULT_FPS) / max(mean_step(info.frames, spec, info.fps), 1)
    notes = _notes(info, spec, model.clip, PADDED in sample.left_out, native=options.native)
    return InputClip(views, mask_input, fps, notes)


def _notes(
    info: SourceInfo, spec: DataSpec, clip: tuple[int, int, int], padded: bool, *, native: bool
) -> tuple[str, ...]:
    """Say what of an input is cut off or repeated."""
    notes = []
    _, height, width = clip
    if native and (height, width) != (info.height, info.width):
        size = f"{info.height}x{info.width}"
        notes.append(f"{info.id}: {size} pixels are cut to whole patches, {height}x{width}")
    if padded and info.frames > 1:
        wanted = f"{spec.frames}" + (f" at stride {spec.stride}" if spec.stride > 1 else "")
        how = "some are shown twice" if spec.sampling in SEGMENTS else "padded by the last one"
        notes.append(f"{info.id}: {info.frames} frames, too few for a clip of {wanted}: {how}")
    return tuple(notes)


def _center(source: Source, height: int, width: int) -> tuple[int, int]:
    return (source.info.height - height) // 2, (source.info.width - width) // 2


@dataclass
class _Opened(Dataset):
    """One source that is already open, as a dataset."""

    source: Source

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:  # noqa: ARG002 - there is one
        return self.source.info.id

    def open(self, index: int) -> Source:  # noqa: ARG002
        return self.source


def _cut(source: Source, height: int, width: int) -> Source:
    """Cut out the center of a source, whole pixels."""
    top, left = _center(source, height, width)

    def read(frame_ids: Sequence[int]) -> np.ndarray:
        return source.read(frame_ids)[:, top : top + height, left : left + width]

    return Source(source.info._replace(height=height, width=width, crops=False), read)
