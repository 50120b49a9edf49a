"""Trainings that are judged by what they make of fixed held-out samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maekit.data.bad_files import BadFiles
from maekit.engine.events import Measured, Note
from maekit.engine.feed import read_holdout
from maekit.engine.loop import Occasion
from maekit.engine.training import Basis, Training

if TYPE_CHECKING:
    from torch import nn

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.reader import SampleReader
    from maekit.engine.state import Step, TrainState
    from maekit.recipe.training import HeldOutSection

BATCH_HELD_OUT = 64  # samples that are measured together, at most


class HeldOutTraining(Training):
    """A training that is judged by what it makes of fixed held-out samples."""

    section: HeldOutSection

    def __init__(
        self, basis: Basis, model: nn.Module, reader: SampleReader, state: TrainState, step: Step
    ) -> None:
        super().__init__(basis, model, reader, state, step)
        self.held_out: Sequence[Batch] = ()
        self.shown: Batch | None = None  # held-out samples that pictures are drawn of

    @abstractmethod
    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Reads held-out samples, the same ones whenever it is asked."""

    @abstractmethod
    def measure(self) -> dict[str, float | None]:
        """The errors on what is held out; the model is left in the mode that it was in."""

    def occasions(self) -> list[Occasion]:
        """The held-out error, every so many steps."""
        return [Occasion(self.section.validate_.every, self.validate)]

    def result(self) -> dict[str, Any]:
        """The held-out errors, last and first."""
        extra = self.state.extra
        return {"holdout": extra.get("holdout"), "holdout_start": extra.get("holdout_start")}

    def open_holdout(self) -> None:
        """Read the held-out samples; without ``data.val`` there are none, which is said."""
        if self.val is None or self.recipe.data.val is None:
            self.emit(Note("no data.val: no held-out error, no pictures"))
            return
        tolerated = self.recipe.data.val.max_bad_fraction
        ledger = BadFiles(self.bad_files, len(self.val), tolerated, section="data.val")
        reader = self.holdout_reader(self.val)

        def read(samples: int, size: int) -> list[Batch]:
            return read_holdout(
                reader,
                samples,
                size=size,
                ledger=ledger,
                workers=self.workers,
                timeout=self.recipe.data.timeout,
            )

        size = min(self.split.per_device, BATCH_HELD_OUT)
        self.held_out = read(self.section.validate_.samples, size)
        if self.section.pictures is not None:
            shown = self.section.pictures.samples
            self.shown = read(shown, shown)[0]

    def validate(self, state: TrainState) -> None:
        """An occasion: measure the held-out error."""
        if not self.held_out:
            return
        values = self.measure()
        state.extra.setdefault("holdout_start", values)
        state.extra["holdout"] = values
        self.emit(Measured(state.step, "holdout", values))
