"""``maekit evaluate`` of a detector: the boxes of a set judged, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maekit.data.bad_files import BadFiles
from maekit.data.identity import identify
from maekit.engine import distributed
from maekit.engine.batches import workers_of
from maekit.engine.events import Emit, Note
from maekit.engine.left_out import left_out_of
from maekit.engine.run_folder import BOXES
from maekit.evaluate.detection.detector import detector_header
from maekit.evaluate.detection.found import Found, find_shards, joined
from maekit.evaluate.detection.judged import JudgedBoxes
from maekit.evaluate.detection.load import Trained
from maekit.evaluate.detection.rows import write_rows
from maekit.evaluate.detection.shown import show
from maekit.evaluate.detection.task import announce_judged, task_of_outputs
from maekit.evaluate.encoder import digest_of_weights
from maekit.evaluate.feature_cache import SHARD_SIZE, FeatureShards
from maekit.evaluate.predictions import Reading
from maekit.evaluate.way import VAL, VERB, judged_set
from maekit.weights.heads import numbers

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from maekit.contracts import Dataset
    from maekit.evaluate.detection.found import KeyFrames
    from maekit.evaluate.way import Request, Way
    from maekit.weights.importer import Weights

AT_ONCE = 4  # clips, where the recipe does not say


class DetectionEvaluation:
    """A detector, and the boxes that it is judged on.

    Args:
        way: how key frames are read.
        weights: of the detector.
        device: where it runs.
        emit: called with notes.

    Raises:
        WeightsError: the weights do not match their header.
        DataError: data.val has no boxes, or of actions that the detector does not know.
    """

    def __init__(self, way: Way, weights: Weights, device: torch.device, emit: Emit) -> None:
        self.way, self.device, self.emit = way, device, emit
        self.used = Trained.of(way, weights, device)
        outputs = detector_header(weights)[0].outputs
        named = outputs != numbers(len(outputs))
        self.val: Dataset = judged_set(way.recipe, emit)
        self.task = task_of_outputs(outputs, self.val, emit, named=named)

    def judge(self, request: Request, kept: Path) -> dict[str, Any]:
        """Score every box, and return what result.json holds of it.

        Of key frames that cannot be read, true boxes count as not found.

        Args:
            request: what is judged.
            kept: the folder below the run's where scores are kept as they are made.

        Raises:
            DataError: more than data.val.max_bad_fraction cannot be read.
        """
        used, emit = self.used, self.emit
        videos = used.spec.written.get("videos")
        if request.data is not None and videos is not None:
            emit(Note(f"movies are looked for in {videos} (data.val.videos)"))
        announce_judged(self.task, emit)
        frames = used.frames(self.val, self.task.val, emit)
        about = {
            "weights": request.source,
            "sha256": digest_of_weights(used.model),
            "settings": used.settings,
            "data": identify(self.val).model_dump(mode="json"),
        }
        shards = FeatureShards(kept, about)
        count = find_shards(frames, used.boxer(frames), self._reading(), shards, SHARD_SIZE)

        def measured() -> dict[str, Any]:
            found = joined(Found.of(shards.load(number)) for number in range(count))
            self._refuse_bad(found, kept.parent)
            judged = JudgedBoxes(self.task, found, used.boxes)
            return self._written(judged, frames, kept.parent) | {
                "left_out": left_out_of({VAL: self.val}, {VAL: found.left_out}),
                "from": request.source,
                "weights": request.source,
            }

        return distributed.on_first(measured)

    def _reading(self) -> Reading:
        data, section = self.used.data, self.way.recipe.finetune
        at_once = None if section is None else section.batch.given_per_device
        workers = workers_of(data.workers, self.device.type)
        return Reading(self.device, at_once or AT_ONCE, workers, data.timeout)

    def _refuse_bad(self, found: Found, folder: Path) -> None:
        if found.bad:
            ledger = BadFiles(
                folder / "bad_files.jsonl",
                len(self.val),
                self.used.spec.max_bad_fraction,
                VAL,
                warn=lambda text: self.emit(Note(text, warning=True)),
            )
            ledger.add(found.bad, 0)

    def _written(self, judged: JudgedBoxes, frames: KeyFrames, folder: Path) -> dict[str, Any]:
        write_rows(folder / BOXES, judged.rows, judged.frames)
        show(judged, folder, frames, self.emit, 0)
        return {
            **judged.measures(),
            **judged.summary(),
            "samples": len(self.val),
            "classes": len(self.task.outputs),
            "protocol": self._protocol,
            "settings": self.used.settings,
            "predictions": str(folder / BOXES),
        }

    @property
    def _protocol(self) -> str:
        """The protocol, named as the training's own result does, so that the two compare."""
        section = self.way.recipe.finetune
        bare = self.way.bare or section is None
        of = VERB if bare else f"finetune/{section.blocks}"  # type: ignore[union-attr]
        return f"{of}/{self.used.boxes.dialect}/{self.task.person_boxes}"
