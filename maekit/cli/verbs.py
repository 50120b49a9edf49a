"""``maekit pretrain``, ``tokenizer`` and ``finetune``: run a verb, and print what it left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from maekit.cli.dry_run import dry_run as rehearse
from maekit.cli.reporters import LoggingBridge, Terminal
from maekit.cli.result import print_result
from maekit.engine import distributed
from maekit.engine.events import Note
from maekit.engine.precision import pick_device
from maekit.engine.resume import is_restarted
from maekit.engine.run import Finished, RunOptions
from maekit.engine.run_folder import PREDICTIONS
from maekit.errors import INTERRUPTED
from maekit.ranks import is_speaker
from maekit.recipe.load import load, read
from maekit.registry import resolve
from maekit.verbs import JOBS, run_verb

if TYPE_CHECKING:
    import torch

    from maekit.recipe.schema import Recipe

# Sets that maekit draws, and the recipe that shows on them what pre-training is worth.
DRAWN = {"sample-images": "drawn_images", "sample-videos": "drawn_videos"}


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
    console = Console(stderr=True, highlight=False, quiet=not is_speaker())
    with closing(Terminal(console, title=verb, quiet=quiet, verbose=verbose)) as terminal:
        for note in loaded.notes:
            terminal(Note(note))
        where = pick_device(device)
        with LoggingBridge(terminal).listening(), distributed.joined(where):
            yield Command(resolved, where, terminal)


def train(  # noqa: PLR0917 - each is an option of the command line
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
    seed: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
    compare_expected: bool = False,
) -> int:
    """Train as a recipe says; return the exit code."""
    words = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    with prepared(verb, recipe, words, device=device, quiet=quiet, verbose=verbose) as command:
        if dry_run:
            kind = JOBS[verb]
            source = kind.find_source(command.recipe, source, command.terminal)
            return rehearse(kind, *command, source=source, json=json)
        resume = resume or is_restarted()
        options = RunOptions(
            out,
            resume,
            overwrite,
            source,
            compare_expected,
            signals=True,
            locks=lock,
            accept_data=accept_data,
        )
        done = run_verb(verb, command.recipe, command.device, options, command.terminal)
    return print_training(verb, done, json=json, quiet=quiet)


def print_training(verb: str, done: Finished, *, json: bool, quiet: bool) -> int:
    """Print what a training left, unless a signal stopped it; return the exit code."""
    result, folder = done
    if result["exit"] == INTERRUPTED:
        return INTERRUPTED
    if not is_speaker():
        return 0
    print_result(
        result, folder, next_steps=NEXT_STEPS[verb](result, folder), json=json, quiet=quiet
    )
    return 0


def _after_pretraining(result: Mapping[str, Any], folder: Path) -> list[str]:
    """Name what the run is good for now: pictures, its page, labels where the recipe has them."""
    recipe = load(folder / "recipe.yaml").recipe
    drawn = recipe.data.train.name in DRAWN
    file = "clip.mp4" if recipe.data.train.frames > 1 else "photo.jpg"
    lines = [
        f"next:     maekit reconstruct {file} --from {folder}",
        f"          maekit report {folder}",
    ]
    if recipe.finetune is not None:
        lines.append(f"          maekit finetune {recipe.name} --from {folder}")
    elif drawn:
        name = result["recipe"]
        kind = "videos" if recipe.data.train.frames > 1 else "images"
        own = f"data.train.name={kind} data.train.path=FOLDER ~data.val"
        lines.append(f"          maekit pretrain {name} {own}")
        lines.append(
            "          too short to learn features by, a first look only; what pre-training is "
            f"worth shows\n          in minutes: maekit pretrain {DRAWN[recipe.data.train.name]}"
        )
    lines.append(f"python:   import maekit; model = maekit.load({str(folder)!r})")
    return lines


def _after_finetuning(_result: Mapping[str, Any], folder: Path) -> list[str]:
    return [
        f"scores:   {folder / PREDICTIONS}",
        f"python:   import maekit; model, header = maekit.load_classifier({str(folder)!r})",
    ]


def _after_tokenizer(result: Mapping[str, Any], folder: Path) -> list[str]:
    target = f"pretrain.target={{name: dvae-token, weights: {folder}, "
    sizes = f"vocabulary: {result['vocabulary']}, stride: {result['stride']}}}"
    return [f'next:     maekit pretrain RECIPE "{target}{sizes}"']


# What to type next, after a run has finished.
NEXT_STEPS: dict[str, Callable[[Mapping[str, Any], Path], list[str]]] = {
    "pretrain": _after_pretraining,
    "finetune": _after_finetuning,
    "tokenizer": _after_tokenizer,
    "probe": lambda _, folder: [f"scores:   {folder / PREDICTIONS}"],
}
