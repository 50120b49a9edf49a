"""``maekit embed``: features of any files.

Of each input the centre view is taken, as held-out samples are in training: an image is a clip of
one frame shown as often as the model wants, and of a video an image model sees the middle frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maekit.cli.output import print_json, print_table
from maekit.cli.reporters import Heard, Terminal
from maekit.cli.training import INTERRUPTED
from maekit.datasets.images import SUFFIXES as PICTURES
from maekit.datasets.rows import read_list
from maekit.datasets.videos import SUFFIXES as VIDEOS
from maekit.engine.build import load_model
from maekit.engine.events import Note
from maekit.engine.feed import workers_of
from maekit.engine.precision import Precision
from maekit.engine.run_folder import RUNS
from maekit.engine.stop import StopSignal
from maekit.engine.training import pick_device
from maekit.errors import DataError, RecipeError
from maekit.evaluate.embed import (
    Embedding,
    Format,
    Parts,
    arrow_library,
    digest_of_inputs,
    digest_of_weights,
    embed,
    format_of,
    write,
)
from maekit.evaluate.features import Features, auto_pool
from maekit.evaluate.views import ViewReader, view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.views import Views
from maekit.visualise.inputs import Inputs, find_inputs
from maekit.visualise.sources import Chosen, choose

if TYPE_CHECKING:
    import torch

    from maekit.evaluate.features import Pool
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

LISTS = frozenset({".csv", ".jsonl", ".list", ".tsv", ".txt"})
BAD_FILES = DataError.exit_code
TIMEOUT = 120.0  # seconds that one input may take


@dataclass(frozen=True)
class Wanted:
    """What the command line wants of each input, and where it is to go."""

    pool: Pool | None
    layer: int | None
    kind: Format | None
    out: Path | None
    batch: int
    workers: int | None
    overwrite: bool


def embed_files(
    words: Sequence[str],
    wanted: Wanted,
    *,
    source: str | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Embed all inputs; the exit code: 6 where some could not be read."""
    tell = Terminal(Console(stderr=True, highlight=False), quiet=quiet, verbose=verbose)
    kind = format_of(wanted.out, wanted.kind)
    target = wanted.out or Path(f"embeddings.{kind}")
    if target.exists() and not wanted.overwrite:
        hint = "--overwrite, or another --out"
        raise RecipeError("the file is there already", where=f"--out {target}", hint=hint)
    if kind == "parquet":
        arrow_library()  # that it is missing is better known before the work than after it
    chosen = choose(source, RUNS, decoder=False)
    for note in chosen.notes:
        tell(Note(note, warning=True))
    with Heard(tell).listening(), StopSignal() as stop:
        model, header = load_model(chosen.source)
        found = find_inputs(list(_unlisted(words)), moving=header.clip[0] > 1, purpose=VERB)
        pool = wanted.pool or auto_pool("auto", model.backbone.prefix_tokens)
        reader = _reader(Inputs(found), header, chosen)
        about = _about(chosen, header, pool, wanted.layer, model) | _clips(reader)
        inputs = digest_of_inputs(each.path for each in found)
        parts = Parts(target, about | {"inputs": inputs})
        tell(Note(f"weights: {chosen.said}"))
        tell(Note(f"{len(found):,} inputs, {_said(header, model, pool, wanted.layer)}"))
        made = _embedded(reader, model, pool, wanted, pick_device(device), parts, tell, stop)
        if made is None:
            text = f"interrupted; the same command goes on from {parts.folder}"
            tell(Note(text, warning=True))
            return INTERRUPTED
        write(target, kind, made, about)
        parts.remove()
    for each in made.unread:
        tell(Note(f"{each['input']}: {each['error']}", warning=True))
    return _tell(made, target, about, json=json)


def _embedded(
    reader: ViewReader,
    model: MaskedAutoencoder,
    pool: Pool,
    wanted: Wanted,
    device: torch.device,
    parts: Parts,
    tell: Terminal,
    stop: StopSignal,
) -> Embedding | None:
    """All inputs' features; None where a signal asked to stop before the end."""
    way = Features(model.to(device), pool, wanted.layer, Precision("fp32", device.type))

    def go_on(done: int, total: int) -> bool:
        tell(Note(f"{done:,} of {total:,}"))
        return not stop.requested

    return embed(
        reader,
        way,
        parts,
        device=device,
        batch=wanted.batch,
        workers=workers_of("auto" if wanted.workers is None else wanted.workers, device.type),
        timeout=TIMEOUT,
        go_on=go_on,
    )


VERB = "embed"


def _unlisted(words: Sequence[str]) -> Iterator[str]:
    """The words, with the paths of a list in its place.

    Raises:
        DataError: a list with stretches of videos, or that makes no sense.
    """
    for word in words:
        path = Path(word)
        if path.suffix.lower() not in LISTS or not path.is_file():
            yield word
            continue
        for row in read_list(path, PICTURES | VIDEOS):
            if any(row.times):
                what = "asks for a stretch of a video; embed takes whole files"
                raise DataError(what, where=f"{path}:{row.line}", hint="cut it, or list files")
            yield row.path if "://" in row.path else str(path.parent / row.path)


def _reader(inputs: Inputs, header: Header, chosen: Chosen) -> ViewReader:
    """Reads the centre view of each input, as the run of the weights read its own."""
    recipe = chosen.recipe()
    train = None if recipe is None else recipe.data.train
    spec = DataSpec(
        name="inputs",
        frames=header.clip[0],
        stride=train.stride if train else 1,
        sampling=train.sampling if train else "dense",
    )
    return view_reader(inputs, spec, Views(), size=header.clip[1:], channels=header.channels)


def _clips(reader: ViewReader) -> dict[str, Any]:
    return {"stride": reader.spec.stride, "sampling": reader.spec.sampling}


def _about(
    chosen: Chosen, header: Header, pool: Pool, layer: int | None, model: MaskedAutoencoder
) -> dict[str, Any]:
    """What features depend on."""
    return {
        "weights": chosen.source,
        "sha256": digest_of_weights(model),
        "model": header.model_dump(mode="json", include={"backbone", "clip", "channels", "source"}),
        "pool": pool,
        "layer": layer,
        "grid": list(model.grid),
    }


def _said(header: Header, model: MaskedAutoencoder, pool: Pool, layer: int | None) -> str:
    t, h, w = header.clip
    width = model.backbone.width
    size = f"{model.grid.tokens} x {width}" if pool == "tokens" else f"{width}"
    after = "the last norm" if layer is None else f"block {layer}"
    return f"clip {t}x{h}x{w}; {pool} after {after}: {size} numbers each"


def _tell(made: Embedding, target: Path, about: dict[str, Any], *, json: bool) -> int:
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
    }
    if json:
        print_json(result)
    else:
        shape = " x ".join(map(str, made.features.shape))
        rows = [("output", str(target)), ("features", shape), ("unread", str(len(made.unread)))]
        print_table(("embed", ""), rows)
    return code
