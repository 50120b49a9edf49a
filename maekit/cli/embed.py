"""``maekit embed``: features of any files.

Of each input the center view is taken, as held-out samples are in training: an image is a clip of
one frame shown as often as the model wants, and of a video an image model sees the middle frame.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maekit.atomic import sweep
from maekit.cli.output import print_json, print_table
from maekit.cli.reporters import LoggingBridge, Terminal
from maekit.data.rendering import Rendering
from maekit.datasets.folders import Tally
from maekit.datasets.images import SUFFIXES as PICTURES
from maekit.datasets.list_rows import columns_note, read_list
from maekit.datasets.named_files import NamedFiles, find_files
from maekit.datasets.videos import SUFFIXES as VIDEOS
from maekit.engine.batches import workers_of
from maekit.engine.build import load_model
from maekit.engine.events import Note
from maekit.engine.left_out import announce_left_out
from maekit.engine.lock import LOCK, held_lock
from maekit.engine.precision import Precision, pick_device
from maekit.errors import INTERRUPTED, DataError, Interrupted, RecipeError
from maekit.evaluate.classifier import HeadFeatures, load_classifier
from maekit.evaluate.embed import (
    Embedding,
    Format,
    arrow_library,
    digest_of_inputs,
    format_of,
    write,
)
from maekit.evaluate.embed import embed as make_embedding
from maekit.evaluate.encoder import digest_of_weights
from maekit.evaluate.feature_cache import FeatureShards, remove_finished
from maekit.evaluate.features import Features, auto_pool
from maekit.evaluate.predictions import Reading
from maekit.evaluate.views import ViewReader, view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views
from maekit.stop import StopSignal
from maekit.weights.importer import open_weights
from maekit.weights.locate import LocatedWeights, newest_or_demo

if TYPE_CHECKING:
    import torch

    from maekit.evaluate.features import Pool
    from maekit.evaluate.predictions import Extractor
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

LISTS = frozenset({".csv", ".jsonl", ".list", ".tsv", ".txt"})
VERB = "embed"
_log = logging.getLogger(__name__)
BAD_FILES = DataError.exit_code
TIMEOUT = 120.0  # seconds that one input may take


def embed(  # noqa: PLR0917 - each is an option of the command line
    inputs: Sequence[str],
    source: str | None,
    pool: Pool | None,
    layer: int | None,
    form: Format | None,
    out: Path | None,
    batch: int,
    workers: int | None,
    overwrite: bool,
    lock: bool,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Embed all inputs; return the exit code: 6 where some could not be read."""
    terminal = Terminal(Console(stderr=True, highlight=False), quiet=quiet, verbose=verbose)
    kind = format_of(out, form)
    target = out or Path(f"embeddings.{kind}")
    parts = target.with_name(f"{target.name}.parts")
    remove_finished(parts, target, terminal)
    _refuse_taken(target, overwrite=overwrite)
    if kind == "parquet":
        arrow_library()  # that it is missing is better known before the work than after it
    with LoggingBridge(terminal).listening():
        located = newest_or_demo(source, predicts=False)
    for note in located.notes:
        terminal(Note(note, warning=True))
    where = pick_device(device)
    with LoggingBridge(terminal).listening(), StopSignal():
        weights = open_weights(located.source)
        model, header = load_model(weights)
        tally = Tally()
        found = find_files(
            list(_unlisted(inputs)), moving=header.clip[0] > 1, purpose=VERB, tally=tally
        )
        head = weights.header.classifier
        own = auto_pool("auto", model.backbone.prefix_tokens) if head is None else head.pool
        pool = pool or own
        # First, as it refuses layers and pools that the encoder does not have.
        way: Extractor = Features(model.to(where), pool, layer, Precision("fp32", where.type))
        pooled = head is not None and layer is None and pool == own
        if pooled:
            way = HeadFeatures(load_classifier(weights)[0].to(where))
        elif head is not None and layer is None and pool != "tokens":
            text = f"the head of these weights was trained on pool {own}, not on {pool}"
            terminal(Note(text, warning=True))
        reader = _reader(NamedFiles(found), header, located)
        about = _about(located, header, pool, layer, model) | _clips(reader)
        if pooled:
            about["norm"] = "after pooling"
        digest = digest_of_inputs(each.path for each in found)
        shards = FeatureShards(parts, about | {"inputs": digest})
        with held_lock(shards.folder / LOCK, locks=lock):
            for place in (target, parts):  # what a killed process left half written or removed
                sweep(target.parent, f"{glob.escape(place.name)}-*")
            terminal(Note(f"weights: {located.description}"))
            terminal(
                Note(f"{len(found):,} inputs, {_described(header, model, pool, layer, pooled)}")
            )
            announce_left_out("the inputs", tally.left_out, terminal)
            reading = _reading(batch, workers, where)
            try:
                made = make_embedding(reader, way, shards, reading)
            except Interrupted:
                text = f"interrupted; the same command resumes from {shards.folder}"
                terminal(Note(text, warning=True))
                return INTERRUPTED
            write(target, kind, made, about)
        shards.remove(terminal)
    for each in made.unread:
        terminal(Note(f"{each['input']}: {each['error']}", warning=True))
    return _tell(made, target, about, tally, json=json)


