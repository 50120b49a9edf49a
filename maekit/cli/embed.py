"""``maekit embed``: features of any files.

Of each input the center view is taken, as held-out samples are in training: an image is a clip of
one frame shown as often as the model wants, and of a video an image model sees the middle frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.cli.input_words import unlisted
from maekit.cli.kept_output import KeptOutput, format_of
from maekit.cli.output import print_json, print_table
from maekit.cli.reporters import shown
from maekit.cli.run_samples import Which, run_samples
from maekit.data.rendering import Rendering
from maekit.datasets.folders import Tally
from maekit.datasets.named_files import NamedFiles, find_files
from maekit.engine import distributed
from maekit.engine.batches import workers_of
from maekit.engine.build import load_model
from maekit.engine.events import Note
from maekit.engine.left_out import announce_left_out
from maekit.engine.precision import Precision, pick_device
from maekit.errors import INTERRUPTED, DataError, Interrupted
from maekit.evaluate.classifier import HeadFeatures, load_classifier
from maekit.evaluate.embed import (
    FORMATS,
    Embedding,
    Format,
    arrow_library,
    assemble,
    digest_of_inputs,
    make_features,
    write,
)
from maekit.evaluate.encoder import digest_of_weights
from maekit.evaluate.feature_cache import FeatureShards
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

    from maekit.contracts import Dataset
    from maekit.engine.events import Emit
    from maekit.evaluate.features import Pool
    from maekit.evaluate.predictions import Extractor
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header
    from maekit.weights.importer import Weights

VERB = "embed"
BAD_FILES = DataError.exit_code
TIMEOUT = 120.0  # seconds that one input may take


def embed(
    inputs: Sequence[str] | None,
    samples: Which | None,
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
    where = pick_device(device)
    with (
        shown(quiet=quiet, verbose=verbose) as terminal,
        distributed.joined(where),
        StopSignal(),
        ExitStack() as stack,
    ):
        kind = format_of(out, form, FORMATS)
        if kind == "parquet":
            arrow_library()  # that it is missing is better known before the work than after it
        target = out or Path(f"embeddings.{kind}")
        output = distributed.on_first(lambda: KeptOutput.at(target, terminal, overwrite=overwrite))
        located = distributed.on_first(lambda: newest_or_demo(source, predicts=False))
        for note in located.notes:
            terminal(Note(note, warning=True))
        weights = open_weights(located.source)
        model, header = load_model(weights, encodes=True)
        tally = Tally()  # of rank 0, which speaks
        if samples is None:
            found, paths = _files(inputs or (), tally, moving=header.clip[0] > 1)
        else:
            found = run_samples(located, samples, inputs or (), terminal)
            paths = [found.name(index) for index in range(len(found))]
        # First, as it refuses layers and pools that the encoder does not have.
        pool, way, pooled = _extractor(weights, model.to(where), pool, layer, terminal)
        reader = _reader(found, header, located)
        about = _about(located, header, pool, layer, model) | _clips(reader)
        if pooled:
            about["norm"] = "after pooling"
        digest = distributed.on_first(lambda: digest_of_inputs(paths))
        distributed.on_first(lambda: stack.enter_context(output.held(locks=lock)))
        shards = FeatureShards(output.parts, about | {"inputs": digest})
        terminal(Note(f"weights: {located.description}"))
        terminal(Note(f"{len(found):,} inputs, {_described(header, model, pool, layer, pooled)}"))
        announce_left_out("the inputs", tally.left_out, terminal)
        try:
            make_features(reader, way, shards, _reading(batch, workers, where))
        except Interrupted:
            text = f"interrupted; the same command resumes from {shards.folder}"
            terminal(Note(text, warning=True))
            return INTERRUPTED

        def finish() -> int:
            made = assemble(reader, shards)
            write(output.target, kind, made, about)
            shards.remove(terminal)
            for each in made.unread:
                terminal(Note(f"{each['input']}: {each['error']}", warning=True))
            return _tell(made, output.target, about, tally, json=json)

        return distributed.on_first(finish)


def _files(words: Sequence[str], tally: Tally, *, moving: bool) -> tuple[Dataset, list[str]]:
    """Return the files that words name as a set, and their paths."""
    found = distributed.on_first(
        lambda: find_files(list(unlisted(words, VERB)), moving=moving, purpose=VERB, tally=tally)
    )
    return NamedFiles(found), [each.path for each in found]


def _extractor(
    weights: Weights,
    model: MaskedAutoencoder,
    pool: Pool | None,
    layer: int | None,
    emit: Emit,
) -> tuple[Pool, Extractor, bool]:
    """Return the pool, what makes features, and whether they are what a classifier's head gets."""
    head, where = weights.header.classifier, model.device
    own = auto_pool("auto", model.backbone.prefix_tokens) if head is None else head.pool
    pool = pool or own
    way = Features(model, pool, layer, Precision("fp32", where.type))
    if head is not None and layer is None and pool == own:
        return pool, HeadFeatures(load_classifier(weights)[0].to(where)), True
    if head is not None and layer is None and pool != "tokens":
        text = f"the head of these weights was trained on pool {own}, not on {pool}"
        emit(Note(text, warning=True))
    return pool, way, False


def _reading(batch: int, workers: int | None, device: torch.device) -> Reading:
    count = workers_of("auto" if workers is None else workers, device.type)
    return Reading(device, batch, count, TIMEOUT)


def _reader(inputs: Dataset, header: Header, located: LocatedWeights) -> ViewReader:
    """Return a reader of the center view of each input, as the weights' run read data.val."""
    recipe = located.recipe()
    spec = DataSpec(name="inputs", frames=header.clip[0])
    views = Views()
    if recipe is not None:
        val, section = recipe.data.val or recipe.data.train, getattr(recipe, located.verb)
        how = {"stride": val.stride, "sampling": val.sampling, "rate": val.rate, "first": val.first}
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
