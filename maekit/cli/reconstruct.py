"""``maekit reconstruct``: pictures, videos and scores of what a model predicts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.atomic import write_text
from maekit.cli.output import as_json, print_json, print_table
from maekit.cli.reporters import Terminal, shown
from maekit.cli.run_samples import Which, run_samples
from maekit.data.rendering import Rendering
from maekit.datasets.folders import Tally
from maekit.datasets.named_files import NamedFiles, find_files, output_stems
from maekit.engine.build import required_pretrain
from maekit.engine.events import Note
from maekit.engine.left_out import announce_left_out
from maekit.engine.precision import pick_device
from maekit.engine.run_folder import new_folder, plain
from maekit.errors import STOPPED, DataError, Interrupted, RecipeError, StorageError
from maekit.progress import counted
from maekit.recipe.schema import MaskerSpec
from maekit.recipe.yaml12 import parse
from maekit.registry import spec_of
from maekit.stop import StopSignal, check
from maekit.visualize.clips import ClipOptions
from maekit.visualize.masks import MaskerMasks, MaskSource, PictureMask, TrainingStepMasks
from maekit.visualize.movies import save
from maekit.visualize.reconstruct import Models, Reconstructor
from maekit.visualize.scores import Scores, dataset_score
from maekit.weights.locate import LocatedWeights, newest_or_demo

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.data.pillow_pages import Alpha
    from maekit.recipe.schema import Recipe
    from maekit.weights.header import Header

SAMPLES = 8  # of a run's set, where none are named
PICTURES = Path("maekit-out")
BAD_FILES = DataError.exit_code
NUMBERS = ("psnr", "ssim", "gain_db", "fills", "truth_statistics", "ceiling", "hidden")
_NEXT_OPTION = re.compile(r",(?=\s*\w+=)")  # a comma within a value is the value's
_IMAGES, _VIDEOS = {"name": "random", "ratio": 0.75}, {"name": "tube", "ratio": 0.9}


@dataclass(frozen=True)
class Hidden:
    """The command line's options about masks."""

    masker: str | None
    ratio: str | None
    mask: Path | None
    seed: int
    like_training: int | None
    whole: bool


