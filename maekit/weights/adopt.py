"""A foreign file becomes maekit's: recognized, held to 100 %, renamed, described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.errors import WeightsError
from maekit.weights.foreign import Foreign
from maekit.weights.formats import Recognized, recognize
from maekit.weights.header import Header
from maekit.weights.hints import Given, hints_of
from maekit.weights.infer import infer
from maekit.weights.keymap import to_ours
from maekit.weights.report import Report, allowed

if TYPE_CHECKING:
    from torch import Tensor

# Of what each project has released; a file that somebody trained with its code is their own.
LICENSES = {
    "mae": "not in the file; facebookresearch/mae's own releases: CC BY-NC 4.0",
    "videomae": "not in the file; MCG-NJU/VideoMAE's own releases: CC BY-NC 4.0",
    "mae_st": "not in the file; facebookresearch/mae_st's own releases: CC BY-NC 4.0",
}


@dataclass(frozen=True)
class Weights:
    """Weights under maekit's names, and what they are of.

    Attributes:
        header: of a foreign file, what could be found out: ``target`` may be None (unknown).
        tensors: under the names of ``MaskedAutoencoder.state_dict``.
        origin: what was opened, for people.
        report: what became of each tensor.
        foreign: whether somebody else wrote them; then options that leave no trace in weights
            (initialization) are not known.
        fresh: tensors that the file lacks and that may start afresh, because the user allowed it.
    """

    header: Header
    tensors: dict[str, Tensor]
    origin: str
    report: Report
    foreign: bool = False
    fresh: frozenset[str] = frozenset()


def read_foreign(found: Foreign, given: Given, allow_missing: Sequence[str] = ()) -> Weights:
    """A foreign file's tensors under our names, with the header that describes them.

    Raises:
        WeightsError: not recognized, or not complete.
    """
    seen = _recognized(found)
    report = report_of(found, seen)
    report.check(found.where, allow_missing)
    tensors = _mapped(found, seen)
    inferred = infer(
        tensors, seen.format.family, hints_of(found, seen.format.family), given, found.where
    )
    fresh = frozenset(rule.ours for rule in seen.rules if rule.ours not in tensors)
    notes = [*report.notes, *inferred.notes]
    if inferred.header.decoder is None:
        notes.append("no decoder weights in this file: it encodes; it cannot reconstruct")
    notes += [
        f"dropped, as allowed: {name}" for name in report.unexpected if allowed(name, allow_missing)
    ]
    if fresh:
        notes.append(f"not in the file, to start afresh: {', '.join(sorted(fresh))}")
    said = {
        "source": f"{seen.format.title}, {Path(found.where).name}",
        "license": LICENSES.get(seen.format.name),
    }
    header = inferred.header.model_copy(update=said)
    origin = f"{found.where} ({seen.format.title})"
    return Weights(
        header,
        tensors,
        origin,
        replace(report, notes=tuple(notes)),
        foreign=True,
        fresh=fresh,
    )


def _recognized(found: Foreign) -> Recognized:
    seen = recognize(found.tensors)
    if seen is not None:
        return seen
    if {"blocks.input.w", "blocks.output.conv.w"} & found.tensors.keys() and any(
        name.startswith("blocks.group_") for name in found.tensors
    ):
        msg = (
            "these are the weights of DALL-E's encoder: a tokenizer, not a model that maekit loads"
        )
        hint = "it makes targets (pretrain.target); give an encoder's weights here"
        raise WeightsError(msg, where=found.where, hint=hint)
    first = ", ".join(list(found.tensors)[:5])
    msg = f"no known model has these {len(found.tensors)} tensors: {first}, ..."
    hint = (
        "maekit reads weights of facebookresearch/mae and mae_st, VideoMAE and VideoMAEv2, MoCo "
        "v3, timm's plain ViTs, and transformers' ViTMAE and VideoMAE"
    )
    raise WeightsError(msg, where=found.where, hint=hint)


def report_of(found: Foreign, seen: Recognized) -> Report:
    """What of a file has a place, and what a whole file would have beside it."""
    reshaped = []
    for rule in seen.rules:
        if rule.frame and rule.theirs[0] in seen.names:
            shape = list(found.tensors[seen.names[rule.theirs[0]]].shape)
            one_frame = [*shape[:2], 1, *shape[2:]]
            reshaped.append(f"{seen.names[rule.theirs[0]]} {shape} to {one_frame}")
    joined = sum(len(rule.theirs) > 1 for rule in seen.rules)
    if joined:
        reshaped.append(f"query, key and value joined in {joined} tensors")
    notes = []
    if found.wrapper:
        notes.append(f"read from {'/'.join(found.wrapper)}")
    if found.args:
        notes.append("the training's arguments were looked at for size, frames and target")
    if found.beside:
        notes.append(f"not weights of the model, not read: {', '.join(found.beside)}")
    return Report(
        seen.format.title,
        len(seen.names),
        seen.missing,
        seen.unexpected,
        seen.aside,
        tuple(reshaped),
        tuple(notes),
    )


def _mapped(found: Foreign, seen: Recognized) -> dict[str, Tensor]:
    theirs = {name: found.tensors[own] for name, own in seen.names.items()}
    return to_ours(seen.rules, theirs, found.where)