def _refuse_taken(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        msg, hint = "this is a folder", "the name of a file that is to be written"
        raise RecipeError(msg, where=f"--out {target}", hint=hint)
    if target.exists() and not overwrite:
        hint = "--overwrite, or another --out"
        raise RecipeError("the file is there already", where=f"--out {target}", hint=hint)


def _reading(batch: int, workers: int | None, device: torch.device) -> Reading:
    count = workers_of("auto" if workers is None else workers, device.type)
    return Reading(device, batch, count, TIMEOUT)


def _unlisted(words: Sequence[str]) -> Iterator[str]:
    """Yield the words; in place of a list of paths, its paths.

    Raises:
        DataError: a list with stretches of videos, or that makes no sense.
    """
    for word in words:
        path = Path(word)
        if path.suffix.lower() not in LISTS or not path.is_file():
            yield word
            continue
        if (note := columns_note(path, PICTURES | VIDEOS)) is not None:
            _log.info("%s: %s", path, note)
        for row in read_list(path, PICTURES | VIDEOS):
            if any(row.times):
                what = "asks for a stretch of a video; embed takes whole files"
                raise DataError(what, where=f"{path}:{row.line}", hint="cut it, or list files")
            yield row.path if "://" in row.path else str(path.parent / row.path)


def _reader(inputs: NamedFiles, header: Header, located: LocatedWeights) -> ViewReader:
    """Return a reader of the center view of each input, as the weights' run read data.val."""
    recipe = located.recipe()
    spec = DataSpec(name="inputs", frames=header.clip[0])
    views = Views()
    if recipe is not None:
        val, section = recipe.data.val or recipe.data.train, getattr(recipe, located.verb)
        how = {"stride": val.stride, "sampling": val.sampling, "rate": val.rate}
        spec = spec.model_copy(update=how)
        resized = getattr(section, "views", section.augment).interpolation
        views = Views(interpolation=resized)
    rendering = Rendering.of_weights(header.range, None if recipe is None else recipe.data)
    return view_reader(
        inputs,
        spec,
        views,
        size=header.clip[1:],
        channels=header.channels,
        rendering=replace(rendering, float_ok=True),
    )


def _clips(reader: ViewReader) -> dict[str, Any]:
    return {
        "stride": reader.spec.stride,
        "sampling": reader.spec.sampling,
        "rate": reader.spec.rate,
        "interpolation": reader.test.interpolation,
        "fit": reader.rendering.fit,
        "range": reader.rendering.span,
    }


def _about(
    located: LocatedWeights, header: Header, pool: Pool, layer: int | None, model: MaskedAutoencoder
) -> dict[str, Any]:
    """Return what features depend on."""
    return {
        "weights": located.source,
        "sha256": digest_of_weights(model),
        "model": header.model_dump(mode="json", include={"backbone", "clip", "channels", "source"}),
        "pool": pool,
        "layer": layer,
        "grid": list(model.grid),
    }


def _described(
    header: Header, model: MaskedAutoencoder, pool: Pool, layer: int | None, pooled: bool
) -> str:
    t, h, w = header.clip
    width = model.backbone.width
    size = f"{model.grid.tokens} x {width}" if pool == "tokens" else f"{width}"
    after = "the last norm" if layer is None else f"block {layer}"
    if pooled:
        return f"clip {t}x{h}x{w}; what the classifier's head gets ({pool}): {size} numbers each"
    return f"clip {t}x{h}x{w}; {pool} after {after}: {size} numbers each"


def _tell(made: Embedding, target: Path, about: dict[str, Any], tally: Tally, *, json: bool) -> int:
    code = BAD_FILES if made.unread else 0
    result = {
        "verb": VERB,
        "exit": code,
        "output": str(target),
        "inputs": len(made.ids),
        "shape": list(made.features.shape),
        "pool": about["pool"],
        "layer": about["layer"],
        "weights": about["weights"],
        "errors": list(made.unread),
        "left_out": tally.left_out | dict(made.left_out),
    }
    if json:
        print_json(result)
    else:
        shape = " x ".join(map(str, made.features.shape))
        rows = [("output", str(target)), ("features", shape), ("unread", str(len(made.unread)))]
        print_table(("embed", ""), rows)
    return code
