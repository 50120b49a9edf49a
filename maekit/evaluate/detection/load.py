"""A detector of actions that was trained: loaded, and how its run read and judged key frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from maekit.engine.precision import Precision
from maekit.evaluate.detection.detector import load_detector
from maekit.evaluate.way import Request, way_of
from maekit.recipe.detection import BoxPooling
from maekit.weights.importer import open_weights

if TYPE_CHECKING:
    import torch

    from maekit.engine.events import Emit
    from maekit.evaluate.detection.detector import Detector
    from maekit.recipe.schema import Data, DataSpec


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
    model, header = load_detector(weights)
    described = header.classifier
    assert described is not None  # noqa: S101 - load_detector refuses the others
    way = way_of(Request(source, recipe, data="."), weights, described, emit)
    finetune, spec = way.recipe.finetune, way.recipe.data.val
    assert spec is not None  # noqa: S101 - way_of saw to it
    if spec.sampling != "centered":
        spec = spec.model_copy(update={"sampling": "centered", "frames": header.clip[0]})
    boxes = BoxPooling() if finetune is None else finetune.boxes
    name = "fp32" if finetune is None else finetune.precision
    precision = Precision.of(name, device, where="finetune.precision")
    return Trained(model.to(device), described.outputs, boxes, way.recipe.data, spec, precision)