def reconstruct(
    inputs: Sequence[str] | None,
    samples: Which | None,
    source: str | None,
    masker: str | None,
    ratio: str | None,
    mask: Path | None,
    seed: int,
    like_training: int | None,
    whole: bool,
    native: bool,
    attention: bool,
    out: Path | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Reconstruct all inputs; return the exit code: 6 where some were bad."""
    hidden = Hidden(masker, ratio, mask, seed, like_training, whole)
    _check_combination(hidden, native=native)
    _ratios(ratio)  # what cannot be done is said before weights are opened
    _refuse_filled(out)
    with shown(quiet=quiet, verbose=verbose) as terminal, StopSignal():
        located = newest_or_demo(source)
        for note in located.notes:
            terminal(Note(note, warning=True))
        recipe = located.recipe()
        where = pick_device(device)
        models = Models(located.source, where)
        tally = Tally()
        if samples is None:
            files = find_files(inputs or (), moving=models.header.clip[0] > 1, tally=tally)
            # Two and four channels are gray and color with transparency.
            alpha: Alpha = "keep" if models.header.channels in (2, 4) else "drop"
            found: Dataset = NamedFiles(files, alpha)
        else:
            found = run_samples(located, samples, inputs or (), terminal, most=SAMPLES)
        masks = _masks(hidden, models, located, recipe)
        if isinstance(masks, MaskerMasks) and not native:
            masks.check(models.model.grid, models.model.backbone.mask_unit)
        folder = empty_folder(out)
        terminal(Note(f"weights: {located.description}; {_described(models)}"))
        announce_left_out("the inputs", tally.left_out, terminal)
        worker = Reconstructor(
            models,
            found,
            masks,
            _clips(recipe, models.header, native=native),
            attention=attention,
            weights=located.caption,
        )
        items, scores, whole_way = _all(worker, found, folder, terminal)
    bad = any(item["error"] is not None for item in items)
    code = STOPPED if not whole_way else BAD_FILES if bad else 0
    result = {
        "verb": "reconstruct",
        "exit": code,
        "weights": located.source,
        "items": items,
        "left_out": tally.left_out,
        "pooled": dataset_score(scores),
    }
    write_result(result, folder)
    if json:
        print_json(plain(result))
    else:
        print_table(("input", "output", "hidden", "psnr", "ssim", "gain_db"), _table(items))
        terminal(Note(f"pictures: {folder}"))
    return code


def _all(
    worker: Reconstructor, inputs: Dataset, folder: Path, terminal: Terminal
) -> tuple[list[dict[str, Any]], list[Scores], bool]:
    """Reconstruct each input, until a signal comes.

    Returns:
        An item for each mask, or one that says why not; scores; whether all inputs were done.
    """
    items: list[dict[str, Any]] = []
    scores: list[Scores] = []
    names = [inputs.name(index) for index in range(len(inputs))]
    with counted("reconstructing", len(inputs), "files") as count:
        for number, (each, stem) in enumerate(zip(names, output_stems(names), strict=True)):
            count(number)
            try:
                check()
                outcome = worker(number)
            except Interrupted:
                done = f"{number:,} of {len(inputs):,} files were done"
                terminal(Note(f"interrupted: {done}", warning=True))
                return items, scores, False
            except (DataError, OSError) as error:
                items.append(_item(each, None, None, _reason(error)))
                terminal(Note(f"{each}: {_reason(error)}", warning=True))
                continue
            for note in outcome.notes:
                terminal(Note(note))
            path = save(outcome, folder, stem)
            for row in outcome.rows:
                items.append(_item(each, path, row.scores, None))
                scores.append(row.scores)
                if not math.isfinite(row.scores.prediction.psnr):
                    text = f"{each}: the model's predictions are not finite"
                    terminal(Note(text, warning=True))
    return items, scores, True


def _item(
    name: str, output: Path | None, scores: Scores | None, error: str | None
) -> dict[str, Any]:
    numbers = dict.fromkeys(NUMBERS) if scores is None else scores.plain()
    item: dict[str, Any] = plain(
        {
            "input": name,
            "output": None if output is None else str(output),
            **numbers,
            "error": error,
        }
    )
    return item


def _reason(error: DataError | OSError) -> str:
    if isinstance(error, DataError):
        return error.what + (f" ({error.hint})" if error.hint else "")
    return f"{type(error).__name__}: {error}"


def _table(items: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (item["input"], item["output"] or item["error"], *map(_number, _shown(item)))
        for item in items
    ]


def _shown(item: dict[str, Any]) -> tuple[float | None, ...]:
    return item["hidden"], item["psnr"], item["ssim"], item["gain_db"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _check_combination(hidden: Hidden, *, native: bool) -> None:
    """Refuse options that would have no effect together with others.

    Raises:
        RecipeError: both are named.
    """
    given = {
        "--mask": hidden.mask is not None,
        "--like-training": hidden.like_training is not None,
        "--masker": hidden.masker is not None,
        "--ratio": hidden.ratio is not None,
        "--whole": hidden.whole,
        "--native": native,
    }
    refused = [("--mask", other) for other in tuple(given)[1:5]]
    refused += [("--like-training", other) for other in tuple(given)[2:]]
    for option, other in refused:
        if given[option] and given[other]:
            msg = f"{option} says what is hidden, and {other} does not go with it"
            raise RecipeError(msg, where="command line", hint="leave one of them out")
    if hidden.like_training is not None and hidden.like_training < 1:
        msg = f"there is no training step {hidden.like_training}"
        raise RecipeError(msg, where="--like-training", hint="steps count from 1")


def _masks(
    hidden: Hidden, models: Models, located: LocatedWeights, recipe: Recipe | None
) -> MaskSource:
    if hidden.mask is not None:
        return PictureMask(hidden.mask)
    if hidden.like_training is not None:
        if recipe is None or located.folder is None:
            msg = f"{located.source} is not a run: it does not say how its masks were drawn"
            hint = "--from RUN, a folder of maekit's"
            raise RecipeError(msg, where="--like-training", hint=hint)
        step = hidden.like_training
        return TrainingStepMasks.of_run(located.folder, recipe, models.model, step)
    still = models.header.clip[0] == 1
    own = models.header.masker or spec_of(MaskerSpec, _IMAGES if still else _VIDEOS)
    spec = own if hidden.masker is None else _masker(hidden.masker)
    ratios = _ratios(hidden.ratio)
    if hidden.masker is not None and ratios and "ratio" in spec.options.model_fields_set:
        msg = f"--masker {hidden.masker} has a ratio already, and --ratio does not go with it"
        raise RecipeError(msg, where="command line", hint="leave one of them out")
    specs = [_with_ratio(spec, ratio) for ratio in ratios] or [spec]
    return MaskerMasks(specs, hidden.seed, whole=hidden.whole)


def _with_ratio(spec: MaskerSpec, ratio: float) -> MaskerSpec:
    return spec_of(MaskerSpec, spec.written | {"ratio": ratio})


def _masker(text: str) -> MaskerSpec:
    """Parse ``tube``, ``tube:0.9`` or ``block:ratio=0.6,aspect=[0.3, 3.3]``; values are YAML.

    Raises:
        RecipeError: it has no name, an option without a value, or one twice.
    """
    name, colon, rest = text.partition(":")
    options: dict[str, object] = {}
    for word in _NEXT_OPTION.split(rest) if colon else ():
        key, value = word.split("=", 1) if "=" in word else ("ratio", word)
        node = parse(value)
        if not key or node is None or key in options or key == "name":
            raise _no_masker(text)
        options[key] = node.plain
    if not name:
        raise _no_masker(text)
    return MaskerSpec.model_validate({"name": name, **options})


def _no_masker(text: str) -> RecipeError:
    hint = "as tube, tube:0.9 or block:ratio=0.6,min_area=4"
    return RecipeError(f"'{text}' is not a masker with options", where="--masker", hint=hint)


def _ratios(text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError as error:
        msg = f"'{text}' is not a list of numbers"
        raise RecipeError(msg, where="--ratio", hint="as in 0.75, or 0.5,0.75,0.9") from error
    for ratio in found:
        if not 0 < ratio < 1:
            msg = f"{ratio:g} is not between 0 and 1: something is hidden, and something is seen"
            raise RecipeError(msg, where="--ratio", hint="as in 0.75, or 0.5,0.75,0.9")
    return found


def _clips(recipe: Recipe | None, header: Header, *, native: bool) -> ClipOptions:
    rendering = Rendering.of_weights(header.range, None if recipe is None else recipe.data)
    if recipe is None:
        return ClipOptions(rendering=rendering, native=native)
    train = recipe.data.train
    return ClipOptions(
        train.stride,
        train.sampling,
        train.rate,
        required_pretrain(recipe).augment.interpolation,
        rendering,
        native,
    )


def _described(models: Models) -> str:
    header = models.header
    t, h, w = header.clip
    target = "none" if header.target is None else header.target.name
    return f"clip {t}x{h}x{w}, target {target}"


def empty_folder(out: Path | None) -> Path:
    """Make or take an empty folder.

    Raises:
        RecipeError: it is not empty.
        StorageError: it cannot be made.
    """
    if out is None:
        return new_folder(Path(), PICTURES.name)
    _refuse_filled(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the folder cannot be made: {error}"
        raise StorageError(msg, where=f"--out {out}", hint="choose another") from error
    return out


def _refuse_filled(out: Path | None) -> None:
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = "not an empty folder" if out.is_dir() else "not a folder"
        raise RecipeError(msg, where=f"--out {out}", hint="give one that is new or empty")


def write_result(result: dict[str, Any], folder: Path) -> None:
    """Write ``result.json`` into a folder.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        write_text(folder / "result.json", as_json(plain(result)))
    except OSError as error:
        msg = f"result.json could not be written: {error}"
        raise StorageError(msg, where=str(folder), hint="free some space") from error
