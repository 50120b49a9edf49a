"""Reconstruct files: pictures of what a model makes of them, and scores.

The prediction is painted with what can be known from visible patches. The picture that is painted
with the hidden patches' own mean and variance, which a model cannot know, is labeled so.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maekit.engine.build import load_model
from maekit.visualize.attention import COLUMNS as ATTENTION_COLUMNS
from maekit.visualize.attention import attention_maps, overlay
from maekit.visualize.clips import ClipOptions, native_size, read_clip
from maekit.visualize.painting import COLUMNS, ORACLE_COLUMN, paint_row
from maekit.visualize.prediction import required_pixel_target
from maekit.visualize.scores import Scores, score

if TYPE_CHECKING:
    import numpy as np
    import torch

    from maekit.contracts import Dataset, Source
    from maekit.model import MaskedAutoencoder
    from maekit.visualize.masks import MaskRow, MaskSource
    from maekit.weights.header import Header

WHOLE_COLUMNS = ("original", "masked in the first pass", "prediction of every patch")
_KEPT_MODELS = 4  # of different native sizes
_LARGE = (
    4  # times the area that a model was trained on: from there on it has never seen such detail
)


@dataclass(frozen=True)
class Row:
    """One mask's pictures, a stage a column, each ``[F, H, W, C]``, and their scores."""

    label: str
    stages: Sequence[np.ndarray]
    scores: Scores


@dataclass(frozen=True)
class Outcome:
    """All that was made of one input; its title names it and the weights."""

    title: str
    moving: bool  # whether it is a video
    fps: float  # of the frames shown
    captions: Sequence[str]
    rows: Sequence[Row]
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """The number of frames shown."""
        return len(self.rows[0].stages[0])


@dataclass
class Models:
    """A model at its own size, and on request at others, with resized positions."""

    source: str
    device: torch.device
    model: MaskedAutoencoder = field(init=False)
    header: Header = field(init=False)

    def __post_init__(self) -> None:
        model, self.header = load_model(self.source)
        required_pixel_target(model)
        self.model = model.to(self.device)
        self._resized: OrderedDict[tuple[int, int, int], MaskedAutoencoder] = OrderedDict()

    def at(self, clip: tuple[int, int, int]) -> MaskedAutoencoder:
        """Return the model for clips of ``(T, H, W)`` pixels; the last few sizes are kept."""
        if clip == self.header.clip:
            return self.model
        if clip not in self._resized:
            model, _ = load_model(self.source, clip=clip)
            self._resized[clip] = model.to(self.device)
            while len(self._resized) > _KEPT_MODELS:
                self._resized.popitem(last=False)
        self._resized.move_to_end(clip)
        return self._resized[clip]


class Reconstructor:
    """Turn inputs into pictures and scores.

    An image is shown to a model of clips as a clip that stands still. Of a video an image model
    sees up to ``clips.FRAMES`` frames, evenly spaced, one by one, all with the same mask.

    Args:
        models: what predicts.
        inputs: what to reconstruct, by its number.
        masks: what is hidden.
        options: how videos are read.
        attention: add where the encoder looks.
        weights: what pictures say of them.
    """

    def __init__(
        self,
        models: Models,
        inputs: Dataset,
        masks: MaskSource,
        options: ClipOptions,
        *,
        attention: bool = False,
        weights: str = "",
    ) -> None:
        self.models = models
        self.inputs = inputs
        self.masks = masks
        self.options = options
        self.attention = attention
        self.weights = weights

    def __call__(self, number: int) -> Outcome:
        """Reconstruct input ``number``.

        Raises:
            DataError, OSError: the file is bad, or cannot be shown at this size.
        """
        source = self.inputs.open(number)
        model = self._model_for(source)
        clip = read_clip(source, number, model, self.models.header.channels, self.options)
        mask_rows = self.masks.draw(clip.mask_input, model.grid, model.backbone.mask_unit)
        maps = attention_maps(model, clip.views[0]) if self.attention else ()
        painted = [paint_row(model, clip.views, row) for row in mask_rows]
        attention = [
            overlay(
                painted[0].original,
                each.cpu().numpy().reshape(-1, *model.grid[1:]),
                model.backbone.patch[0],
            )
            for each in maps
        ]
        oracle = any(each.oracle_stats is not None for each in painted)
        whole = any(len(row.passes) > 1 for row in mask_rows)
        rows = []
        for row, each in zip(mask_rows, painted, strict=True):
            stages = each.whole_stages if len(row.passes) > 1 else each.stages
            scores = score(each)
            columns = [*stages(oracle=oracle), *attention]
            rows.append(Row(self._label(row, scores), columns, scores))
        captions = [
            *(WHOLE_COLUMNS if whole else COLUMNS),
            *([ORACLE_COLUMN] if oracle else []),
            *(ATTENTION_COLUMNS if self.attention else ()),
        ]
        moving = source.info.fps is not None or source.info.frames > 1
        name = source.info.id.rpartition("/")[2]
        title = f"{name} · {self.weights}" if self.weights else name
        notes = (*clip.notes, *self._size_note(model, source))
        return Outcome(title, moving, clip.fps, captions, rows, notes)

    def _model_for(self, source: Source) -> MaskedAutoencoder:
        own = self.models.model
        if not self.options.native:
            return own
        return self.models.at((own.clip[0], *native_size(source, own, attention=self.attention)))

    def _size_note(self, model: MaskedAutoencoder, source: Source) -> Iterator[str]:
        trained = self.models.header.clip
        area = math.prod(model.clip[1:]) / math.prod(trained[1:])
        if area >= _LARGE:
            size = "x".join(map(str, model.clip[1:]))
            own = "x".join(map(str, trained[1:]))
            yield (
                f"{source.info.id}: {size} pixels are {area:.0f} times the {own} that these "
                "weights were trained on: expect blur (without --native it is resized)"
            )

    def _label(self, row: MaskRow, scores: Scores) -> str:
        # Adding zero turns a rounded -0.0 into 0.0.
        gain = round(scores.gain_db, 1) + 0.0
        reached = f"PSNR {scores.prediction.psnr:.1f} dB, {gain:+.1f} dB over the best fill"
        return f"{row.label}: {reached}"
