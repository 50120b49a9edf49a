"""A detector of actions that was trained: loaded, and how its run read and judged key frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from maekit.engine.build import load_model, without_head
from maekit.engine.precision import Precision
from maekit.errors import WeightsError
from maekit.evaluate.classifier import (
    ENCODER,
    load_classifier_tensors,
    make_head,
)
from maekit.evaluate.detection.detector import Detector
from maekit.evaluate.way import Request, way_of
from maekit.recipe.detection import BoxPooling
from maekit.weights.importer import open_weights
from maekit.weights.safetensors_io import CLASSIFIER

if TYPE_CHECKING:
    import torch

    from maekit.engine.events import Emit
    from maekit.recipe.schema import Data, DataSpec
    from maekit.weights.header import Header
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


def load_detector(weights: Weights) -> tuple[Detector, Header]:
    """Load a detector in evaluation mode.

    Raises:
        WeightsError: the weights hold none, or do not match their header.
    """
    described = weights.header.classifier
    if described is None or described.roi is None:
        msg = "these weights hold no detector of actions in boxes"
        hint = "give a run of maekit finetune with finetune.head.kind: detection"
        raise WeightsError(msg, where=weights.origin, hint=hint)
    model, header = load_model(without_head(weights))
    head = make_head(model.backbone.width, len(described.outputs))
    detector = Detector.of(
        model, head, described.roi, norm=described.norm, norm_eps=described.norm_eps
    )
    own = {name: tensor for name, tensor in weights.tensors.items() if name.startswith(CLASSIFIER)}
    encoder = {
        name: tensor for name, tensor in detector.state_dict().items() if name.startswith(ENCODER)
    }
    load_classifier_tensors(detector, encoder | own, weights.origin)
    return detector.eval(), header.model_copy(update={"classifier": described})


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
