"""``maekit pretrain``, ``tokenizer`` and ``finetune``: run a verb, and print what it left."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit.cli.declare import PLANNED
from maekit.cli.dry_run import Asked
from maekit.cli.dry_run import dry_run as rehearse
from maekit.cli.reporters import Terminal, shown
from maekit.cli.result import print_result
from maekit.engine import distributed
from maekit.engine.events import Note
from maekit.engine.extension import Request
from maekit.engine.precision import pick_device
from maekit.engine.resume import is_restarted
from maekit.engine.run import Finished, RunOptions
from maekit.engine.run_folder import BOXES, PREDICTIONS
from maekit.errors import INTERRUPTED, RecipeError
from maekit.ranks import is_speaker
from maekit.recipe.load import load, read
from maekit.registry import resolve
from maekit.verbs import job_of, run_verb

if TYPE_CHECKING:
    import torch

    from maekit.recipe.schema import Recipe

# Sets that maekit draws, and the recipe that shows on them what pre-training is worth; on clips no
# recipe of minutes does (recipes/measurements.md).
DRAWN = {"sample-images": "drawn_images", "sample-videos": None}


class Command(NamedTuple):
    """What a verb on the command line runs with."""

    recipe: Recipe
    device: torch.device
    terminal: Terminal


@contextmanager
def prepared(
    verb: str, recipe: str, overrides: list[str], *, device: str | None, quiet: bool, verbose: bool
) -> Iterator[Command]:
    """Resolve a recipe, and show on the terminal what happens while the context lasts."""
    loaded = read(recipe, overrides)
    resolved = resolve(loaded, verb)
    with shown(verb, quiet=quiet, verbose=verbose) as terminal:
        for note in loaded.notes:
            terminal(Note(note))
        where = pick_device(device)
        with distributed.joined(where):
            yield Command(resolved, where, terminal)


def train(
    verb: str,
    recipe: str,
    overrides: list[str] | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    accept_data: bool,
    lock: bool,
    source: str | None,
    dry_run: bool,
    samples: int | None,
    device_memory: float | None,
    seed: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
    extend: str | None = None,
    extend_as: str | None = None,
    compare_expected: bool = False,
) -> int:
    """Train as a recipe says; return the exit code."""
    words = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    resume = resume or is_restarted()
    extension = extension_of(verb, extend, extend_as, resume=resume, dry_run=dry_run)
    words = words if extension is None else extension.words(words)
    with prepared(verb, recipe, words, device=device, quiet=quiet, verbose=verbose) as command:
        if dry_run:
            kind, asked = job_of(verb, command.recipe), Asked(samples, PLANNED.get(), device_memory)
            source = kind.find_source(command.recipe, source, command.terminal)
            return rehearse(kind, *command, source=source, json=json, asked=asked)
        refuse_without_dry_run(samples, device_memory)
        options = RunOptions(
            out,
            resume,
            overwrite,
            source,
            compare_expected,
            signals=True,
            locks=lock,
            accept_data=accept_data,
            extend=None if extension is None else extension.how,
        )
        done = run_verb(verb, command.recipe, command.device, options, command.terminal)
    return print_training(verb, recipe, done, json=json, quiet=quiet)


def extension_of(
    verb: str, extend: str | None, how: str | None, *, resume: bool, dry_run: bool
) -> Request | None:
    """Understand ``--extend`` and ``--extend-as``.

    Raises:
        RecipeError: they cannot be followed.
    """
    if extend is not None and dry_run:
        msg = "a dry run is of a run from its start"
        raise RecipeError(msg, where="--extend", hint="leave one of them out")
    return Request.of(verb, extend, how, resume=resume)


def refuse_without_dry_run(samples: int | None, memory: float | None) -> None:
    """Refuse options that only a dry run reads.

    Raises:
        RecipeError: one is given.
    """
    given = {"--samples": samples, "--device-memory": memory}
    for name, value in given.items():
        if value:
            msg = f"{name} is of a dry run: it changes nothing else"
            raise RecipeError(msg, where="command line", hint="add --dry-run, or leave it out")


def print_training(verb: str, recipe: str, done: Finished, *, json: bool, quiet: bool) -> int:
    """Print what a training left, unless a signal stopped it; return the exit code.

    Args:
        verb: the command.
        recipe: as it was named on the command line.
        done: what the run left.
        json: print result.json.
        quiet: print the numbers alone.
    """
    result, folder = done
    if result["exit"] == INTERRUPTED:
        return INTERRUPTED
    if not is_speaker():
        return 0
    next_steps = NEXT_STEPS[verb](recipe, result, folder)
    print_result(result, folder, next_steps=next_steps, json=json, quiet=quiet)
    return 0


def _after_pretraining(recipe: str, _result: Mapping[str, Any], folder: Path) -> list[str]:
    """Name what the run is good for now: pictures, its page, what the recipe has sections for."""
    made, where = load(folder / "recipe.yaml").recipe, shlex.quote(str(folder))
    file = "clip.mp4" if made.data.train.frames > 1 else "photo.jpg"
    lines = [
        f"next:     maekit reconstruct {file} --from {where}",
        f"          maekit report {where}",
    ]
    judges = [verb for verb in ("finetune", "probe") if getattr(made, verb) is not None]
    lines += [f"          maekit {verb} {shlex.quote(recipe)} --from {where}" for verb in judges]
    if made.data.train.name in DRAWN:
        lines.append("          maekit recipes new FOLDER   # a recipe for your own files")
        if made.finetune is None:
            lines.append("          too short to learn features by: a first look only")
            better = DRAWN[made.data.train.name]
            if better is not None:
                worth = "what pre-training is worth shows in minutes"
                lines.append(f"          {worth}: maekit pretrain {better}")
    lines.append(f"python:   import maekit; model = maekit.load({str(folder)!r})")
    return lines


def _after_finetuning(_recipe: str, result: Mapping[str, Any], folder: Path) -> list[str]:
    if "dialect" in result:
        return [
            f"next:     maekit report {shlex.quote(str(folder))}",
            f"boxes:    {folder / BOXES}",
        ]
    return [
        f"next:     maekit report {shlex.quote(str(folder))}",
        f"scores:   {folder / PREDICTIONS}",
        f"python:   import maekit; model, header = maekit.load_classifier({str(folder)!r})",
    ]


def _after_tokenizer(_recipe: str, result: Mapping[str, Any], folder: Path) -> list[str]:
    target = f"pretrain.target={{name: dvae-token, weights: {folder}, "
    sizes = f"vocabulary: {result['vocabulary']}, stride: {result['stride']}}}"
    return [f'next:     maekit pretrain RECIPE "{target}{sizes}"']


# What to type next, after a run has finished.
NEXT_STEPS: dict[str, Callable[[str, Mapping[str, Any], Path], list[str]]] = {
    "pretrain": _after_pretraining,
    "finetune": _after_finetuning,
    "tokenizer": _after_tokenizer,
    "probe": lambda _recipe, _result, folder: [f"scores:   {folder / PREDICTIONS}"],
}
