"""``reconstruct``: from a file to pictures of what a model makes of it, and to scores.

A picture that does not lie: the prediction is painted with what can be known from visible patches.
The one that is painted with the hidden patches' own mean and variance stands beside it, labeled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from maekit.engine.build import load_model
from maekit.tokens import patchify
from maekit.visualize import attention as looks
from maekit.visualize.hiding import Hiding, Masks
from maekit.visualize.inputs import Inputs
from maekit.visualize.painting import (
    COLUMNS,
    LEAKING,
    painter_of,
    picture,
    shown_range,
    stages,
)
from maekit.visualize.panel import masked, over_pixels
from maekit.visualize.passes import Painted, frames_of, paint_passes, score
from maekit.visualize.reading import Clips, native_size, take
from maekit.visualize.scores import Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from maekit.contracts import Source
    from maekit.model import MaskedAutoencoder
    from maekit.visualize.inputs import Input
    from maekit.weights.header import Header

WHOLE = ("original", "masked in the first pass", "prediction of every patch")
_KEPT_MODELS = 4  # of different native sizes


@dataclass(frozen=True)
class Row:
    """One mask's pictures, a stage a column, each ``[F, H, W, C]``, and their scores."""

    label: str
    stages: Sequence[np.ndarray]
    scores: Scores


@dataclass(frozen=True)
class Outcome:
    """All that was made of one input."""

    moving: bool  # it is a video
    fps: float  # of the frames shown
    captions: Sequence[str]
    rows: Sequence[Row]
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
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
        painter_of(model)
        self.model = model.to(self.device)
        self._resized: OrderedDict[tuple[int, int, int], MaskedAutoencoder] = OrderedDict()

    def at(self, clip: tuple[int, int, int]) -> MaskedAutoencoder:
        """The model for clips of ``(T, H, W)`` pixels; the last few sizes are kept."""
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
    """Turns inputs into pictures and scores.

    An image is shown to a model of clips as a clip that stands still. Of a video an image model
    sees up to ``reading.FRAMES`` frames, evenly spaced, one by one, all with the same mask.

    Args:
        models: what predicts.
        inputs: what may be asked for.
        masks: what is hidden.
        clips: how videos are read.
        attention: add where the encoder looks.
        caption: what every row says of the weights; may be empty.
    """

    def __init__(
        self,
        models: Models,
        inputs: Sequence[Input],
        masks: Masks,
        clips: Clips,
        *,
        attention: bool = False,
        caption: str = "",
    ) -> None:
        self.models = models
        # Two and four channels are gray and color with transparency.
        self.inputs = Inputs(inputs, "keep" if models.header.channels in (2, 4) else "drop")
        self.masks = masks
        self.clips = clips
        self.attention = attention
        self.caption = caption

    def __call__(self, number: int) -> Outcome:
        """Reconstruct input ``number``.

        Raises:
            DataError, OSError: the file is bad, or cannot be shown at this size.
        """
        source = self.inputs.open(number)
        model = self._model_for(source)
        taken = take(source, number, model, self.models.header.channels, self.clips)
        hidings = self.masks.draw(taken.subject, model.grid, model.backbone.mask_unit)
        attended = _attended(model, taken.views[0]) if self.attention else []
        painted = [paint_passes(model, taken.views, hiding) for hiding in hidings]
        leaks = any(each.leaking is not None for each in painted)
        rows = [
            self._row(model, hiding, each, attended, leaks=leaks)
            for hiding, each in zip(hidings, painted, strict=True)
        ]
        captions = [
            *(WHOLE if any(len(hiding.passes) > 1 for hiding in hidings) else COLUMNS),
            *([LEAKING] if leaks else []),
            *(looks.CAPTIONS if self.attention else ()),
        ]
        moves = source.info.fps is not None or source.info.frames > 1
        return Outcome(moves, taken.fps, captions, rows, taken.notes)

    def _model_for(self, source: Source) -> MaskedAutoencoder:
        own = self.models.model
        if not self.clips.native:
            return own
        return self.models.at((own.clip[0], *native_size(source, own, attention=self.attention)))

    def _row(
        self,
        model: MaskedAutoencoder,
        hiding: Hiding,
        painted: Painted,
        attended: list[np.ndarray],
        *,
        leaks: bool,
    ) -> Row:
        patch, original = model.backbone.patch, painted.original
        clips = len(original) // model.clip[0]
        hidden, asked = (
            np.concatenate([_grid(model, each)] * clips)
            for each in (hiding.passes[0].hidden, painted.asked)
        )
        scores = score(painted, over_pixels(asked, patch, original))
        pictures = [painted.honest]
        if leaks:
            pictures.append(painted.honest if painted.leaking is None else painted.leaking)
        if len(hiding.passes) > 1:
            shown = [original, masked(original, hidden, patch), *pictures]
        else:
            shown = stages(original, pictures, hidden, asked, patch)
        # Adding zero turns a rounded -0.0 into 0.0.
        gain = round(scores.gain_db, 1) + 0.0
        reached = f"PSNR {scores.prediction.psnr:.1f} dB, {gain:+.1f} dB over the best fill"
        label = f"{hiding.label}: {reached}"
        if self.caption:
            label = f"{self.caption} · {label}"
        return Row(label, [*shown, *attended], scores)


def _attended(model: MaskedAutoencoder, pixels: Tensor) -> list[np.ndarray]:
    """Rollout and last layer over the original, each ``[F, H, W, 3]``."""
    originals = frames_of(picture(model, patchify(pixels, model.backbone.patch)))
    low, high = shown_range(model, originals)
    originals = (originals - low) / (high - low)
    return [
        looks.overlay(originals, _grid(model, each.cpu().numpy()), model.backbone.patch[0])
        for each in looks.attention_maps(model, pixels)
    ]


def _grid(model: MaskedAutoencoder, tokens: np.ndarray) -> np.ndarray:
    """``[N]``, or ``[B, N]`` one after the other, to ``[t, h, w]``."""
    return tokens.reshape(-1, *model.grid[1:])
