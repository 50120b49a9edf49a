"""The job of ``maekit finetune`` with ``head.kind: detection``: actions of persons in boxes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from maekit.engine import distributed
from maekit.engine.events import Note
from maekit.engine.run_folder import BOXES
from maekit.engine.step import eval_mode
from maekit.errors import RecipeError
from maekit.evaluate.augment import RandomErase
from maekit.evaluate.detection.detector import Detector
from maekit.evaluate.detection.found import Boxer, Found, KeyFrames, Whole, find
from maekit.evaluate.detection.judged import JudgedBoxes
from maekit.evaluate.detection.rows import write_rows
from maekit.evaluate.detection.shown import show
from maekit.evaluate.detection.supervision import (
    DetectionStep,
    box_draw,
    effect_of_loss,
    make_detector,
)
from maekit.evaluate.detection.task import (
    DetectionTask,
    announce,
    announce_other_clips,
    asked,
    detection_task,
)
from maekit.evaluate.finetune import SupervisedJob
from maekit.evaluate.predictions import Reading
from maekit.evaluate.supervision import VERB, train_reader

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.data.reader import SampleReader
    from maekit.engine.loop import TrainState
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.finetune import Finetune
    from maekit.weights.header import Header

CENTERED = "centered"


class DetectionJob(SupervisedJob):
    """Train an encoder and a head on the actions of boxes."""

    model: Detector
    task: DetectionTask
    judgment: JudgedBoxes | None = None  # of the last time that data.val was judged

    def _task(self, options: Finetune) -> DetectionTask:
        val = self.judged_set()
        for key in ("train", "val"):
            spec = getattr(self.recipe.data, key)
            if spec.sampling != CENTERED:
                msg = f"data.{key}.sampling is {spec.sampling}: its clips are not around key frames"
                raise RecipeError(msg, where=f"data.{key}.sampling", hint=f"set it to {CENTERED}")
        data = self.recipe.data
        assert data.val is not None  # noqa: S101 - it was opened
        announce_other_clips(data.train, data.val, self.emit)
        task = detection_task(self.train, val)
        self.check_outputs(len(task.outputs))
        announce(task, self.train, self.emit)
        mean = asked(task.train) / max(1, len(task.train))
        self.emit(
            Note(effect_of_loss(options.boxes, mean, self.split.per_device * options.repeats))
        )
        return task

    def _train_reader(self, options: Finetune, encoder: MaskedAutoencoder) -> SampleReader:
        return train_reader(self, options, encoder, box_draw(options.boxes))

    def _with_head(
        self, encoder: MaskedAutoencoder, header: Header, options: Finetune
    ) -> tuple[Detector, Header]:
        model, header = make_detector(encoder, header, options, self.task, self.recipe.seed)
        said = Whole.of(model, options.boxes).said
        if said is not None:
            self.emit(Note(said))
        return model, header

    def _step(self, options: Finetune) -> DetectionStep:
        seed = self.recipe.seed
        return DetectionStep(
            self.model,
            options.boxes,
            self.precision,
            per_device=self.split.per_device * options.repeats,
            smoothing=options.label_smoothing,
            erase=RandomErase(options.erase, seed, options.repeats) if options.erase else None,
            compiled=options.compiles(self.device.type),
        )

    def evaluate(self, state: TrainState) -> None:
        """Judge data.val: the boxes of all its key frames."""
        judged = self.judge()
        # Of millions of rows it takes minutes: once is enough.
        self.record(state, distributed.on_first(judged.measures), judged.found.left_out)
        if state.finished:
            self.judgment = judged
            state.extra["judged"] = distributed.on_first(judged.summary)

    @cached_property
    def frames(self) -> KeyFrames:
        """The key frames of data.val; their sizes are looked up once."""
        val, spec = self.judged_set(), self.recipe.data.val
        assert spec is not None  # noqa: S101 - it is what was opened
        whole = Whole.of(self.model, self.section.boxes)
        return KeyFrames(val, self.task.val, whole, self.recipe.data, spec)

    def judge(self) -> JudgedBoxes:
        """Score every box of data.val.

        Of key frames that cannot be read, true boxes count as not found.

        Raises:
            DataError: more than data.val.max_bad_fraction cannot be read.
        """
        options, timeout = self.section.boxes, self.recipe.data.timeout
        reading = Reading(self.device, self.split.per_device, self.workers, timeout)
        with eval_mode(self.judged):
            detector = self.judged
            assert isinstance(detector, Detector)  # noqa: S101 - it is a copy of one
            boxer = Boxer(detector, options, self.precision, self.frames.whole)
            found = find(self.frames, boxer, reading)
        self._record_bad(found)
        return JudgedBoxes(self.task, found, options)

    def _record_bad(self, found: Found) -> None:
        spec = self.recipe.data.val
        if found.bad and spec is not None:
            ledger = self._ledger(len(self.task.val), spec.max_bad_fraction, "data.val")
            ledger.add(found.bad, self.state.step)

    def export(self, path: Path) -> None:
        """Write the final weights, what they find in data.val, and what that shows."""
        super().export(path)
        if self.judgment is None:  # killed in an earlier run, right after its last checkpoint
            self.judgment = self.judge()
        judged = self.judgment

        def write() -> None:
            write_rows(path.with_name(BOXES), judged.rows, judged.frames)
            show(judged, path.parent, self.frames, self.emit, self.state.step)

        distributed.on_first(write)

    def result(self) -> dict[str, Any]:
        """Return what data.val showed, as fractions."""
        extra, options = self.state.extra, self.section.boxes
        judged = extra.get("judged") or {}
        return {
            **(extra.get("test") or {}),
            "best": self.best,
            **judged,
            "classes": len(self.task.outputs),
            "protocol": f"{VERB}/{self.section.blocks}/{options.dialect}/{self.task.person_boxes}",
            "from": extra.get("from"),
        }
