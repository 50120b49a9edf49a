"""The fingerprint of a run: all that a perturbed key may change.

That is everything but recipe.yaml: exit code, losses, learning rates, gradient norms, held-out
errors, the first batches, files, notes, and what was asked of loader and torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from small_recipes import Recipe, sets, write_recipe

from maekit.cli.app import main
from maekit.data import loader
from maekit.engine import step
from maekit.engine.run_folder import read_lines
from maekit.evaluate import online_probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Fingerprint(NamedTuple):
    """What a run leaves, but recipe.yaml."""

    code: int
    rest: str


NUMBERS = ("top1", "floor", "floor_top5", "fitted", "single_view")  # of result.json


def run(
    verb: str,
    recipe: Recipe,
    words: Sequence[str],
    where: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> Fingerprint:
    """Run a verb in a folder of its own.

    Args:
        verb: as on the command line.
        recipe: what ``words`` are laid over.
        words: the rest of the command line.
        where: the folder, to be made.
        folder: holds what the recipe reads; stands for ``FOLDER`` in the words.
        capsys: of the test.
    """
    where.mkdir()
    path = write_recipe(where / "base.yaml", recipe, sets(folder))
    words = [word.replace("FOLDER", str(folder)) for word in words]
    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        _watch(patch, asked)
        with pytest.raises(SystemExit) as ended:
            main([verb, path, *words])
    heard = capsys.readouterr().err
    heard = re.sub(r"[\d.]+ samples/s.*|/\S+|left.*", "", heard)
    runs = list((where / "runs").glob("*/1"))
    rest = [what for run in runs for what in (_curves(run), _files(run), _judged(run))]
    code = ended.value.code
    assert isinstance(code, int)
    return Fingerprint(code, json.dumps([rest, heard, asked], default=str))


def _curves(run: Path) -> list[Any]:
    keys = ("step", "loss", "lr", "grad_norm", "holdout")
    return [{key: line.get(key) for key in keys} for line in read_lines(run / "metrics.jsonl")]


def _files(run: Path) -> list[Any]:
    found = []
    for path in sorted(run.rglob("*")):
        size = Image.open(path).size if path.suffix == ".png" else None
        if "tensorboard" not in path.parts:
            found.append((str(path.relative_to(run.parents[1])), size))
    return found


def _judged(run: Path) -> list[Any]:
    """Return what was made of each sample, and the numbers of it."""
    predictions, result = run / "predictions.jsonl", run / "result.json"
    found: list[Any] = [predictions.read_text() if predictions.exists() else ""]
    if result.exists():
        numbers = json.loads(result.read_text())
        found += [numbers.get(key) for key in NUMBERS]
    return found


def _watch(patch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    """Note what is asked of the loader and of torch, and what the first batches hold."""
    plain_init, plain_iter = loader.Loader.__init__, loader.Loader.__iter__
    plain_checkpoint, plain_scores = step.checkpoint, online_probe.OnlineProbe._scores

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        asked.append([kwargs["workers"], kwargs["timeout"]])
        plain_init(self, *args, **kwargs)

    def iterate(self: Any) -> Iterator[Any]:
        for batch in plain_iter(self):
            parts = [*batch.views, batch.hidden, batch.decode, batch.labels]
            digest = hashlib.sha256()
            for part in parts:
                is_array = isinstance(part, np.ndarray)  # labels are any objects
                digest.update(part.tobytes() if is_array else repr(part).encode())
            asked.append(digest.hexdigest())
            yield batch

    def scored(self: Any, *args: Any) -> Any:
        scores = plain_scores(self, *args)
        asked.append(scores.flatten().tolist())
        return scores

    def compiled(function: Any) -> Any:
        asked.append("torch.compile")
        return function

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        asked.append("recomputed")
        return plain_checkpoint(*args, **kwargs)

    patch.setattr(loader.Loader, "__init__", init)
    patch.setattr(loader.Loader, "__iter__", iterate)
    patch.setattr(online_probe.OnlineProbe, "_scores", scored)
    patch.setattr(torch, "compile", compiled)
    patch.setattr(step, "checkpoint", recomputed)
