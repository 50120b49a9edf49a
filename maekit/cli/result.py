"""What a training left behind: result.json, and the last words on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from maekit.cli.expected import tell_comparison
from maekit.cli.output import print_json, print_table
from maekit.engine.run_folder import plain, read_lines
from maekit.engine.training import Training, summary

if TYPE_CHECKING:
    from maekit.cli.training import Verb
    from maekit.engine.run_folder import RunFolder

# Of what was learned from labels, as fractions or in the labels' own units.
MEASURES = ("top1", "top5", "map", "exact", "r2", "mse", "mae")

Job = TypeVar("Job", bound=Training)


def make_result(verb: str, job: Training | None, folder: RunFolder, code: int) -> dict[str, Any]:
    """result.json as far as the run came."""
    result: dict[str, Any] = {"verb": verb, "exit": code}
    if job is None:
        return result
    state = job.state
    lines = (line for line in read_lines(folder.path / "metrics.jsonl") if "loss" in line)
    weights = folder.path / "weights.safetensors"
    film = folder.path / "pictures" / "timelapse.gif"
    whole: dict[str, Any] = plain(
        result
        | {
            "recipe": job.recipe.name,
            "steps": state.step,
            "samples": state.step * state.samples_per_step,
            "seconds": round(job.seconds, 1),
            **summary(lines),
            **job.result(),
            "bad_files": len(job.ledger),
            "weights": str(weights) if code == 0 and weights.is_file() else None,
            "timelapse": str(film) if film.is_file() else None,
        }
    )
    return whole


def tell_result(
    verb: Verb[Job], result: dict[str, Any], folder: RunFolder, *, json: bool, quiet: bool
) -> None:
    """The numbers on stdout; on stderr where things are, and what to type next."""
    if json:
        print_json(result)
    else:
        print_table(("result", ""), list(_rows(result)))
        if "expected" in result:
            tell_comparison(result["expected"])
    if quiet:
        return
    pictures = sorted((folder.path / "pictures").glob("*.png"))
    lines = [f"weights:  {result['weights']}"]
    if pictures:
        lines.append(f"pictures: {pictures[-1]}")
    if result.get("timelapse"):
        lines.append(f"film:     {result['timelapse']}")
    lines += verb.next_steps(result, folder.path)
    typer.echo("\n".join(lines), err=True)


def _rows(result: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield "steps", f"{result['steps']:,}"
    yield "minutes", f"{result['seconds'] / 60:.1f}"
    for key in ("loss_first", "loss_last"):
        value = result[key]
        yield key, "-" if value is None else f"{value:.4f}"
    for key, value in (result.get("holdout") or {}).items():
        yield f"holdout {key}", "-" if value is None else f"{value:.5f}"
    if "protocol" in result:
        yield "protocol", str(result["protocol"])
    measure = next((key for key in MEASURES if key in result), "top1")
    for key, value in (result.get("floor") or {}).items():
        yield f"floor {measure}: {key}", f"{value:.4f}"
    for key in MEASURES:
        if key in result:
            yield key, "-" if result[key] is None else f"{result[key]:.4f}"
    single = result.get("single_view") or {}
    for key in MEASURES:
        if single.get(key) not in (None, result.get(key)):  # of one view both are the same
            yield f"one view: {key}", f"{single[key]:.4f}"
    if result["bad_files"]:
        yield "bad files", f"{result['bad_files']}"
