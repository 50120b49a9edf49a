"""A model card: what a classifier is, its data, how good it is, and whose weights it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.engine.resume import recorded_source
from maekit.errors import MaekitError
from maekit.runs import read_result, run_of
from maekit.version import __version__
from maekit.weights.locate import local_path

if TYPE_CHECKING:
    from maekit.evaluate.scorer import Scorer

_MEASURES = ("top1", "top5", "map", "exact", "r2", "mse", "mae")
_MOST_CLASSES = 50
_LONGEST_CHAIN = 10


def card(scorer: Scorer, source: str, about: Mapping[str, Any], snippet: str) -> str:
    """Write a card in Markdown.

    Args:
        scorer: of the classifier.
        source: of its weights, as they were named.
        about: what ``served.preprocessing`` returned.
        snippet: the Python that runs it.
    """
    folder = _run(source)
    name = scorer.recipe.name
    parts = [
        f"# {name}\n",
        *_what(about),
        *_data(scorer),
        *_numbers(folder),
        *_origin(source, about),
    ]
    parts += ["## Use it\n", f"```python\n{snippet}```\n", f"Written by maekit {__version__}.\n"]
    return "\n".join(parts)


def _what(about: Mapping[str, Any]) -> Iterator[str]:
    kind = {"multiclass": "one class", "multilabel": "any number of labels", "regression": "values"}
    height, width = about["size"]
    things = f"clips of {about['frames']} frames" if about["frames"] > 1 else "pictures"
    size = f"{height} x {width} pixels, {about['channels']} channels"
    yield f"Predicts {kind[about['kind']]} of {things}, {size}.\n"
    classes = about["classes"]
    shown = ", ".join(classes[:_MOST_CLASSES])
    more = f", and {len(classes) - _MOST_CLASSES:,} more" if len(classes) > _MOST_CLASSES else ""
    yield f"{len(classes):,} outputs: {shown}{more}.\n"


def _data(scorer: Scorer) -> Iterator[str]:
    if scorer.way.bare:
        return
    recipe = scorer.recipe
    yield "## Data\n"
    for key, spec in (("train", recipe.data.train), ("val", recipe.data.val)):
        if spec is not None:
            path = getattr(spec.options, "path", None)
            yield f"- data.{key}: {spec.name}{'' if path is None else f', {Path(path).name}'}"
    yield f"\nRecipe: {recipe.name}, seed {recipe.seed}; recipe.yaml of the run has all of it.\n"


def _numbers(folder: Path | None) -> Iterator[str]:
    result = {} if folder is None else read_result(folder)
    found = [(key, result[key]) for key in _MEASURES if isinstance(result.get(key), float)]
    if not found:
        return
    yield f"## Numbers\n\nOn data.val, by {result.get('protocol', 'its own protocol')}:\n"
    yield "| measure | value |\n|---|---|"
    yield from (f"| {key} | {value:.4f} |" for key, value in found)
    floor = result.get("floor")
    if isinstance(floor, dict):
        yield from (f"| floor: {key} | {value:.4f} |" for key, value in floor.items()
                    if isinstance(value, float))  # fmt: skip
    yield ""


def _origin(source: str, about: Mapping[str, Any]) -> Iterator[str]:
    """Say where weights come from, through all runs that began from another one's."""
    yield "## Weights\n"
    yield f"- {about['source'] or source}"
    yield from (f"- which began from {each}" for each in chain(source))
    yield f"- license: {about['license'] or 'none stated; ask whoever trained it'}\n"


def chain(source: str) -> list[str]:
    """Return the weights that a run's began from, those that these began from, and so on."""
    found: list[str] = []
    folder = _run(source)
    while folder is not None and len(found) < _LONGEST_CHAIN:
        try:
            before = recorded_source(folder)
        except MaekitError:
            break
        if before is None or before in found:
            break
        found.append(before)
        folder = _run(before)
    return found


def _run(source: str) -> Path | None:
    path = local_path(source)
    if path is None or not path.exists():
        return None
    return path if path.is_dir() else run_of(path)
