"""A detector of actions that was trained: loaded, and how its run read and judged key frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from maekit.engine.events import Note
from maekit.engine.precision import Precision
from maekit.evaluate.detection.detector import detector_header, load_detector
from maekit.evaluate.detection.found import Boxer, KeyFrames, Whole
from maekit.evaluate.way import Request, way_of
from maekit.recipe.detection import BoxPooling
from maekit.weights.importer import open_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from maekit.contracts import Boxes, Dataset
    from maekit.engine.events import Emit
    from maekit.evaluate.detection.detector import Detector
    from maekit.evaluate.way import Way
    from maekit.recipe.schema import Data, DataSpec
    from maekit.weights.importer import Weights


class Trained(NamedTuple):
    """A detector on its device, and the recipe that it is used by.

    Attributes:
        model: in evaluation mode.
        actions: the names of its outputs.
        boxes: how boxes are pooled, and scored.
        data: of the recipe.
        spec: how clips are taken: around a moment.
        precision: of the forward pass.
    """

    model: Detector
    actions: tuple[str, ...]
    boxes: BoxPooling
    data: Data
    spec: DataSpec
    precision: Precision

    @classmethod
    def of(cls, way: Way, weights: Weights, device: torch.device) -> Self:
        """Load a detector that is used as a way says.

        Raises:
            WeightsError: the weights hold no detector.
            RecipeError: the recipe names a number format that the device does not have.
        """
        described, _ = detector_header(weights)
        model, header = load_detector(weights)
        finetune, spec = way.recipe.finetune, way.recipe.data.val
        assert spec is not None  # noqa: S101 - way_of saw to it
        if spec.sampling != "centered":
            spec = spec.model_copy(update={"sampling": "centered", "frames": header.clip[0]})
        boxes = BoxPooling() if finetune is None else finetune.boxes
        name = "fp32" if finetune is None else finetune.precision
        precision = Precision.of(name, device, where="finetune.precision")
        data = way.recipe.data
        return cls(model.to(device), described.outputs, boxes, data, spec, precision)

    def frames(self, dataset: Dataset, labels: Sequence[Boxes], emit: Emit) -> KeyFrames:
        """Return key frames as they are shown it, and say what of them is not as asked for."""
        whole = Whole.of(self.model, self.boxes)
        if whole.said is not None:
            emit(Note(whole.said))
        return KeyFrames(dataset, labels, whole, self.data, self.spec)

    def boxer(self, frames: KeyFrames) -> Boxer:
        """Return what scores the boxes of key frames."""
        return Boxer(self.model, self.boxes, self.precision, frames.whole)

    @property
    def settings(self) -> dict[str, Any]:
        """How key frames are read and boxes pooled, as result.json holds it."""
        spec, boxes = self.spec, self.boxes
        return {
            "clip": [spec.frames, *self.data.height_width],
            "sampling": spec.sampling,
            "stride": spec.stride,
            "rate": spec.rate,
            "first": spec.first,
            "short": boxes.short,
            "pad": boxes.pad,
            "region": boxes.region,
            "widen": list(boxes.widen),
            "precision": self.precision.name,
        }


def trained(source: str, recipe: str | None, device: torch.device, emit: Emit) -> Trained:
    """Open a detector for films that nobody labeled, and read them as its run read data.val.

    Args:
        source: the weights.
        recipe: whose data and boxes count; None: those of the weights' run, else defaults.
        device: where it runs.
        emit: called with notes.

    Raises:
        WeightsError: the weights hold no detector.
        RecipeError: the recipe is wrong.
    """
    weights = open_weights(source)
    described, _ = detector_header(weights)
    way = way_of(Request(source, recipe, data="."), weights, described, emit)
    return Trained.of(way, weights, device)
