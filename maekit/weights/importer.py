"""Opening weights wherever they come from: maekit's own files and runs, and everybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from maekit.errors import RecipeError, WeightsError
from maekit.weights import foreign
from maekit.weights.checks import check_header, check_numbers, check_statistics
from maekit.weights.claimed import claimed
from maekit.weights.file_hints import read_file_hints
from maekit.weights.foreign import ForeignCheckpoint
from maekit.weights.formats import FormatMatch, recognize
from maekit.weights.header import ClassifierHeader, Header
from maekit.weights.heads import describe_classifier, named, numbers
from maekit.weights.hints import CAFFE, FileHints, UserHints
from maekit.weights.infer import family_of, infer, target_of
from maekit.weights.keymap import WEIGHT_AND_BIAS, to_ours
from maekit.weights.locate import TIMM, entry_of, find_weights, is_foreign, local_path
from maekit.weights.safetensors_io import AVERAGE, CLASSIFIER, OURS, read_header, read_tensors
from maekit.weights.timm import fetch_timm
from maekit.weights.transformers_config import check_sizes

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["UserHints", "Weights", "open_native", "open_weights"]


def open_weights(
    source: str | Path, *, user_hints: UserHints | None = None, allow_missing: Sequence[str] = ()
) -> Weights:
    """Open a run folder, a maekit file, a foreign file, ``hf:FOLDER`` or ``timm:NAME``.

    Only ``timm:NAME`` may open a connection; it logs the address first.

    Args:
        source: a path, ``hf:FOLDER`` or ``timm:NAME``.
        user_hints: what a file does not say of itself; of maekit's own, an unknown target.
        allow_missing: patterns of keys that may be missing from a foreign file, or dropped.

    Raises:
        RecipeError: nothing is there, or the hints contradict it.
        WeightsError: unreadable, not recognized, or not 100 % of what it should be.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    weights = _open(source, user_hints or UserHints(), allow_missing)
    check_statistics(weights.header, weights.origin)
    check_numbers(weights.tensors, str(source))
    return weights


def _open(source: str | Path, user_hints: UserHints, allow_missing: Sequence[str]) -> Weights:
    found = open_native(source)
    if found is not None:
        return _with_hints(found, user_hints, allow_missing)
    path = local_path(source)
    if path is None:
        return _open_timm(str(source).removeprefix(TIMM), user_hints, allow_missing)
    return read_foreign(foreign.read(path, entry_of(source)), user_hints, allow_missing)


def _with_hints(found: Weights, user_hints: UserHints, allow_missing: Sequence[str]) -> Weights:
    """Add to own weights what they were converted without: a target, or names of classes.

    Everything else they know themselves: further hints are refused.
    """
    header = found.header
    if user_hints == UserHints() and not allow_missing:
        return found
    if not allow_missing and user_hints == UserHints(classes=user_hints.classes):
        return replace(found, header=_with_names(header, user_hints, found.origin))
    if allow_missing or user_hints != UserHints(target=user_hints.target) or header.out_dim is None:
        raise _known(found.origin)
    channels, pt, ph, pw = found.tensors["backbone.patch_embed.weight"].shape[1:]
    target = target_of(
        family_of(header),
        str(user_hints.target),
        header.out_dim,
        header.clip,
        (pt, ph, pw, channels),
        found.origin,
    )
    described = header.model_copy(update={"target": target, "out_dim": None})
    return replace(found, header=described)


def _with_names(header: Header, user_hints: UserHints, where: str) -> Header:
    """Name a classifier's outputs, where they are numbers.

    Raises:
        RecipeError: there is no classifier, or its outputs have names already.
    """
    described = header.classifier
    count = 0 if described is None else len(described.outputs)
    if described is None or user_hints.classes is None or described.outputs != numbers(count):
        raise _known(where)
    outputs = named(user_hints.classes, count)
    return header.model_copy(
        update={"classifier": described.model_copy(update={"outputs": outputs})}
    )


def _known(where: str) -> RecipeError:
    """Return the error that says that nothing needs to be said of own weights."""
    msg = "maekit's own weights describe themselves"
    hint = "leave out what you say of them (--target, --heads, --clip, --classes, --allow-missing)"
    return RecipeError(msg, where=where, hint=hint)


def _open_timm(name: str, user_hints: UserHints, allow_missing: Sequence[str]) -> Weights:
    """Take timm's weights as maekit's own ViT where the structure is plain, else run timm's code.

    Raises:
        RecipeError: timm has no such model, or no weights for it.
        WeightsError: they cannot be fetched.
    """
    model = fetch_timm(name)
    seen = recognize(model.checkpoint.tensors)
    if model.plain and seen is not None and not seen.missing and not seen.unexpected:
        weights = read_foreign(model.checkpoint, user_hints, allow_missing)
        return replace(weights, header=weights.header.model_copy(update={"license": model.license}))
    header, tensors, aside = model.as_timm_vit()
    notes = ("not a plain ViT: it runs as the backbone timm-vit", "no decoder weights: it encodes")
    report = ImportReport("timm", len(tensors), aside=tuple(aside), notes=notes)
    return Weights(header, tensors, model.checkpoint.where, report, foreign=True)


