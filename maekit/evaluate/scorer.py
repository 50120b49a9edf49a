"""A classifier that is ready to score samples, read as a recipe says.

It knows no data: what is judged, and what is predicted for, are read by the same rules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maekit.data.rendering import Rendering
from maekit.engine.batches import workers_of
from maekit.engine.events import Emit, Note
from maekit.engine.precision import Precision
from maekit.errors import RecipeError, WeightsError
from maekit.evaluate.classifier import Classifier, load_classifier, refuse_detector
from maekit.evaluate.encoder import digest_of_weights
from maekit.evaluate.labels import scores_of
from maekit.evaluate.predictions import Reading
from maekit.evaluate.views import ViewReader, view_reader
from maekit.evaluate.way import VERB, Request, Way
from maekit.recipe.probe import Probe
from maekit.runs import read_result
from maekit.weights.importer import UserHints, Weights, open_weights
from maekit.weights.locate import FINAL

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.recipe.finetune import Finetune
    from maekit.recipe.schema import DataSpec
    from maekit.recipe.sections import Views
    from maekit.weights.header import ClassifierHeader, Header

AT_ONCE = 32  # views


def open_classifier(request: Request, *, boxes: bool = False) -> tuple[Weights, ClassifierHeader]:
    """Open the weights of a classifier, and return what they say of it.

    Args:
        request: names them.
        boxes: whether a detector, which scores boxes, will do.

    Raises:
        WeightsError: they hold none.
        RecipeError: they are a probe that leaves none.
    """
    _refuse_cached(request.source)
    weights = open_weights(request.source, user_hints=UserHints(classes=request.classes))
    described = weights.header.classifier
    if described is None:
        msg = "these weights hold no classifier: there is nothing to judge or to ask"
        hint = "`maekit finetune` or `maekit probe` train one on them"
        raise WeightsError(msg, where=request.source, hint=hint)
    if not boxes:
        refuse_detector(described, request.source)
    return weights, described


def _refuse_cached(source: str) -> None:
    """Refuse a probe that leaves scores only: of neighbors, attentive, of an inner layer.

    Raises:
        RecipeError: the source is one.
    """
    folder = Path(source)
    if read_result(folder).get("verb") == "probe" and not (folder / FINAL).is_file():
        msg = "this probe left scores and no classifier"
        hint = "probe with --kind linear, without probe.layer, which leaves one"
        raise RecipeError(msg, where=source, hint=hint)


class Scorer:
    """A classifier on its device, and how samples are read for it.

    Args:
        way: how samples are read, and how many views of each count.
        weights: of the classifier.
        device: where it runs.
        emit: called with notes.
        loaded: the model and its header, where it is there already.

    Raises:
        WeightsError: the weights do not match their header, or hold no classifier.
    """

    def __init__(
        self,
        way: Way,
        weights: Weights,
        device: torch.device,
        emit: Emit,
        loaded: tuple[Classifier, Header] | None = None,
    ) -> None:
        self.way, self.recipe = way, way.recipe
        section: Finetune | Probe = getattr(way.recipe, way.section)
        data, spec = way.recipe.data, way.recipe.data.val
        assert spec is not None  # noqa: S101 - way_of saw to it
        self.section, self.device, self.spec = section, device, spec
        self.precision = self._precision(device)
        clip = (spec.frames, *data.height_width)
        if clip != weights.header.clip:
            sizes = ("x".join(map(str, each)) for each in (clip, weights.header.clip))
            text = "clips of {} as the recipe says; the weights were trained on {}"
            emit(Note(text.format(*sizes)))
        self.model, self.header = loaded or load_classifier(weights, clip=clip)
        self.model.to(device)
        described = weights.header.classifier
        assert described is not None  # noqa: S101 - load_classifier refuses the others
        self.described = described

    def _precision(self, device: torch.device) -> Precision:
        where = f"{self.way.section}.precision"
        return Precision.of(self.section.precision, device, where=where)

    def follow(self, model: Classifier) -> None:
        """Score on the device that a model was moved to, in that one's number format.

        Raises:
            RecipeError: the recipe names a format that the device does not have.
        """
        self.device, self.precision = model.device, self._precision(model.device)

    @property
    def views(self) -> Views:
        """Which clips and crops of a sample count."""
        return self.section.views

    @property
    def rendering(self) -> Rendering:
        """What is done to pixels of another size or range; the recipe's range comes first."""
        data = self.recipe.data
        span = data.range_ if isinstance(data.range_, tuple) else self.header.range
        return Rendering.of_weights(span, data)

    @torch.inference_mode()
    def scores(self, pixels: Tensor) -> Tensor:
        """Score pixels in [0, 1], ``[B, C, T, H, W]``: probabilities or values ``[B, K]``."""
        model: Classifier = self.model
        with self.precision.autocast():
            logits = model(model.normalize(pixels))
        return scores_of(self.described.kind, logits)

    def reader(self, dataset: Dataset, *, center: bool = False) -> ViewReader:
        """Return a reader of the views of each sample that count, or of the center one alone."""
        data = self.recipe.data
        return view_reader(
            dataset,
            self.spec,
            self.views.center if center else self.views,
            size=data.height_width,
            channels=self.header.channels,
            rendering=self.rendering,
        )

    def reading(self, at_once: int | None = None, workers: int | None = None) -> Reading:
        """Return how samples are read: views at once, loader processes; by default the recipe's."""
        data = self.recipe.data
        count = workers_of(data.workers if workers is None else workers, self.device.type)
        at_once = at_once or self.section.batch.given_per_device or AT_ONCE
        return Reading(self.device, at_once, count, data.timeout)

    def about(self, request: Request) -> dict[str, Any]:
        """Return what scores depend on besides the samples."""
        return {
            "fit": self.rendering.fit,
            "range": self.rendering.span,
            "weights": request.source,
            "sha256": digest_of_weights(self.model),
            "settings": self.settings,
            "precision": self.precision.name,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """How samples are read, as result.json holds it."""
        spec: DataSpec = self.spec
        views = self.views
        return {
            "views": f"{views.clips}x{views.crops}",
            "enlarge": views.enlarge,
            "interpolation": views.interpolation,
            "resize": views.resize,
            "clip": [spec.frames, *self.recipe.data.height_width],
            "sampling": spec.sampling,
            "stride": spec.stride,
            "rate": spec.rate,
        }

    @property
    def protocol(self) -> str:
        """The protocol, named as the training's own result does, so that the two compare."""
        views = self.views
        if self.way.bare:
            return f"{VERB}/{views.clips}x{views.crops}"
        if isinstance(self.section, Probe):
            return f"{self.section.kind}/{self.section.protocol}"
        return f"finetune/{self.section.blocks}/{views.clips}x{views.crops}"
