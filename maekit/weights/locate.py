"""Decide which weights are meant: those that ``--from`` names, or else the newest run's.

A source is a run folder, a weights file, ``hf:FOLDER``, ``timm:NAME``, or ``demo``, the weights in
the package; verbs that judge features also take ``scratch``, an untrained encoder.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from maekit import demo
from maekit.errors import MaekitError, RecipeError, WeightsError
from maekit.recipe.load import load, with_overlays
from maekit.runs import RUNS, newest_finished, read_result, run_of, verb_of
from maekit.weights import foreign
from maekit.weights.checkpoints import MODEL, newest_good
from maekit.weights.safetensors_io import KEY, read_header, read_tensors, safetensors_file
from maekit.weights.timm import pretrained

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe

HF, TIMM = "hf:", "timm:"
SCRATCH = "scratch"
PACKAGED = "demo"  # unless something of that name is there
FINAL = "weights.safetensors"  # of a run that ended well
_log = logging.getLogger(__name__)
DEMO = "demo weights"
# Targets for which the pixels' own error says how good a model is, and how many dB behind a picture
# without a model a good one may be: for normalized pixels, it gives each patch its brightness.
_PREDICT_PIXELS = {"pixel": 0.0, "norm-pixel": 0.5}


@dataclass(frozen=True)
class LocatedWeights:
    """Weights that were found.

    Attributes:
        source: as ``load_model`` takes it.
        description: for people.
        folder: the run that they come from; None where they do not come from one.
        caption: what pictures say of them: short, for people.
        notes: what was passed over, and why.
    """

    source: str
    description: str
    folder: Path | None
    caption: str
    notes: tuple[str, ...] = ()

    def recipe(self) -> Recipe | None:
        """Load the recipe of the run that they come from, with the overlays of its verb."""
        if self.folder is None or not (self.folder / "recipe.yaml").is_file():
            return None
        return with_overlays(load(self.folder / "recipe.yaml"), self.verb).recipe

    @property
    def verb(self) -> str:
        """The verb of that run; weights that come from no run count as pre-trained."""
        return (None if self.folder is None else verb_of(self.folder)) or "pretrain"


def newest_pretraining(recipe: str) -> Path:
    """Return the newest finished pre-training run of a recipe: what finetune and probe start from.

    Raises:
        RecipeError: there is none.
    """
    found = newest_finished(recipe, "pretrain")
    if found is None:
        msg = f"no finished pre-training run of {recipe} below {RUNS}/"
        hint = (
            f"`maekit pretrain {recipe}` first, name weights (--from RUN, FILE, timm:NAME or "
            "hf:FOLDER), or start from none (--from scratch)"
        )
        raise RecipeError(msg, where="--from", hint=hint)
    return found


def newest_or_demo(source: str | None, *, predicts: bool = True) -> LocatedWeights:
    """Find the requested weights, else the newest run's of any recipe, else the demo's.

    Finished runs come before those that only have a checkpoint.

    Args:
        source: the requested weights, if any.
        predicts: pass over runs whose weights have no decoder, and those that predict held-out
            pixels no better than a picture that needs no model.

    Raises:
        RecipeError: what was requested does not exist.
    """
    if source is not None:
        if is_foreign(source):
            return LocatedWeights(source, source, None, source)
        path = find_weights(source)
        if path == demo.WEIGHTS:
            return _demo(())
        return LocatedWeights(source, str(path), run_of(path), source)
    notes: list[str] = []
    for finished, _, folder in sorted(_saved_runs(), reverse=True):
        try:
            weights = find_weights(folder)
            header = read_header(weights)
        except MaekitError as error:
            notes.append(f"passed over {folder}: {error.what}")
            continue
        if predicts and (header.decoder is None or header.target is None):
            continue
        spare = None if header.target is None else _PREDICT_PIXELS.get(header.target.name)
        loss = _loss_to_a_fill(folder) if predicts and spare is not None else None
        if spare is not None and loss is not None and loss >= spare:
            text = f"it predicts held-out pixels {loss:.1f} dB worse than interpolation does"
            notes.append(f"passed over {folder}: {text}; --from {folder} takes it all the same")
            continue
        which = "the newest finished run" if finished else "the newest run, which is not finished"
        text = f"{weights} ({which}; others: --from RUN, --from {PACKAGED})"
        return LocatedWeights(str(weights), text, run_of(weights), str(folder), tuple(notes))
    return _demo(tuple(notes))


def newest_classifier() -> LocatedWeights:
    """Find the newest run with a classifier; finished ones come first.

    Raises:
        RecipeError: there is none.
    """
    for finished, _, folder in sorted(_saved_runs(), reverse=True):
        try:
            weights = find_weights(folder)
            if read_header(weights).classifier is None:
                continue
        except MaekitError:
            continue
        which = "the newest finished classifier" if finished else "the newest, not finished"
        text = f"{weights} ({which}; others: --from RUN)"
        return LocatedWeights(str(weights), text, run_of(weights), str(folder))
    msg = f"no run below {RUNS}/ has left a classifier"
    hint = "--from RUN or FILE; `maekit finetune` trains one"
    raise RecipeError(msg, where="--from", hint=hint)


def _demo(notes: tuple[str, ...]) -> LocatedWeights:
    path = demo.WEIGHTS
    return LocatedWeights(str(path), f"{DEMO} ({path})", path.parent, DEMO, notes)


def _loss_to_a_fill(folder: Path) -> float | None:
    """Return by how many dB a run's held-out error is above the best picture without a model.

    None where it is below, or was not measured.
    """
    held_out = read_result(folder).get("holdout")
    if not isinstance(held_out, dict):
        return None
    names = ("hidden_mse", "mean_fill_mse", "interpolated_fill_mse")
    found = (held_out.get(name) for name in names)
    values = [value for value in found if isinstance(value, float) and value > 0]
    if len(values) < len(names):
        return None
    error, *fills = values
    return 10 * math.log10(error / min(fills)) if error >= min(fills) else None


def _saved_runs() -> Iterator[tuple[bool, int, Path]]:
    """List the runs that have saved weights: whether they are final, and the time of the newest."""
    for folder in RUNS.glob("*/*"):
        saved = [folder / FINAL, *folder.glob(f"checkpoints/step-*/{MODEL}")]
        times = []
        for path in saved:
            with suppress(OSError):  # just now being replaced
                times.append(path.stat().st_mtime_ns)
        if times:
            yield saved[0].is_file(), max(times), folder


def find_weights(source: str | Path) -> Path:
    """Return the weights file of a run folder (its final or newest weights), or the file itself.

    Of a folder the newest that matches its checksum is taken; what is passed over is logged.

    Raises:
        RecipeError: nothing is there (a missing file is a usage error, exit 2).
        WeightsError: all that is there is damaged.
        StorageError: the system cannot read it now.
    """
    path = _path(str(source))
    if not os.path.exists(path):  # noqa: PTH110 - pathlib raises on names that are too long
        msg = f"no such run or weights file: {source}"
        hint = f"give a run folder (runs/NAME/N), a .safetensors file, or {PACKAGED}"
        raise RecipeError(msg, hint=hint)
    if path.is_file():
        return path
    final = path / FINAL
    passed_over: list[str] = []
    if final.is_file():
        try:
            read_tensors(final)
        except WeightsError as error:
            passed_over.append(str(error.what))
        else:
            return final
    found = newest_good(path / "checkpoints", files=(MODEL,))
    if found.newest is None:
        if passed_over:
            msg = f"weights.safetensors is damaged, and there is no checkpoint: {passed_over[0]}"
            raise WeightsError(msg, where=str(path), hint="copy it again")
        msg = "this folder holds neither weights.safetensors nor a checkpoint"
        raise RecipeError(msg, where=str(path), hint="give the folder of a run that has saved")
    for note in [f"{final}: {each}" for each in passed_over] + found.notes:
        _log.warning("%s; using %s", note, found.newest.folder.name)
    return found.newest.weights


def local_path(source: str | Path) -> Path | None:
    """Return the file or folder that a source names; None for ``timm:NAME``."""
    text = str(source)
    return None if text.startswith(TIMM) else _path(text.removeprefix(HF))


ENTRY = "#"  # between a file and the name of one of its models


def with_entry(source: str, entry: str | None) -> str:
    """Return the word for one of a file's models: FILE#NAME."""
    return source if entry is None else f"{source}{ENTRY}{entry}"


