"""By which recipe a classifier's samples are read, and how many views of each are judged.

It is the run's own, one that is named, or none, which means the center view.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from maekit.engine.events import Emit, Note
from maekit.errors import RecipeError
from maekit.recipe.load import LoadedRecipe, Source, read, with_overlays
from maekit.recipe.merge import CORE_OWNED, is_split, merge
from maekit.recipe.yaml12 import Mark, Node, tree
from maekit.registry import resolve
from maekit.runs import run_of
from maekit.weights.locate import is_foreign

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe
    from maekit.weights.header import ClassifierHeader
    from maekit.weights.importer import Weights

VERB = "evaluate"
STRIDE = 4  # of clips of a video model without a recipe: VideoMAE's on Kinetics
TWO_FIFTY_SIX = 8 / 7  # of MAE's test: the short side becomes 256 pixels for 224
_OF_FILES = ("images", "videos")
_MARK = Mark("maekit evaluate")
Trained = Literal["finetune", "probe"]


class Request(NamedTuple):
    """What is to be judged, and how.

    Attributes:
        source: weights of a classifier: a run, a file of maekit or of others.
        recipe: whose data and views count; None: those of the weights' run, or one view.
        overrides: of the recipe.
        data: the labeled set: a folder or a list; None: the recipe's data.val.
        views: clips and crops of each sample; None: the recipe's.
        classes: names of the outputs, where the weights have none.
        named_in: the file that they were read from.
    """

    source: str
    recipe: Source | None = None
    overrides: Sequence[str] = ()
    data: str | None = None
    views: tuple[int, int] | None = None
    classes: tuple[str, ...] | None = None
    named_in: Path | None = None

    def again(self, path: Path, *, locks: bool) -> str:
        """Return what to type to go on in a run's folder."""
        words: list[object] = ["maekit", VERB, self.source, *self.overrides]
        views = None if self.views is None else "{}x{}".format(*self.views)
        given = {"--data": self.data, "--recipe": self.recipe, "--views": views}
        for option, value in (given | {"--classes": self.named_in}).items():
            words += [] if value is None else [option, value]
        if isinstance(self.recipe, Mapping) or (self.classes and self.named_in is None):
            return f"the same call with resume=True, out={str(path)!r}"  # made from Python
        words += ["--resume", "--out", path, *([] if locks else ["--no-lock"])]
        return shlex.join(map(str, words))


class Way(NamedTuple):
    """How samples are read and judged.

    Attributes:
        recipe: resolved for the verb of its section.
        section: which one says how many views count.
        bare: there is no recipe: this one was made up.
    """

    recipe: Recipe
    section: Trained
    bare: bool


def way_of(request: Request, weights: Weights, described: ClassifierHeader, emit: Emit) -> Way:
    """Return the recipe by which samples are read, and the section of it that says how.

    Raises:
        RecipeError: no labeled set is named, or the recipe is wrong.
    """
    source = request.recipe if request.recipe is not None else _own_recipe(request.source)
    bare = source is None
    if source is None:
        source = _bare_recipe(request.source, weights, emit)
    loaded = read(source, request.overrides)
    for note in loaded.notes:
        emit(Note(note))
    trained = _section(loaded, described)
    if trained is None:
        trained = "finetune"
        loaded = _laid_over(loaded, {trained: {"epochs": 1}})
        emit(Note("the recipe neither fine-tunes nor probes: the center view is judged"))
    loaded = with_overlays(loaded, trained)
    frames = weights.header.clip[0]
    if request.data is not None:
        loaded = _laid_over(loaded, {"data": {"val": _given_set(request.data, loaded, frames)}})
    if request.views is not None:
        clips, crops = request.views
        loaded = _laid_over(loaded, {trained: {"views": {"clips": clips, "crops": crops}}})
    val_node = loaded.tree.at(("data", "val"))
    if val_node is None or not val_node.fields or (bare and "path" not in val_node.fields):
        msg = "no labeled samples are named"
        hint = "--data FOLDER (a folder of each class below it) or --data LIST (path and class)"
        raise RecipeError(msg, where="--data", hint=hint)
    if bare:
        loaded = _laid_over(loaded, {"data": {"train": {**_plain(val_node), "frames": frames}}})
    return Way(resolve(loaded, trained), trained, bare)


def _given_set(path: str, loaded: LoadedRecipe, frames: int) -> dict[str, Any]:
    """Return data.val of other files, whose clips are taken as those of the recipe's data.val."""
    val, train = (loaded.tree.at(("data", key)) for key in ("val", "train"))
    before, clips = val, {}
    if val is not None and train is not None and is_split(val):  # which has what data.train has
        before = train
        clips = {key: each for key, each in _plain(train).items() if key in CORE_OWNED}
        clips |= {key: each for key, each in _plain(val).items() if key in CORE_OWNED}
    named = None if before is None else before.fields.get("name")
    name = None if named is None else named.value
    return clips | {"name": name if name in _OF_FILES else _OF_FILES[frames > 1], "path": path}


def _plain(node: Node) -> dict[str, Any]:
    return {key: each.plain for key, each in node.fields.items()}


def _own_recipe(source: str) -> Path | None:
    """Return the recipe of the run that weights lie in, if they do."""
    path = Path(source)
    if is_foreign(source):
        return None
    folder = path if path.is_dir() else run_of(path)
    found = None if folder is None else folder / "recipe.yaml"
    return found if found is not None and found.is_file() else None


def _bare_recipe(source: str, weights: Weights, emit: Emit) -> dict[str, Any]:
    """Describe how samples are read for weights that come with no recipe."""
    header = weights.header
    frames, height, width = header.clip
    val: dict[str, Any] = {"name": _OF_FILES[frames > 1]}
    views: dict[str, Any] = {}
    others = weights.foreign or not str(header.source).startswith("maekit")
    if frames > 1:
        val["stride"] = STRIDE
        text = f"the center clip of {frames} frames at stride {STRIDE}"
    else:
        if others:  # main_finetune.py's build_transform
            views = {"resize": "whole-pixels"}
            views["enlarge"] = TWO_FIFTY_SIX if max(height, width) <= 224 else 1.0
        text = "the center of each picture"
    emit(Note(f"no recipe: {text} is judged; --recipe NAME reads and judges as that one does"))
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(source).stem).lstrip("_.-") or "weights"
    return {
        "name": name,
        "data": {
            "val": val,
            "size": [height, width],
            "channels": header.channels,
            "stats": {"mean": list(header.mean), "std": list(header.std)},
        },
        "finetune": {"epochs": 1, "views": views},
    }


def _section(loaded: LoadedRecipe, described: ClassifierHeader) -> Trained | None:
    """Return the section that such a classifier is judged by: a probe's has a batch norm."""
    order: tuple[Trained, Trained] = ("finetune", "probe")
    fields = loaded.tree.fields
    there = [key for key in order if key in fields and fields[key].value is not None]
    if described.batch_norm and "probe" in there:
        return "probe"
    return there[0] if there else None


def _laid_over(loaded: LoadedRecipe, more: dict[str, Any]) -> LoadedRecipe:
    return replace(loaded, tree=merge(loaded.tree, tree(more, _MARK)))
