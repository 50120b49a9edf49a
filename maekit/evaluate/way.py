"""By which recipe a classifier's samples are read, and how many views of each are judged.

It is the run's own, one that is named, or none, which means the center view.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from maekit.engine.batches import open_dataset, open_sets
from maekit.engine.events import Emit, Note
from maekit.errors import RecipeError
from maekit.recipe.load import LoadedRecipe, Source, read, with_overlays
from maekit.recipe.merge import CORE_OWNED, is_split, merge
from maekit.recipe.yaml12 import COMMAND_LINE, Mark, Node, tree
from maekit.registry import resolve
from maekit.runs import run_of
from maekit.weights.locate import is_foreign

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.recipe.schema import Recipe
    from maekit.weights.header import ClassifierHeader
    from maekit.weights.importer import Weights

VERB = "evaluate"
VAL = "data.val"
STRIDE = 4  # of clips of a video model without a recipe: VideoMAE's on Kinetics, and on AVA
RATE = 25  # frames a second of those around a moment: VideoMAE's on AVA
TWO_FIFTY_SIX = 8 / 7  # of MAE's test: the short side becomes 256 pixels for 224
_OF_FILES = ("images", "videos")
_BOXES = "ava"
# Options of its that say how movies lie, and what actions are called.
_OF_MOVIES = frozenset({"videos", "layout", "start", "frame_rate", "actions", "classes"})
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
    boxes = described.roi is not None
    source = request.recipe if request.recipe is not None else _own_recipe(request.source)
    bare = source is None
    if source is None:
        source = _bare_recipe(request.source, weights, emit, boxes=boxes)
    loaded = read(source, request.overrides)
    for note in loaded.notes:
        emit(Note(note))
    trained = _section(loaded, described)
    if trained is None:
        trained = "finetune"
        loaded = _laid_over(loaded, {trained: {"epochs": 1}})
        if not boxes:
            emit(Note("the recipe neither fine-tunes nor probes: the center view is judged"))
    loaded = with_overlays(loaded, trained)
    frames = weights.header.clip[0]
    if request.data is not None:
        loaded = _with_set(request.data, loaded, frames, boxes=boxes)
    if request.views is not None:
        clips, crops = request.views
        loaded = _laid_over(loaded, {trained: {"views": {"clips": clips, "crops": crops}}})
    val_node = loaded.tree.at(("data", "val"))
    if val_node is None or not val_node.fields or (bare and "path" not in val_node.fields):
        msg = "no labeled samples are named"
        hint = "--data FOLDER (a folder of each class below it) or --data LIST (path and class)"
        if boxes:
            hint = "--data LIST (AVA's CSV, or video,second,x1,y1,x2,y2,label with a header)"
        raise RecipeError(msg, where="--data", hint=hint)
    if bare:
        loaded = _laid_over(loaded, {"data": {"train": {**_plain(val_node), "frames": frames}}})
    return Way(resolve(loaded, trained), trained, bare)


def _with_set(path: str, loaded: LoadedRecipe, frames: int, *, boxes: bool) -> LoadedRecipe:
    """Return the recipe with other samples as data.val."""
    if boxes:
        return _with_boxes(path, loaded)
    return _laid_over(loaded, {"data": {"val": _given_set(path, loaded, frames)}})


def judged_set(recipe: Recipe, emit: Emit) -> Dataset:
    """Open data.val alone, as data.train need not be there; unless it is a share of that."""
    spec = recipe.data.val
    assert spec is not None  # noqa: S101 - way_of saw to it
    if spec.held_out is None:
        return open_dataset(spec, VAL)
    val = open_sets(recipe, emit)[1]
    assert val is not None  # noqa: S101 - it is asked for
    return val


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


def _with_boxes(path: str, loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe with another list of boxes as data.val.

    Clips are taken, and movies found, as those of the recipe's data.val; where that has no movies
    of its own, they lie beside the list. Its lists of persons and seconds are of other movies, and
    are dropped; what the command line says of data.val stays.
    """
    val, train = (loaded.tree.at(("data", key)) for key in ("val", "train"))
    given = {} if val is None else val.fields
    before = train.fields if val is not None and train is not None and is_split(val) else given
    known = before.get("name")
    of_movies = _OF_MOVIES if known is not None and known.value == _BOXES else frozenset()
    kept = {key: each for key, each in before.items() if key in CORE_OWNED | of_movies}
    kept |= {key: each for key, each in given.items() if key in CORE_OWNED}
    typed = {key: each for key, each in given.items() if each.mark == COMMAND_LINE}
    own: dict[str, Any] = {"name": _BOXES, "videos": os.path.dirname(path) or ".", "path": path}  # noqa: PTH120
    data = loaded.tree.at(("data",)) or tree({}, _MARK)
    other = tree(own, _MARK).fields | kept | typed | {"path": tree(path, _MARK)}
    merged = Node(data.fields | {"val": Node(other, _MARK)}, data.mark)
    return replace(loaded, tree=Node(loaded.tree.fields | {"data": merged}, loaded.tree.mark))


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


def _bare_recipe(source: str, weights: Weights, emit: Emit, *, boxes: bool) -> dict[str, Any]:
    """Describe how samples are read for weights that come with no recipe."""
    header = weights.header
    frames, height, width = header.clip
    val: dict[str, Any] = {"name": _OF_FILES[frames > 1]}
    finetune: dict[str, Any] = {"epochs": 1}
    others = weights.foreign or not str(header.source).startswith("maekit")
    if boxes:
        val = {"name": _BOXES, "stride": STRIDE, "sampling": "centered", "rate": RATE}
        finetune["head"] = {"kind": "detection"}
        text = f"the clip of {frames} frames around each moment, {RATE} a second at stride {STRIDE}"
    elif frames > 1:
        val["stride"] = STRIDE
        text = f"the center clip of {frames} frames at stride {STRIDE}"
    else:
        if others:  # main_finetune.py's build_transform
            enlarge = TWO_FIFTY_SIX if max(height, width) <= 224 else 1.0
            finetune["views"] = {"resize": "whole-pixels", "enlarge": enlarge}
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
        "finetune": finetune,
    }


def _section(loaded: LoadedRecipe, described: ClassifierHeader) -> Trained | None:
    """Return the section that such a classifier is judged by: a probe's has a batch norm."""
    order: tuple[Trained, Trained] = ("finetune", "probe")
    fields = loaded.tree.fields
    there = [key for key in order if key in fields and fields[key].value is not None]
    if described.batch_norm and "probe" in there:
        return "probe"
    if described.roi is not None:  # no probe has boxes
        there = [key for key in there if key == "finetune"]
    return there[0] if there else None


def _laid_over(loaded: LoadedRecipe, more: dict[str, Any]) -> LoadedRecipe:
    return replace(loaded, tree=merge(loaded.tree, tree(more, _MARK)))