def entry_of(source: str | Path) -> str | None:
    """Return which of a file's models a source names; None where it names none."""
    text = str(source)
    file, mark, entry = text.rpartition(ENTRY)
    if not mark or not entry or text.startswith(TIMM):
        return None
    return None if os.path.exists(text.removeprefix(HF)) or not file else entry  # noqa: PTH110


def _path(text: str) -> Path:
    """Return the path that a word means: itself, or the weights in the package."""
    entry = entry_of(text)
    text = text if entry is None else text.removesuffix(f"{ENTRY}{entry}")
    named = text == PACKAGED and not os.path.exists(text)  # noqa: PTH110
    return demo.WEIGHTS if named else Path(text)


def check_exists(source: str | Path) -> None:
    """Refuse a source that does not exist, before anything is made.

    Raises:
        RecipeError: it does not, or timm does not know such weights. Whether they can be fetched
            is known only when that is tried.
    """
    path = local_path(source)
    if path is None:
        pretrained(str(source).removeprefix(TIMM))
    elif not os.path.exists(path):  # noqa: PTH110
        hint = (
            f"give a run folder, a weights file, hf:FOLDER, timm:NAME or {PACKAGED}; "
            "`maekit weights get` fetches what authors published"
        )
        raise RecipeError(f"no such run or weights file: {source}", where="--from", hint=hint)


def is_foreign(source: str | Path) -> bool:
    """Return whether a source names weights that maekit did not write.

    What does not exist counts as maekit's, so that there is one message about it.
    """
    if str(source).startswith((HF, TIMM)):
        return True
    path = _path(str(source))
    if not os.path.isfile(path):  # noqa: PTH113
        return os.path.isfile(path / foreign.CONFIG)  # noqa: PTH113
    if not foreign.is_safetensors(path):
        return True
    try:
        with safetensors_file(path) as file:
            return KEY not in (file.metadata() or {})
    except (SafetensorError, OSError):  # read_header says what is wrong, and what to try
        return False
