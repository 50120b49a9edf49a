"""``maekit probe``: print how features are judged, next to baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.cli.declare import PLANNED
from maekit.cli.dry_run import Asked, size
from maekit.cli.dry_run import dry_run as rehearse
from maekit.cli.output import print_json, print_table, say
from maekit.cli.result import print_comparison
from maekit.cli.verbs import prepared, print_training, refuse_without_dry_run
from maekit.data.stand_in import standing_in
from maekit.engine.peak import PeakMemory, held
from maekit.engine.reporters import duration
from maekit.engine.resume import is_restarted
from maekit.engine.run import RunOptions
from maekit.errors import INTERRUPTED
from maekit.evaluate.cached_probe import VERB
from maekit.evaluate.feature_cache import collect_features, count_bad
from maekit.evaluate.kept_run import begun_result
from maekit.evaluate.predictions import TOP, Reading
from maekit.evaluate.probe import DIFFERENCES, MODEL, PIXELS, RANDOM, assemble_probe
from maekit.verbs import JOBS, run_verb, trains

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from maekit.engine.events import Emit
    from maekit.recipe.schema import Recipe

_NAMES = {
    MODEL: "model",
    RANDOM: "random initialization",
    PIXELS: "raw pixels",
    DIFFERENCES: "raw differences of frames",
}


def probe(
    recipe: str,
    overrides: list[str] | None,
    kind: str | None,
    source: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    accept_data: bool,
    lock: bool,
    dry_run: bool,
    samples: int | None,
    device_memory: float | None,
    compare_expected: bool,
    seed: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Judge features as a recipe says; return the exit code."""
    given = {"seed": seed, "probe.kind": kind}
    words = [f"{key}={value}" for key, value in given.items() if value is not None]
    words = [*(overrides or []), *words]
    with prepared(VERB, recipe, words, device=device, quiet=quiet, verbose=verbose) as command:
        steps = trains(VERB, command.recipe)
        if dry_run:
            asked = Asked(samples, PLANNED.get(), device_memory)
            weights = JOBS[VERB].find_source(command.recipe, source, command.terminal)
            if steps:
                return rehearse(JOBS[VERB], *command, source=weights, json=json, asked=asked)
            with standing_in(samples):
                return _rehearse(command.recipe, str(weights), *command[1:], json=json, asked=asked)
        refuse_without_dry_run(samples, device_memory)
        resume = resume or is_restarted()
        options = RunOptions(
            out,
            resume,
            overwrite,
            source,
            compare_expected,
            signals=True,
            locks=lock,
            accept_data=accept_data,
        )
        done = run_verb(VERB, command.recipe, command.device, options, command.terminal)
    if steps:
        return print_training(VERB, recipe, done, json=json, quiet=quiet)
    if done.result["exit"] == INTERRUPTED:
        return INTERRUPTED
    _tell(done.result, done.folder, json=json, compare=compare_expected, quiet=quiet)
    return 0


def _tell(
    result: Mapping[str, Any], folder: Path, *, json: bool, compare: bool, quiet: bool
) -> None:
    """Print the numbers on stdout; on stderr where things are."""
    if json:
        print_json(result)
    else:
        print_table((result["protocol"], "top-1", f"top-{TOP}"), list(_rows(result)))
        if compare:
            print_comparison(result["expected"])
    if not quiet:
        say(f"predictions: {result['predictions']}\nresult:      {folder}", err=True)


def _rows(result: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    rows = [(_NAMES[MODEL], f"{result['top1']:.4f}", f"{result['top5']:.4f}")]
    if result["settings"]["views"] != "1x1":
        rows[0] = (f"{_NAMES[MODEL]}, {result['settings']['views']} views", *rows[0][1:])
        one = result["single_view"]
        rows.append(("one view", f"{one['top1']:.4f}", f"{one['top5']:.4f}"))
    rows += [
        (
            f"floor: {_NAMES[name]}",
            f"{result['floor'][name]:.4f}",
            f"{result['floor_top5'][name]:.4f}",
        )
        for name in result["floor"]
    ]
    return [*rows, ("chance", f"{result['chance']:.4f}", "")]


def _rehearse(
    recipe: Recipe,
    source: str,
    device: torch.device,
    emit: Emit,
    *,
    json: bool,
    asked: Asked,
) -> int:
    """Build everything, make features of a few samples, and print what all would take."""
    setup = assemble_probe(recipe, source, device, emit)
    reader, val_reader = setup.readers()
    count = min(len(setup.train), setup.at_once)
    began = time.perf_counter()
    here = Reading(device, count, 0, 0.0)
    with PeakMemory() as passing:  # of pixels and of the frozen encoders
        made = collect_features(
            reader, setup.extractors, range(count), here, count_bad(setup.bad_files)
        )
    each = sum(features.nbytes for features in made.features.values()) / max(1, len(made.rows))
    views = len(setup.train) + len(setup.val) * val_reader.repeats
    costs = {
        **begun_result(VERB, recipe),
        "protocol": setup.protocol,
        "parameters": sum(each.numel() for each in setup.encoder.parameters()),
        "classes": len(setup.labeled.classes),
        "views": views,
        "seconds": round((time.perf_counter() - began) / count * views, 1),
        "feature_bytes": int(each * views),
        "memory_bytes": int(each * views + passing.peak + held(setup.encoder.parameters())),
        "weights": source,
    }
    available = asked.available(device)
    costs["available_bytes"] = available
    costs["fits"] = fits = None if available is None else costs["memory_bytes"] <= available
    if json:
        print_json(costs)
        return 0
    said = "" if available is None else f", of {size(available)}: "
    if said:
        said += "fits" if fits else "does not fit: set probe.kind=linear, or fewer samples"
    rows = [
        ("protocol", setup.protocol),
        ("parameters", f"{costs['parameters']:,} of the encoder"),
        ("views", f"{views:,} of {len(setup.train) + len(setup.val):,} samples"),
        ("features", f"{size(each * views)} in memory, and as much on disk until the end"),
        ("memory", f"about {size(costs['memory_bytes'])} in all{said}"),
        ("time", f"about {duration(float(costs['seconds']))} for features on this {device.type}"),
    ]
    print_table(("dry run", ""), rows)
    return 0
