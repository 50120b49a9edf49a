"""``maekit bench``: measure what holds a training back, and say it in a sentence."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from maekit.cli.dry_run import size
from maekit.cli.output import print_json, print_table, say
from maekit.cli.verbs import prepared
from maekit.data.stages import STAGES
from maekit.data.stand_in import standing_in
from maekit.engine.bench import Bench
from maekit.engine.bench import bench as measure
from maekit.errors import RecipeError
from maekit.ranks import place_of
from maekit.verbs import JOBS

if TYPE_CHECKING:
    from maekit.engine.job import Job

VERB = "pretrain"


def bench(
    recipe: str,
    overrides: list[str] | None,
    samples: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure pre-training as a recipe says; return the exit code. Writes nothing but caches.

    Raises:
        RecipeError: a launcher started several ranks of it.
    """
    ranks = place_of(os.environ).size
    if ranks > 1:
        msg = f"this measures one device, and a launcher started {ranks} ranks of it"
        raise RecipeError(msg, where="maekit bench", hint="start it without torchrun or srun")
    words = overrides or []
    with prepared(VERB, recipe, words, device=device, quiet=quiet, verbose=verbose) as command:
        found, where, terminal = command
        with standing_in(samples):
            job: Job = JOBS[VERB](found, where, terminal)
            job.prepare(None)
            done = measure(job)
    if json:
        print_json(done.as_dict())
    else:
        print_table(("bench", ""), _rows(job, done))
        say(done.advice.advice)
    return 0


def _rows(job: Job, done: Bench) -> list[tuple[str, str]]:
    model, loader, both = done.model, done.loader, done.both
    asked = job.split.per_device
    batch = f"{model['batch']}" + (f" (of {asked})" if model["batch"] < asked else "")
    return [
        ("model alone", f"{model['samples_per_second']:.3g} samples/s"),
        ("  step", f"{model['step_ms']:,.1f} ms at batch {batch}, {job.precision.name}"),
        ("  compute", _compute(model)),
        ("  memory", f"{size(model['memory_bytes'])} at its peak"),
        ("loader alone", f"{loader['samples_per_second']:.3g} samples/s"),
        ("  workers", f"{loader['workers']}, {loader['per_worker']:.3g} samples/s each"),
        *((f"  {name}", f"{loader[f'{name}_ms']:.2f} ms a sample") for name in STAGES),
        ("  hand-over", f"{loader['hand_over_ms']:.2f} ms a sample"),
        *([("  bad files", f"{loader['bad_files']}")] if loader["bad_files"] else []),
        ("both", f"{both['samples_per_second']:.3g} samples/s"),
        ("  data wait", f"{both['data_wait']:.0%}"),
    ]


def _compute(model: dict[str, Any]) -> str:
    each = model["flops_per_sample"] / 1e9
    return (
        f"{each:,.1f} GFLOP a sample; {model['tflops']:.3g} TFLOP/s, {model['mfu']:.0%} of this "
        f"machine's matrix products ({model['peak_tflops']:.3g})"
    )
