"""``maekit weights``: convert and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.atomic import write_text
from maekit.cli.output import print_json, print_table, say, writing
from maekit.cli.quantities import counts
from maekit.cli.reporters import shown
from maekit.engine.build import load_model, require_whole, without_head
from maekit.engine.events import Note
from maekit.errors import MaekitError, RecipeError
from maekit.progress import counted
from maekit.weights import foreign
from maekit.weights.entries import SeveralModelsError
from maekit.weights.export import (
    Exported,
    Exporter,
    check_destination,
    count_parameters,
    export_mae,
    export_maekit,
    export_videomae,
)
from maekit.weights.export_hf import export_hf
from maekit.weights.export_onnx import export_encoder
from maekit.weights.export_timm import LOAD, TIMM_VIT, export_timm, load_timm
from maekit.weights.formats import recognize
from maekit.weights.heads import read_classes
from maekit.weights.hints import UserHints
from maekit.weights.importer import (
    LICENSES,
    Weights,
    import_report,
    open_native,
    open_weights,
    read_claimed,
    read_foreign,
)
from maekit.weights.locate import entry_of, find_weights, local_path, with_entry
from maekit.weights.safetensors_io import model_tensors, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from maekit.weights.entries import Entry
    from maekit.weights.foreign import ForeignCheckpoint


def export_onnx(weights: Weights, path: Path) -> Exported:
    """Write the encoder with nothing hidden, compared with onnxruntime's answer."""
    model, header = load_model(weights)
    difference = export_encoder(model, path, header)
    tensors = {
        name: tensor
        for name, tensor in model_tensors(model).items()
        if name.startswith("backbone.")
    }
    agrees = f"onnxruntime's tokens differ by {difference:.2g} of the largest value"
    notes = [f"{agrees}; input pixels: normalized, [batch, C, T, H, W]"]
    behind = len(weights.tensors) - len(tensors)
    if behind:
        notes.insert(0, f"left out: {behind} tensors that are not the encoder's")
    return Exported(tensors, tuple(notes))


# What writes a classifier whole, with how to run it and a check of what was written.
SERVED = frozenset({"hf", "onnx", "timm", "export"})
PROGRAM = ".pt2"  # the ending by which torch.export knows its files
EXPORTERS: Mapping[str, Exporter] = {
    "maekit": export_maekit,
    "mae": export_mae,
    "videomae": export_videomae,
    "timm": export_timm,
    "hf": export_hf,
    "onnx": export_onnx,
}


def convert(
    source: str,
    destination: Path,
    *,
    to: str,
    entry: str | None,
    allow_missing: list[str] | None,
    target: str | None,
    heads: int | None,
    decoder_heads: int | None,
    clip: str | None,
    classes: Path | None,
    encoder: bool,
    overwrite: bool,
    json: bool,
) -> int:
    """Convert weights, and print what became of each tensor."""
    check_destination(destination, folder=to == "hf", overwrite=overwrite)
    if to == "export" and destination.suffix != PROGRAM:
        hint = f"name it {destination.with_suffix(PROGRAM).name}"
        raise RecipeError(f"torch.export reads {PROGRAM} files", where=str(destination), hint=hint)
    source = with_entry(source, entry)
    size = None if clip is None else _clip(clip)
    names = None if classes is None else read_classes(classes)
    given = UserHints(target, heads, decoder_heads, size, names)
    with shown():
        with counted(f"reading {source}"):
            weights = require_whole(
                open_weights(source, user_hints=given, allow_missing=allow_missing or [])
            )
        left_out: tuple[str, ...] = ()
        timms_own = to == "timm" and weights.header.backbone.name == TIMM_VIT
        classifier = weights.header.classifier is not None
        if classifier and (encoder or timms_own):
            left_out = (f"left out: the classifier's norm and head; {to} gets the encoder",)
            weights, classifier = without_head(weights), False
        if not classifier and to == "export":
            hint = "--to onnx writes an encoder; --to export a run of `maekit finetune`"
            raise RecipeError("torch.export is for classifiers", where="--to", hint=hint)
        with counted(f"writing {destination}"), writing(destination):
            if classifier and to in SERVED:
                written = hand_over(source, weights, destination, to)
            else:
                written = EXPORTERS[to](weights, destination)
        file = destination / foreign.SINGLE[0] if destination.is_dir() else destination
        digest = sha256(file)
    result = {
        "source": weights.origin,
        "to": to,
        "output": str(destination),
        "tensors": len(written.tensors),
        "sha256": digest,
        "report": weights.report.as_dict(),
        "written": [*left_out, *written.notes],
    }
    if json:
        print_json(result)
        return 0
    lines = [f"read {weights.origin}", *weights.report.lines()]
    lines += [f"wrote {destination}: {len(written.tensors)} tensors, sha256 {result['sha256']}"]
    say("\n".join([*lines, *left_out, *written.notes]))
    return 0


