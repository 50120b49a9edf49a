"""``maekit replay``: make the updates again that ended a run, and say what is not finite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from maekit.cli.output import print_json, print_table, say
from maekit.cli.verbs import prepared
from maekit.engine.replay import FOLDER, Replayed, read_capture
from maekit.engine.replay import replay as made_again
from maekit.errors import RecipeError
from maekit.ranks import place_of
from maekit.runs import verb_of
from maekit.verbs import job_of

SHOWN = 3  # samples in a row of the table


def replay(
    run: Path, steps: list[int] | None, device: str | None, json: bool, quiet: bool, verbose: bool
) -> int:
    """Make captured updates again; return the exit code. Writes nothing but caches.

    Raises:
        RecipeError: a step was not captured, or a launcher started several ranks.
    """
    if place_of(os.environ).size > 1:
        msg = "this replays on one device, and a launcher started several ranks of it"
        raise RecipeError(msg, where="maekit replay", hint="start it without torchrun or srun")
    run = run.parent if run.name == FOLDER else run
    capture = read_capture(run)
    known = [step + 1 for step in capture.steps]
    strange = sorted(set(steps or ()) - set(known))
    if strange:
        msg = f"update {strange[0]} is not among those that were captured"
        hint = f"captured: {', '.join(map(str, known)) or 'none, as a measurement failed'}"
        raise RecipeError(msg, where="--step", hint=hint)
    verb = verb_of(run) or "pretrain"
    words = [f"{verb}.compile=false"]  # modules are watched, which a compiled graph has none of
    recipe = str(run / "recipe.yaml")
    with prepared(verb, recipe, words, device=device, quiet=quiet, verbose=verbose) as command:
        found, where, terminal = command
        job = job_of(verb, found)(found, where, terminal, checkpoint=capture.checkpoint)
        wanted = [step for step in capture.steps if not steps or step + 1 in steps]
        made = list(made_again(job, capture, wanted))
    if json:
        print_json(_as_dict(made))
    else:
        print_table(
            ("update", "loss", "gradient", "first not finite", "samples"),
            [_row(each) for each in made],
        )
        again = sum(not each.finite for each in made)
        say(f"{again} of {len(made)} updates are not finite again")
    return 0


def _as_dict(made: list[Replayed]) -> dict[str, Any]:
    rows = [each._asdict() | {"finite": each.finite} for each in made]
    return {"verb": "replay", "exit": 0, "updates": rows}


def _row(each: Replayed) -> tuple[str, ...]:
    loss, norm = ("not finite" if value is None else f"{value:.4g}" for value in each[1:3])
    names = "all" if each.samples is None else ", ".join(each.samples[:SHOWN])
    more = "" if each.samples is None else " ..." * (len(each.samples) > SHOWN)
    return str(each.step), loss, norm, each.module or "", f"{names}{more}"
