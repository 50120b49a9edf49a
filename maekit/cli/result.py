"""The last words of a run on the terminal: its numbers, and how they compare with expected ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maekit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pathlib import Path

# Of what was learned from labels, as fractions or in the labels' own units.
MEASURES = ("top1", "top5", "map", "exact", "r2", "mse", "mae")


def print_result(
    result: dict[str, Any], folder: Path, *, next_steps: Sequence[str], json: bool, quiet: bool
) -> None:
    """Print the numbers on stdout; on stderr where things are, and what to type next."""
    if json:
        print_json(result)
    else:
        print_table(("result", ""), list(_rows(result)))
        if "expected" in result:
            print_comparison(result["expected"])
    if quiet:
        return
    pictures = sorted((folder / "pictures").glob("*.png"))
    lines = [f"weights:  {result['weights']}"]
    if pictures:
        lines.append(f"pictures: {pictures[-1]}")
    if result.get("timelapse"):
        lines.append(f"film:     {result['timelapse']}")
    lines += next_steps
    say("\n".join(lines), err=True)


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
        yield "bad files", f"{result['bad_files']}, listed in bad_files.jsonl"


def print_comparison(records: Sequence[Mapping[str, Any]]) -> None:
    """Print what was compared, or that nothing was expected."""
    rows = [
        (
            " ".join(str(each[key]) for key in ("metric", "protocol") if each[key]),
            "-" if each["value"] is None else f"{each['value']:.4f}",
            f"{each['expected']:.4f}",
            "-" if each["low"] is None else f"{each['low']:.4f} to {each['high']:.4f}",
            _verdict(each),
            str(each["source"]),
        )
        for each in records
    ]
    print_table(
        ("metric", "measured", "expected", "band", "verdict", "source"),
        rows or [("nothing", "", "", "", "the recipe expects no number of this verb", "")],
    )


def _verdict(record: Mapping[str, Any]) -> str:
    found = record["result_protocol"]
    if record["protocol"] not in (None, found):
        return f"not compared: this run's protocol is {found or 'unnamed'}"
    if record["value"] is None:
        return "not measured"
    return {True: "inside", False: "OUTSIDE", None: "no band"}[record["inside"]]