def hand_over(source: str, weights: Weights, path: Path, to: str) -> Exported:
    """Write a classifier for people without maekit: whole, checked, with how to run it."""
    import torch

    from maekit.evaluate import card, served
    from maekit.evaluate.predict import HERE
    from maekit.evaluate.scorer import Scorer
    from maekit.evaluate.way import Request, way_of

    described = weights.header.classifier
    assert described is not None  # noqa: S101 - convert saw to it
    notes: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    way = way_of(Request(source, data=HERE), weights, described, note)
    scorer = Scorer(way, weights, torch.device("cpu"), note)
    apart: float | None
    call = ""
    if to == "onnx":
        apart = served.write_onnx(scorer, path)
    elif to == "export":
        apart = served.write_program(scorer, path)
    else:
        exported = EXPORTERS[to](weights, path)
        notes += exported.notes
        call = next(each for each in notes if each.startswith(LOAD)).removeprefix(LOAD)
        answers = (
            served.timm_answers(scorer, load_timm(weights, path))
            if to == "timm"
            else served.transformers_answers(scorer, path)
        )
        apart = None if answers is None else served.difference(scorer, answers)
    about = served.preprocessing(scorer)
    served.write_about(to, path, about)
    code = served.snippet(to, path, about, call)
    readme = path / "README.md" if to == "hf" else path.with_name(f"{path.name}.md")
    write_text(readme, card.card(scorer, source, about, code))
    check = "not checked, as transformers is not installed"
    if apart is not None:
        check = f"checked: its {served.SCORES} differ by {apart:.2g} of the largest from maekit's"
    notes += [check, f"beside it: {served.about_path(to, path).name}, {readme.name}"]
    notes.append(f"run it, without maekit:\n\n{code}")
    return Exported(weights.tensors, tuple(notes))


def _clip(text: str) -> tuple[int, int, int]:
    hint = "give frames, height and width in pixels, as 16x224x224 (1x224x224 for pictures)"
    frames, height, width = counts(text, 3, where="--clip", what="not a clip", hint=hint)
    return frames, height, width


def inspect(source: str, *, entry: str | None, json: bool) -> int:
    """Print which model weights hold, even if they are incomplete or of an unknown format."""
    source = with_entry(source, entry)
    with shown():
        with counted(f"reading {source}"):
            facts, tensors, files = _facts(source)
        facts["parameters"] = count_parameters(tensors) or sum(t.numel() for t in tensors.values())
        facts["sha256"] = {file.name: sha256(file) for file in files}
    shapes = [
        {"name": name, "shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
        for name, t in ((name, tensors[name]) for name in _ordered(tensors))
    ]
    if json:
        print_json(facts | {"tensors": shapes})
        return 0
    print_table(("weights", ""), list(_rows(facts)))
    rows = [[_shown(value) for value in each.values()] for each in facts.get("entries", [])]
    if rows:
        print_table(("entry", "tensors", "parameters", "bytes", "model"), rows)
    report = facts["report"] or {}
    for key in ("missing", "unexpected", "aside", "notes"):
        say("".join(f"{key}: {each}\n" for each in report.get(key, [])), nl=False)
    if shapes:
        print_table(("tensor", "shape", "type"), [[_shown(v) for v in t.values()] for t in shapes])
    return 0


def _ordered(names: Iterable[str]) -> list[str]:
    """Keep the file's order; in an alphabetical one, put block 2 before block 10."""
    found = list(names)
    if found != sorted(found):
        return found
    return sorted(found, key=lambda name: [part.zfill(9) for part in name.split(".")])


def _facts(source: str) -> tuple[dict[str, Any], Mapping[str, Tensor], Sequence[Path]]:
    """Return what is known, the tensors by the file's own names, and the files that hold them."""
    native = open_native(source)
    if native is not None:
        return _described(native, "maekit", None), native.tensors, [find_weights(source)]
    path = local_path(source)
    if path is None:
        hint = "convert it to a file first: maekit weights convert timm:NAME DST --to maekit"
        raise RecipeError("inspect reads files", where=source, hint=hint)
    files = foreign.files_of(path)
    nothing = dict.fromkeys(("header", "license", "report"))
    try:
        found = foreign.read(path, entry_of(source))
    except SeveralModelsError as several:
        unclear = {"source": str(path), "format": "several models", "unclear": str(several)}
        return unclear | nothing | _entries(several.entries), {}, files
    facts, tensors = _foreign_facts(found, nothing)
    return facts | _entries(found.entries), tensors, files


def _entries(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the models and averages in a file, where there are several."""
    return {"entries": [each._asdict() for each in entries]} if entries else {}


def _foreign_facts(
    found: ForeignCheckpoint, nothing: dict[str, None]
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    seen = recognize(found.tensors)
    theirs = read_claimed(found) if seen is None or seen.missing or seen.unexpected else None
    if theirs is not None:
        return _described(theirs, theirs.report.kind, None), found.tensors
    if seen is None:
        unknown: dict[str, Any] = {"source": found.where, "format": "unknown"}
        return unknown | nothing, found.tensors
    report = import_report(found, seen)
    known = LICENSES.get(seen.format.name)
    try:
        weights = read_foreign(found, UserHints(), ["*"])
    except MaekitError as error:
        unclear = {"header": None, "license": known, "unclear": str(error)}
        facts = {"source": found.where, "format": report.kind, "report": report.as_dict()}
        return facts | unclear, found.tensors
    return _described(weights, report.kind, known), found.tensors


def _described(weights: Weights, kind: str, known: str | None) -> dict[str, Any]:
    header = weights.header
    return {
        "source": weights.origin,
        "format": kind,
        "header": header.model_dump(mode="json"),
        "license": header.license or known,
        "report": weights.report.as_dict(),
    }


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Write a row for each fact, and for each entry of those that are mappings."""
    for key, value in facts.items():
        if key in ("report", "entries"):
            continue
        if not isinstance(value, dict):
            yield key, _shown(value)
            continue
        for name, each in value.items():
            yield f"{key} {name}", _shown(each)


def _shown(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, list):
        sizes = all(isinstance(each, int) for each in value)
        return ("x" if sizes else ", ").join(map(str, value)) or "scalar"
    return f"{value:,}" if isinstance(value, int) else _line(value)


_SHOWN = 10


def _line(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """Write on one line; a part with the options that it sets, of many names the first ones."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"[{', '.join(map(str, value[:_SHOWN]))}, ... {len(value):,} in all]"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(each)}" for key, each in value.items() if each is not None)
    return "-" if value is None else str(value)
