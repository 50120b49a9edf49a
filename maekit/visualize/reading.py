"""How an input becomes what a model sees: its frames, its size, its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from maekit.contracts import Dataset, Source, View
from maekit.data.clips import mean_step
from maekit.data.order import Key
from maekit.data.pixels import convertible, to_unit
from maekit.data.plan import Box
from maekit.data.reader import SampleReader
from maekit.errors import DataError
from maekit.recipe.augment import NoAugment
from maekit.recipe.schema import DataSpec, Sampling
from maekit.visualize.hiding import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder

FRAMES = 16  # of a video, at most, that an image model looks at, one by one
# Of a native size: what one look takes grows with the square of its tokens, most of all where the
# attention of all layers is kept; all looks at a video's frames are shown together.
MOST_TOKENS, MOST_ATTENDED, MOST_TOGETHER = 16_384, 2048, 65_536
_DEFAULT_FPS = 10.0  # of videos that do not say
_KEY = Key(0, 0)


@dataclass(frozen=True)
class Clips:
    """How clips are read: as the run of the weights read its own, where that is known."""

    stride: int = 1
    sampling: Sampling = "dense"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    float_ok: bool = True
    native: bool = False


@dataclass(frozen=True)
class Taken:
    """What was read of an input.

    Attributes:
        views: float32 ``[B, C, T, H, W]``, the model's own first; B is 1, or a video's frames for
            an image model.
        subject: what a mask is drawn for.
        fps: of the frames taken.
        notes: what a user should know.
    """

    views: list[Tensor]
    subject: Subject
    fps: float
    notes: tuple[str, ...]


def native_size(
    source: Source, model: MaskedAutoencoder, *, attention: bool = False
) -> tuple[int, int]:
    """Height and width of a source, cut to whole patches (or whole maskable units).

    Args:
        attention: whether it is kept and shown.

    Raises:
        DataError: less than one, or more tokens than memory is likely to hold.
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
    looks = looks_at(source, model)
    most = min(MOST_ATTENDED if attention else MOST_TOKENS, MOST_TOGETHER // looks)
    if tokens > most:
        options = "--native or --attention" if attention else "--native"
        frames = f" in each of {looks} frames" if looks > 1 else ""
        what = f"{size} pixels make {tokens:,} tokens{frames}, more than {most:,}"
        raise DataError(what, where=source.info.id, hint=f"leave {options} out, or make it smaller")
    return height, width


def looks_at(source: Source, model: MaskedAutoencoder) -> int:
    """How often a model looks at a source: an image model looks at a video's frames one by one."""
    return 1 if model.clip[0] > 1 else min(FRAMES, source.info.frames)


def take(
    source: Source, number: int, model: MaskedAutoencoder, channels: int, clips: Clips
) -> Taken:
    """Read what a model sees of an input: upright, resized and cut at the center, or only cut.

    Raises:
        DataError: the file is bad, or has channels that do not become the model's.
    """
    if not convertible(source.info.channels, channels):
        have = f"{source.info.channels} channel{'s' if source.info.channels > 1 else ''}"
        hint = "use weights that were trained on such files"
        raise DataError(f"has {have}, the model {channels}", where=source.info.id, hint=hint)
    frames, height, width = model.clip
    looks = looks_at(source, model)
    single = looks > 1  # a video for an image model
    more = () if model.target is None or single else tuple(model.target.views)
    spec = DataSpec(
        name="inputs",
        frames=looks if single else frames,
        stride=1 if single else clips.stride,
        sampling="segments" if single else clips.sampling,
    )
    opened = _cut(source, height, width) if clips.native else source
    reader = SampleReader(
        _Opened(opened),
        spec=spec,
        augment=NoAugment(name="none", interpolation=clips.interpolation),
        views=(View("clip", (height, width)), *more),
        channels=channels,
        seed=0,
        purpose="reconstruct",
        held_out=True,
        float_ok=clips.float_ok,
    )
    sample = reader.read(_KEY)
    if sample.bad is not None:
        raise DataError(sample.bad.reason, where=source.info.id)
    # [1, C, T, H, W]; the frames of a video for an image model become the batch.
    views = [torch.from_numpy(to_unit(view)).to(model.device) for view in sample.views]
    if single:
        views = [views[0].transpose(0, 2)]
    crop = sample.views[0][0, :, :1] if single else sample.views[0][0]
    box = reader.plans(source, _KEY)[0].box
    if clips.native:
        box = Box(*_center(source, height, width), height, width)
    info = source.info
    subject = Subject(
        source.info.id,
        number,
        crop.transpose(1, 2, 3, 0),
        box,
        (source.info.height, source.info.width),
    )
    fps = (info.fps or _DEFAULT_FPS) / max(mean_step(info.frames, spec), 1)
    return Taken(views, subject, fps, _notes(source, spec, height, width, clips, sample.padded))


def _notes(
    source: Source, spec: DataSpec, height: int, width: int, clips: Clips, padded: bool
) -> tuple[str, ...]:
    notes = []
    if clips.native and (height, width) != (source.info.height, source.info.width):
        size = f"{source.info.height}x{source.info.width}"
        notes.append(f"{source.info.id}: {size} pixels are cut to whole patches, {height}x{width}")
    info = source.info
    if padded and info.frames > 1:
        clip = f"{spec.frames}" + (f" at stride {spec.stride}" if spec.stride > 1 else "")
        how = "some are shown twice" if spec.sampling == "segments" else "padded by the last one"
        notes.append(
            f"{source.info.id}: {source.info.frames} frames, too few for a clip of {clip}: {how}"
        )
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
