"""A detector of actions: an encoder, its tokens averaged over time, pooled in each box, a head.

B clips, C channels, T frames, H x W pixels; t x h x w their grid of tokens; D the encoder's width;
P boxes of all clips together; K actions. As VideoMAE-Action-Detection's modeling_finetune.py
(MCG-NJU/VideoMAE-Action-Detection 15615db).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maekit.engine.build import load_model, without_head
from maekit.errors import WeightsError
from maekit.evaluate.classifier import Headed, make_head, put_head
from maekit.layers import Statistics
from maekit.tokens import Mask, require_clips
from maekit.weights.header import RoI
from maekit.weights.importer import UserHints, Weights, open_weights

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.contracts import Backbone
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import ClassifierHeader, Header


class Detector(Headed):
    """Encodes whole clips, of any height and width, and predicts the actions in their boxes.

    The encoder's last norm stands over each token, before they are averaged.

    Args:
        backbone: the encoder.
        head: features ``[P, D]`` to logits.
        roi: how tokens are pooled in a box.
        clip: frames, height and width in pixels of the clips that it was built for.
        statistics: of pixels in [0, 1].
        bins_dropout: of each bin of a box, before the largest is taken (mmaction2).

    Raises:
        PartError: the encoder has no norm of its own.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        roi: RoI,
        *,
        clip: tuple[int, int, int],
        statistics: Statistics,
        bins_dropout: float = 0.0,
    ) -> None:
        super().__init__(backbone, head, norm="pretrained", clip=clip, statistics=statistics)
        self.roi = roi
        self.bins_dropout = nn.Dropout(bins_dropout)

    @classmethod
    def of(
        cls,
        model: MaskedAutoencoder,
        head: nn.Module,
        roi: RoI,
        *,
        bins_dropout: float = 0.0,
    ) -> Self:
        """Build a detector on the encoder of a masked autoencoder, which it shares."""
        return cls(
            model.backbone,
            head,
            roi,
            clip=model.clip,
            statistics=model.statistics,
            bins_dropout=bins_dropout,
        )

    def forward(self, pixels: Tensor, cells: Tensor) -> Tensor:
        """Compute logits ``[P, K]`` of normalized pixels ``[B, C, T, H, W]``.

        Args:
            pixels: of the clips.
            cells: ``[P, 5]``: a box's clip, and its corners in cells of the grid (see ``cells``).
        """
        bins = pooled(self.plane(pixels), cells, self.roi)
        features = self.bins_dropout(bins).amax(dim=(2, 3))
        logits: Tensor = self.head(features)
        return logits

    def plane(self, pixels: Tensor) -> Tensor:
        """Compute what boxes are pooled from, ``[B, D, h, w]``: tokens averaged over time."""
        frames, height, width = require_clips(pixels).shape[2:]
        grid = self.backbone.grid((frames, height, width))
        mask = Mask.nothing_hidden(len(pixels), grid.tokens, pixels.device)
        tokens = self.backbone(pixels, mask).tokens
        patches: Tensor = tokens[:, self.backbone.prefix_tokens :]
        plane: Tensor = patches.unflatten(1, grid).mean(dim=1)
        return plane.permute(0, 3, 1, 2)

    def cells(self, corners: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
        """Put the boxes of a batch into one tensor ``[P, 5]``, as ``forward`` takes them.

        Args:
            corners: of each clip, ``[P_b, 4]`` as fractions of its picture.
            size: height and width of the picture in pixels, without what is padded.
        """
        return box_cells(corners, size, self.backbone.patch[1:], inclusive=self.roi.inclusive)


def load_detector(
    source: str | Path | Weights,
    classes: Sequence[str] | None = None,
    clip: tuple[int, int, int] | None = None,
) -> tuple[Detector, Header]:
    """Load a detector in evaluation mode on the CPU, with what its header says of it.

    Args:
        source: a run of ``maekit finetune`` with ``head.kind: detection``, or a file of it or of
            VideoMAE-Action-Detection; or opened weights.
        classes: names of the actions, where the file has none.
        clip: frames, height and width in pixels, where not its own; others are taken all the same.

    Raises:
        WeightsError: the file has no detector's head, or does not match its own header.
    """
    hints = UserHints(classes=None if classes is None else tuple(classes))
    weights = source if isinstance(source, Weights) else open_weights(source, user_hints=hints)
    described, roi = detector_header(weights)
    model, header = load_model(without_head(weights), clip)
    head = make_head(model.backbone.width, len(described.outputs))
    detector = Detector.of(model, head, roi)
    put_head(detector, weights)
    return detector.eval(), header.model_copy(update={"classifier": described})


def detector_header(weights: Weights) -> tuple[ClassifierHeader, RoI]:
    """Return what weights say of their detector, and how it pools boxes.

    Raises:
        WeightsError: they hold none.
    """
    described = weights.header.classifier
    if described is not None and described.roi is not None:
        return described, described.roi
    what = "a classifier of whole clips" if described is not None else "no head"
    msg = f"these weights hold {what}, and no detector"
    hint = "`maekit finetune` with finetune.head.kind=detection trains one"
    raise WeightsError(msg, where=weights.origin, hint=hint)


def pooled(plane: Tensor, cells: Tensor, roi: RoI) -> Tensor:
    """Pool a plane ``[B, D, h, w]`` in boxes ``[P, 5]`` of its cells: ``[P, D, bins, bins]``.

    torchvision's RoIAlign, with as many samples in a bin as it covers cells. In float32: bfloat16
    is not implemented on CPUs, and feature and boxes must share a type.
    """
    from torchvision.ops import roi_align

    dtype = torch.promote_types(plane.dtype, torch.float32)
    made: Tensor = roi_align(
        plane.to(dtype),
        cells.to(plane.device, dtype),
        (roi.bins, roi.bins),
        sampling_ratio=0,
        aligned=roi.aligned,
    )
    return made


def box_cells(
    corners: Sequence[np.ndarray],
    size: tuple[int, int],
    patch: tuple[int, int],
    *,
    inclusive: bool,
) -> Tensor:
    """Turn fractions into cells of the grid, float32 ``[P, 5]`` with each box's clip before it.

    Args:
        corners: of each clip, ``[P_b, 4]`` as fractions of its picture.
        size: of the picture, in pixels: height, width.
        patch: of a cell, in pixels: height, width.
        inclusive: whether a box ends at its last pixel, and not behind it (AlphAction, whose boxes
            are one pixel narrower).
    """
    clips = np.repeat(np.arange(len(corners)), [len(each) for each in corners])
    boxes = np.concatenate([np.zeros((0, 4)), *corners]) * np.tile(np.array(size[::-1]), 2)
    if inclusive:
        boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, boxes[:, :2])
    boxes /= np.tile(np.array(patch[::-1]), 2)
    return torch.from_numpy(np.concatenate([clips[:, None], boxes], axis=1)).float()


def padded(pixels: Tensor, patch: tuple[int, int], size: tuple[int, int] = (0, 0)) -> Tensor:
    """Pad normalized pixels with zeros on the right and below, as the official test does.

    Args:
        pixels: ``[B, C, T, H, W]``.
        patch: height and width are made multiples of it.
        size: what they are at least: those of the largest clip of a batch.
    """
    sides = [
        -(-max(own, wanted) // step) * step
        for own, wanted, step in zip(pixels.shape[-2:], size, patch, strict=True)
    ]
    more = [side - own for side, own in zip(sides, pixels.shape[-2:], strict=True)]
    return F.pad(pixels, (0, more[1], 0, more[0]))
