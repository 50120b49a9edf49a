"""What a head says of its classifier, and the names of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from maekit.errors import RecipeError, WeightsError
from maekit.weights.header import ClassifierHeader

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.foreign import FileHints, UserHints
    from maekit.weights.formats import Layout

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
    described = ClassifierHeader(
        kind="multiclass",
        outputs=outputs,
        pool=layout.pool,
        norm=layout.norm,
        dropout=file_hints.dropout or 0.0,
        batch_norm=layout.batch_norm,
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