def open_native(source: str | Path) -> Weights | None:
    """Open weights that maekit wrote; return None for somebody else's."""
    if is_foreign(source):
        return None
    path, entry = find_weights(source), entry_of(source)
    if entry is not None:
        msg = f"maekit's own weights hold one model, and no entry '{entry}'"
        raise RecipeError(msg, where=str(path), hint="leave the entry out")
    header, tensors = read_header(path), _averaged(read_tensors(path))
    check_header(header, tensors, str(path))
    origin = f"{path} ({header.source or 'maekit'})"
    return Weights(header, tensors, origin, ImportReport("maekit", len(tensors)))


def _averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the moving average of a checkpoint, which is what is judged; else all as it is."""
    own = {n.removeprefix(AVERAGE): t for n, t in tensors.items() if n.startswith(AVERAGE)}
    if not own:
        return tensors
    return {n if n.startswith(OURS) else f"{CLASSIFIER}{n}": tensor for n, tensor in own.items()}


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
    report: ImportReport
    foreign: bool = False
    fresh: frozenset[str] = frozenset()


def read_foreign(
    found: ForeignCheckpoint, user_hints: UserHints, allow_missing: Sequence[str] = ()
) -> Weights:
    """Rename a foreign file's tensors, and describe them with a header.

    Raises:
        WeightsError: not recognized, or not complete.
    """
    known = recognize(found.tensors)
    if known is None or known.missing or known.unexpected:
        theirs = read_claimed(found, user_hints, allow_missing)
        if theirs is not None:
            return theirs
    seen = known or _refused(found)
    report = import_report(found, seen)
    hints = read_file_hints(
        found,
        seen.format.name,
        seen.format.family,
        classifier=seen.format.layout is not None
        or any(
            name.endswith("classifier.weight") and not matches_any(name, allow_missing)
            for name in seen.unexpected
        ),
    )
    report.check(found.where, allow_missing)
    if seen.format.layout is not None and seen.format.layout.boxes:
        hints = replace(hints, mean=CAFFE[0], std=CAFFE[1])
    tensors = _mapped(found, seen)
    check_sizes(found.config, tensors, found.where)
    classifier, said_of_head = _classifier(tensors, seen, hints, user_hints, found.where)
    inferred = infer(
        tensors,
        seen.format.family,
        hints,
        user_hints,
        found.where,
        biased=seen.format.biased,
    )
    fresh = frozenset(
        rule.ours
        for rule in seen.rules
        if rule.ours not in tensors and not rule.ours.startswith(CLASSIFIER)
    )
    layout = seen.format.layout
    if layout is not None and layout.norm == "fresh":  # whose place the head's norm would take
        norms = {f"backbone.norm.{kind}" for kind in WEIGHT_AND_BIAS}
        fresh |= norms - tensors.keys()
    notes = [*report.notes, *inferred.notes, *said_of_head]
    if classifier is not None:
        notes.append("a classifier: the encoder with its head, without a decoder")
    elif inferred.header.decoder is None:
        notes.append("no decoder weights in this file: it encodes; it cannot reconstruct")
    notes += [
        f"dropped, as allowed: {name}"
        for name in report.unexpected
        if matches_any(name, allow_missing)
    ]
    if fresh:
        notes.append(f"not in the file, to start afresh: {', '.join(sorted(fresh))}")
    said = {
        "source": f"{seen.format.title}, {Path(found.where).name}",
        "license": LICENSES.get(seen.format.name),
        "classifier": classifier,
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


def _classifier(
    tensors: dict[str, Tensor],
    seen: FormatMatch,
    file_hints: FileHints,
    user_hints: UserHints,
    where: str,
) -> tuple[ClassifierHeader | None, list[str]]:
    """Describe the classifier in a file, if it is one, and complete its encoder.

    The norm of an encoder that is pooled before it is not in the file: the one behind the pooling
    stands there too, so that the encoder alone has the norm that was trained with it.

    Raises:
        RecipeError: the user names classes of a file that has none.
    """
    layout = seen.format.layout
    wanted = {rule.ours for rule in seen.format.keys.head}
    lost = sorted(wanted - tensors.keys())
    if layout is not None and layout.norm == "fresh":
        for kind in WEIGHT_AND_BIAS:
            if f"{CLASSIFIER}fc_norm.{kind}" in tensors:
                norm = tensors[f"{CLASSIFIER}fc_norm.{kind}"]
                tensors[f"backbone.norm.{kind}"] = norm.clone()
    if layout is None or lost:
        if user_hints.classes is not None:
            msg = "there is no whole head in this file, so it has no classes"
            raise RecipeError(msg, where="--classes", hint="leave --classes out")
        for name in wanted & tensors.keys():
            del tensors[name]
        notes = [f"without {', '.join(lost)} the head is dropped: the encoder is taken"]
        return None, notes if lost else []
    return describe_classifier(tensors, layout, file_hints, user_hints, where)


def read_claimed(
    found: ForeignCheckpoint,
    user_hints: UserHints | None = None,
    allow_missing: Sequence[str] = (),
) -> Weights | None:
    """Take a file as a plugin's backbone knows it; None: none does.

    Raises:
        RecipeError: several do, or there is more to say of it than it says itself.
    """
    claim = claimed(found)
    if claim is None:
        return None
    if allow_missing or user_hints not in (None, UserHints()):
        raise _known(found.where)
    header, tensors, seen = claim
    aside = tuple(f"{count} tensors, {why}" for why, count in seen.left_out.items())
    notes = (f"known to {header.backbone.name}", "no decoder weights: it encodes")
    report = ImportReport(seen.title, len(tensors), aside=aside, notes=notes)
    return Weights(header, tensors, f"{found.where} ({seen.title})", report, foreign=True)


def _refused(found: ForeignCheckpoint) -> NoReturn:
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
        "v3, timm's plain ViTs, and transformers' ViTMAE and VideoMAE, and what the backbones of "
        "installed plugins know"
    )
    raise WeightsError(msg, where=found.where, hint=hint)


def import_report(found: ForeignCheckpoint, seen: FormatMatch) -> ImportReport:
    """Report which tensors have a place, and which ones a whole file would have besides."""
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
    if found.unread:
        notes.append(f"not weights of the model, not read: {', '.join(found.unread)}")
    return ImportReport(
        seen.format.title,
        len(seen.names),
        seen.missing,
        seen.unexpected,
        seen.aside,
        tuple(reshaped),
        tuple(notes),
    )


def _mapped(found: ForeignCheckpoint, seen: FormatMatch) -> dict[str, Tensor]:
    theirs = {name: found.tensors[own] for name, own in seen.names.items()}
    return to_ours(seen.rules, theirs, found.where)


@dataclass(frozen=True)
class ImportReport:
    """Comparison of a file's tensors with a format's keys.

    Attributes:
        kind: the format that was recognized.
        matched: how many of the file's tensors have a place.
        missing: keys that a whole file of this kind has and this one lacks.
        unexpected: keys of the file that have no place in maekit's model.
        aside: what is not taken because of what it is, each with how many and why.
        reshaped: tensors that change shape on the way, as text.
        notes: what else one should know: a guess, a warning.
    """

    kind: str
    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self, where: str, allow_missing: Sequence[str] = ()) -> None:
        """Hold the file to 100 %.

        Args:
            where: the file, for errors.
            allow_missing: patterns (``head.*``) of keys that may be missing or dropped.

        Raises:
            WeightsError: other keys are missing or unexpected; every one is named.
        """
        problems = []
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            left = [name for name in names if not matches_any(name, allow_missing)]
            if left:
                problems.append(f"{len(left)} {what}: {', '.join(left)}")
        if not problems:
            return
        msg = f"{self.kind}: {self.matched} tensors match; " + "; ".join(problems)
        patterns = sorted({_pattern(name) for name in (*self.missing, *self.unexpected)})
        flags = " ".join(f"--allow-missing '{pattern}'" for pattern in patterns[:6])
        hint = (
            f"another file, or `maekit weights convert` with {flags} where it is right to drop "
            "what is unexpected and to start what is missing afresh"
        )
        raise WeightsError(msg, where=where, hint=hint)

    def lines(self) -> Iterator[str]:
        """Yield the report in words."""
        yield (
            f"{self.kind}: {self.matched} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.reshaped)} reshaped"
        )
        for what in ("missing", "unexpected", "reshaped"):
            names: tuple[str, ...] = getattr(self, what)
            if names:
                yield f"{what}: {', '.join(names)}"
        yield from (f"left aside: {each}" for each in self.aside)
        yield from self.notes

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON holds it."""
        return {
            "format": self.kind,
            "matched": self.matched,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "aside": list(self.aside),
            "reshaped": list(self.reshaped),
            "notes": list(self.notes),
        }


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a key matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _pattern(name: str) -> str:
    """Return a pattern for a key and its like: ``head.*`` for ``head.weight``."""
    layer, dot, _ = name.rpartition(".")
    return f"{layer}.*" if dot else name
