"""What the training of a detector makes and reads: model, boxes, the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maekit.data.boxes import EMPTY, BoxDraw
from maekit.engine.loop import Weighed
from maekit.engine.step import send, to_device_float01
from maekit.errors import PartError
from maekit.evaluate.detection.detector import Detector
from maekit.evaluate.detection.task import targets
from maekit.evaluate.features import required_norm
from maekit.evaluate.supervision import fresh_head, set_trained
from maekit.weights.header import ClassifierHeader, RoI

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.contracts import Boxes
    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.evaluate.augment import RandomErase
    from maekit.evaluate.detection.task import DetectionTask
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.detection import BoxPooling
    from maekit.recipe.finetune import Finetune
    from maekit.weights.header import Header

WHOLE = np.array([0.0, 0.0, 1.0, 1.0])


def make_detector(
    encoder: MaskedAutoencoder, header: Header, options: Finetune, task: DetectionTask, seed: int
) -> tuple[Detector, Header]:
    """Put a fresh head on an encoder and freeze as the recipe says; return it with its header.

    With ``norm: fresh`` the encoder's last norm begins anew.
    """
    boxes, head = options.boxes, options.head
    roi = RoI(bins=boxes.bins, aligned=boxes.aligned, inclusive=boxes.inclusive)
    inside = boxes.dropout == "bins"
    own = options.model_copy(
        update={"head": head.model_copy(update={"dropout": 0.0 if inside else head.dropout})}
    )
    linear = fresh_head(encoder, own, len(task.outputs), seed)
    model = Detector.of(encoder, linear, roi, bins_dropout=head.dropout if inside else 0.0)
    if options.norm == "fresh":
        norm = required_norm(model.backbone)
        if not isinstance(norm, nn.LayerNorm):
            msg = f"the encoder's last norm is a {type(norm).__name__}, which cannot begin anew"
            raise PartError(msg, where="finetune.norm", hint="take norm: pretrained")
        norm.reset_parameters()
    described = ClassifierHeader(
        kind="detection", outputs=task.outputs, pool="mean", norm="pretrained", roi=roi
    )
    return model, set_trained(model, header, options, described)


def box_draw(options: BoxPooling) -> BoxDraw:
    """Return how boxes are drawn while training."""
    return BoxDraw(None if options.jitter is None else options.jitter.ranges, options.most)


def regions(boxes: Sequence[Boxes], region: Literal["box", "frame"]) -> list[np.ndarray]:
    """Return the corners that are pooled for each clip's boxes."""
    if region == "box":
        return [each.corners for each in boxes]
    return [np.tile(WHOLE, (len(each), 1)) for each in boxes]


class DetectionStep:
    """Normalize, encode, pool the boxes, compare.

    Args:
        model: the detector.
        options: how boxes are learned.
        precision: of the forward pass.
        per_device: clips of a micro-batch.
        smoothing: of the targets, toward 1/2.
        erase: boxes of noise in pixels.
        compiled: whether the model is compiled.
    """

    def __init__(
        self,
        model: Detector,
        options: BoxPooling,
        precision: Precision,
        *,
        per_device: int,
        smoothing: float = 0.0,
        erase: RandomErase | None = None,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.options = options
        self.precision = precision
        self.per_device = per_device
        self.smoothing = smoothing
        self.erase = erase
        # The bound method is compiled, not the module: saved keys stay as they are.
        self._logits: Callable[[Tensor, Tensor], Tensor] = (
            torch.compile(model.forward) if compiled else model.forward
        )

    def weigh(self, batch: Batch) -> Weighed:
        """Weigh a micro-batch: by its boxes, or officially a full one by 1.

        The official loss is summed over the boxes of a device and averaged over devices: what is
        one update of N micro-batches here has the gradient of one on N devices there.
        """
        if self.options.loss == "mean":
            return Weighed(batch, float(sum(map(len, self._boxes(batch)))))
        return Weighed(batch, float(batch.weight.sum()) / self.per_device)

    def loss(self, weighed: Weighed) -> Tensor:
        """Sum over boxes the mean over actions of the binary cross-entropy."""
        batch, device = weighed.batch, self.model.device
        boxes = self._boxes(batch)
        pixels = self.model.normalize(to_device_float01(batch.views[0], device))
        if self.erase is not None:
            pixels = self.erase(pixels, batch.keys)
        height, width = pixels.shape[-2:]
        corners = regions(boxes, self.options.region)
        cells = send(self.model.cells(corners, (height, width)), device)
        with self.precision.autocast():
            logits = self._logits(pixels, cells)
        wanted = send(torch.from_numpy(targets(boxes, logits.shape[1])), device)
        wanted = wanted * (1 - self.smoothing) + self.smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        return each.mean(dim=1).sum()

    def _boxes(self, batch: Batch) -> Sequence[Boxes]:
        """Return the boxes of each row that are learned from."""
        found = batch.boxes or (EMPTY,) * len(batch.weight)
        if self.options.negatives:
            return found
        return [each.only([bool(actions) for actions in each.labels]) for each in found]


def effect_of_loss(options: BoxPooling, boxes: float, per_device: int) -> str:
    """Say what the reduction does to the size of gradients and to the rate.

    Args:
        options: how boxes are learned.
        boxes: of a clip, on average.
        per_device: clips of a micro-batch.
    """
    if options.loss == "mean":
        return "loss: the mean over all boxes of an update (not as officially, the sum a device)"
    return (
        f"loss: the sum over a micro-batch's boxes, as officially: {boxes:.2g} a clip and about "
        f"{boxes * per_device:.3g} at once, so gradients are that many times those of a mean over "
        "boxes (boxes.loss: mean); AdamW's rate is not changed by it, clip_grad is; a clip of n "
        "persons counts n times"
    )
