"""The verbs that run in a folder, as the command line and ``maekit.run`` call them.

Each verb's job is a class of its own layer; here it gets what layers next to it add: pictures of
held-out samples, and an online probe.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.atomic import write_bytes
from maekit.engine import distributed
from maekit.engine.events import Emit, Note, Saved
from maekit.engine.job import Job
from maekit.engine.loop import Periodic
from maekit.engine.precision import pick_device
from maekit.engine.pretrain import PretrainJob
from maekit.engine.resume import newest_of
from maekit.engine.run import Finished, RunOptions, run_in_folder
from maekit.errors import RecipeError
from maekit.evaluate.cached_probe import KEPT, run_cached_probe
from maekit.evaluate.detection.job import DetectionJob
from maekit.evaluate.evaluation import evaluate
from maekit.evaluate.finetune import FinetuneJob
from maekit.evaluate.kept_run import refuse_other
from maekit.evaluate.online_probe import online_probe
from maekit.evaluate.probe import required_probe
from maekit.evaluate.probe_training import LinearProbeJob
from maekit.evaluate.way import VERB as EVALUATE
from maekit.evaluate.way import Request
from maekit.recipe.load import read
from maekit.registry import resolve
from maekit.tokenizer.train import TokenizerJob
from maekit.visualize.movies import TIMELAPSE, step_picture, write_timelapse
from maekit.visualize.prediction import predicts_pixels
from maekit.visualize.training import rebuilt, reconstructions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from PIL.Image import Image

    from maekit.engine.loop import TrainState
    from maekit.recipe.schema import Recipe

PICTURES = "pictures"  # folder below the run's


class PicturedPretrainJob(PretrainJob):
    """Pre-training that draws reconstructions and probes its features on the way."""

    def measures(self) -> list[Periodic]:
        """Measure the held-out error, and what an online probe says."""
        return [*super().measures(), *online_probe(self)]

    def pictures(self, folder: Path) -> list[Periodic]:
        """Draw reconstructions of held-out samples, where the target is pixels."""
        shown, section = self.shown, self.section.pictures
        if section is None or not predicts_pixels(self.model):
            return []
        if shown is None:
            return others_draw(section.every)
        pictures = Pictures(
            lambda: reconstructions(self.model, shown, self.precision), folder, self.emit
        )
        return [Periodic(section.every, pictures)]

    def finish_pictures(self, folder: Path) -> None:
        """Make a time-lapse of the pictures."""
        film(folder, self.state.step, self.emit)


class PicturedTokenizerJob(TokenizerJob):
    """A tokenizer that draws what it rebuilds."""

    def pictures(self, folder: Path) -> list[Periodic]:
        """Draw held-out pictures next to what is rebuilt from their codes."""
        shown, section = self.shown, self.section.pictures
        if section is None:
            return []
        if shown is None:
            return others_draw(section.every)
        pictures = Pictures(lambda: rebuilt(self.model, shown, self.precision), folder, self.emit)
        return [Periodic(section.every, pictures)]

    def finish_pictures(self, folder: Path) -> None:
        """Make a time-lapse of the pictures."""
        film(folder, self.state.step, self.emit)


def others_draw(every: int) -> list[Periodic]:
    """Return what a rank other than the first does where pictures are due: nothing."""
    return [] if distributed.is_first() else [Periodic(every, lambda _: None)]


class Pictures:
    """Write ``pictures/step-XXXXXXXX.png`` into a run's folder."""

    def __init__(self, draw: Callable[[], Image | None], folder: Path, emit: Emit) -> None:
        self.draw = draw
        self.folder = folder / PICTURES
        self.emit = emit

    def __call__(self, state: TrainState) -> None:
        """Draw; a picture that cannot be written ends no training, and only warns."""
        image = self.draw()
        if image is None:
            return
        path = self.folder / step_picture(state.step)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        try:
            self.folder.mkdir(exist_ok=True)
            write_bytes(path, buffer.getvalue())
        except OSError as error:
            self.emit(Note(f"{path} could not be written: {error}", warning=True))
            return
        self.emit(Saved(state.step, "picture", str(path), image))


def film(folder: Path, step: int, emit: Emit) -> None:
    """Write ``pictures/timelapse.gif`` of a run's pictures, if it drew two or more.

    It can be made again at any time, so that failing to write it only warns.
    """
    pictures = folder / PICTURES
    try:
        path = write_timelapse(pictures)
    except OSError as error:
        emit(Note(f"{pictures / TIMELAPSE} could not be written: {error}", warning=True))
        return
    if path is not None:
        emit(Saved(step, "time-lapse", str(path)))


JOBS: dict[str, type[Job]] = {
    "pretrain": PicturedPretrainJob,
    "finetune": FinetuneJob,
    "tokenizer": PicturedTokenizerJob,
    "probe": LinearProbeJob,
}


def job_of(verb: str, recipe: Recipe) -> type[Job]:
    """Return what a verb trains of a recipe."""
    section = recipe.finetune if verb == "finetune" else None
    if section is not None and section.head.kind == "detection":
        return DetectionJob
    return JOBS[verb]


def trains(verb: str, recipe: Recipe) -> bool:
    """Return whether a verb trains in steps; a probe may fit heads on cached features instead."""
    if verb != "probe":
        return True
    probe, _ = required_probe(recipe)
    return probe.trains_heads


def run_verb(
    verb: str, recipe: Recipe, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Run a verb in a folder.

    Args, returned value and errors are those of ``maekit.engine.run.run_in_folder``.
    """
    kind, steps = job_of(verb, recipe), trains(verb, recipe)
    if not options.resume:
        options = replace(options, source=kind.find_source(recipe, options.source, listener))
    elif verb == "probe":  # both of its protocols may have left something in the folder
        resumed = options.out or newest_of(recipe, verb, options.source)
        if resumed is not None:
            refuse_other(verb, resumed, recipe, options.source, KEPT)
    if steps:
        return run_in_folder(kind, recipe, device, options, listener)
    return run_cached_probe(recipe, device, options, listener)


def run(
    recipe: str | Path | Mapping[str, Any] | None,
    verb: str,
    options: RunOptions,
    *,
    overrides: Sequence[str],
    classes: Sequence[str] | None,
    device: str | None,
    listener: Emit,
) -> dict[str, Any]:
    """Resolve a recipe and run a verb, as ``maekit.run`` documents it."""
    if verb == EVALUATE:
        if options.source is None:
            raise RecipeError("which classifier?", where="source", hint="a run, or a weights file")
        names = None if classes is None else tuple(classes)
        request = Request(options.source, recipe, overrides, classes=names)
        return evaluate(request, pick_device(device), options, listener).result
    if verb not in JOBS:
        msg = f"maekit.run cannot run '{verb}'"
        raise RecipeError(msg, where="verb", hint=f"one of {', '.join((*JOBS, EVALUATE))}")
    if recipe is None:
        raise RecipeError("which recipe?", where="recipe", hint="a file, or a shipped one's name")
    loaded = read(recipe, overrides)
    resolved = resolve(loaded, verb)
    for note in loaded.notes:
        listener(Note(note))
    return run_verb(verb, resolved, pick_device(device), options, listener).result
