"""What a head says of its classifier, and the names of its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from maekit.errors import RecipeError, WeightsError
from maekit.layers import LAYER_NORM_EPS
from maekit.weights.header import ClassifierHeader, RoI

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from maekit.weights.formats import Layout
    from maekit.weights.hints import FileHints, UserHints

_LONGEST = 1 << 24  # characters
_HINT = (
    "lines with one name each, in the order of the outputs; or JSON: a list of names, or an object "
    "of numbers and names"
)
_MOST_OUTPUTS = 1 << 20
HEAD = "classifier.head.linear.weight"


def describe_classifier(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    file_hints: FileHints,
    user_hints: UserHints,
    where: str,
) -> tuple[ClassifierHeader, list[str]]:
    """Describe the classifier that these tensors hold; outputs without a name are numbers.

    Returns:
        The description, and notes on what had to be assumed.

    Raises:
        WeightsError: the head is no matrix.
        RecipeError: the user names more classes, or fewer, than the head has.
    """
    shape = tuple(tensors[HEAD].shape)
    if len(shape) != 2 or 0 in shape:
        msg = f"the head's weight is {list(shape)} in the file: expected outputs x width"
        raise WeightsError(msg, where=where, hint="give an unchanged file")
    if shape[0] > _MOST_OUTPUTS:
        msg = f"the head has {shape[0]:,} outputs"
        raise WeightsError(msg, where=where, hint="is it a classifier? --allow-missing 'head.*'")
    notes, count = [], shape[0]
    known = file_hints.classes
    outputs = known if known is not None and usable_names(known, count) else numbers(count)
    if user_hints.classes is not None:
        outputs = named(user_hints.classes, count)
    elif outputs is not known:
        notes.append(
            f"the file does not name its {count} classes: they are called 0 to {count - 1}; "
            "--classes FILE names them"
        )
    if layout.boxes:
        notes.append(
            "boxes are pooled as officially, 7 x 7 bins that are not aligned; pixel statistics are "
            "taken to be Caffe's, as in VideoMAE-Action-Detection"
        )
    described = ClassifierHeader(
        kind="detection" if layout.boxes else "multiclass",
        outputs=outputs,
        pool=layout.pool,
        norm=layout.norm,
        dropout=file_hints.dropout or 0.0,
        batch_norm=layout.batch_norm,
        norm_eps=LAYER_NORM_EPS if file_hints.pooled_eps is None else file_hints.pooled_eps,
        roi=RoI() if layout.boxes else None,
    )
    return described, notes


def numbers(count: int) -> tuple[str, ...]:
    """Return the names of outputs that have none: 0, 1, and so on."""
    return tuple(map(str, range(count)))


def usable_names(names: Sequence[str], count: int) -> bool:
    """Return whether names are as many as outputs, and all different."""
    return len(names) == len(set(names)) == count


def named(classes: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return the user's names of a classifier's outputs.

    Raises:
        RecipeError: there are more or fewer than outputs, or one is there twice.
    """
    if usable_names(classes, count):
        return classes
    what = f"{len(classes)} names, {len(set(classes))} of them different, for {count} outputs"
    hint = "one name for each output, in the order in which it was trained"
    raise RecipeError(what, where="--classes", hint=hint)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read names in the order of outputs: lines, a JSON list, or a JSON object with numbers.

    The object may be {"0": name}, {"0": [name, more]} (imagenet_class_index.json) or {name: 0}.

    Raises:
        RecipeError: there is no such file, or it is nothing of this.
    """
    if not path.is_file():
        raise RecipeError(f"no such file: {path}", where="--classes", hint=_HINT)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST)
        found = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"not readable: {error}", where=str(path), hint=_HINT) from error
    names = _numbered(found) if isinstance(found, Mapping) else found
    if isinstance(names, list):
        stripped = [name.strip() if isinstance(name, str) else "" for name in names]
        while stripped and not stripped[-1]:
            stripped.pop()
        if stripped and all(stripped):
            return tuple(stripped)
    raise RecipeError("these are no names of classes", where=str(path), hint=_HINT)


def _numbered(found: Mapping[str, object]) -> list[object] | None:
    """Put what belongs to the numbers 0, 1, ... in order; None where one is missing."""
    if all(isinstance(value, int) for value in found.values()):
        found = {str(number): name for name, number in found.items()}
    first = {
        key: value[0] if isinstance(value, list) and value else value
        for key, value in found.items()
    }
    numbers = [str(number) for number in range(len(first))]
    return [first[number] for number in numbers] if first.keys() == set(numbers) else None
