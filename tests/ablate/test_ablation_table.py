"""What a table says of numbers that are worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_sweeps import sweep_recipe

from maekit.ablate.differences import difference
from maekit.ablate.flops import Flops, count_flops
from maekit.ablate.plan import make_plan
from maekit.ablate.plot import write_plot
from maekit.ablate.sweep import Failure
from maekit.ablate.table import SweepTable, make_table
from maekit.ablate.values import Measured
from maekit.ablate.write import as_csv, as_markdown, cells, columns, write_table
from maekit.errors import RecipeError
from maekit.recipe.load import read
from maekit.registry import resolve
from maekit.visualize.report.numbers import MISSING
from maekit.visualize.report.paired import Paired
from maekit.visualize.report.run import Predictions


def judged(right: list[int], first: int = 0) -> Predictions:
    rows = np.arange(first, first + len(right))
    return Predictions(rows, rows.astype(np.uint64), np.array(right, bool), "")


def test_differences_are_paired_over_seeds_and_samples() -> None:
    apart = difference({0: 0.5, 1: 0.6, 7: 0.9}, {0: 0.4, 1: 0.4, 2: 0.1})
    assert apart is not None
    assert (apart.seeds, apart.over_samples) == (2, None)
    assert apart.value == pytest.approx(0.15)
    # 0.1 and 0.2: a deviation of sqrt(0.005), over sqrt(2).
    assert apart.over_seeds == pytest.approx(0.05)
    assert apart.resolved
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_the_error_that_the_report_gives() -> None:
    one, other = judged([1, 1, 1, 0, 1, 1, 0, 1]), judged([1, 0, 0, 0, 1, 1, 1, 0])
    apart = difference({3: 6 / 8}, {3: 4 / 8}, {3: one}, {3: other})
    assert apart is not None
    report = Paired(0, 1, 8, only_one=3, only_other=1)
    assert (apart.samples, apart.over_seeds) == (8, None)
    assert apart.error == pytest.approx(report.error)
    assert apart.value == pytest.approx(report.difference)
    elsewhere = difference({3: 0.5}, {3: 0.5}, {3: one}, {3: judged([1] * 8, first=5)})
    assert elsewhere is not None
    assert elsewhere.error is None, "other samples are not paired"


def test_both_parts_of_the_error_are_added_in_squares() -> None:
    ours = {0: judged([1, 1, 0, 0]), 1: judged([1, 1, 1, 0])}
    base = {0: judged([1, 0, 0, 0]), 1: judged([1, 0, 0, 0])}
    apart = difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.25}, ours, base)
    assert apart is not None
    # Of each sample over seeds: 0, 1, 0.5, 0.
    assert apart.over_samples == pytest.approx(np.std([0, 1, 0.5, 0]) / 2)
    assert apart.over_seeds == pytest.approx(0.125)
    assert apart.error == pytest.approx(math.hypot(0.125, np.std([0, 1, 0.5, 0]) / 2))


PAPER = {
    "ablate": {
        "rows": {
            **dict.fromkeys(("random 50", "half tuned", "scratch")),
            "random 75": {},
            "block 50": {"set": {"pretrain.masker.ratio": 0.6}},
            "block 75": {"set": {"pretrain.masker.ratio": 0.7}},
            "grid 75": {"set": {"pretrain.masker.ratio": 0.8}},
        },
        "measure": ["linear", "holdout_loss"],
        "compare_to": "random 75",
        "seeds": [0, 1],
        "reference": {
            "table": "mae_t1f_mask_sampling", "columns": {"linear": "lin"}, "noise": {"linear": 2},
        },
    },
}  # fmt: skip
# In the paper: 73.5, 72.3, 63.9, 66.0; 2 points are no difference.
LINEAR = {"random 75": 0.5, "block 50": 0.3, "block 75": 0.4, "grid 75": 0.301}


def a_table(values: dict[str, float], spread: float, **options: Any) -> SweepTable:
    plan = make_plan(sweep_recipe(PAPER))
    found = {row.name: Measured() for row in plan.rows}
    for place, (name, value) in enumerate(values.items()):
        noise = spread * (1, -1, 2, -2)[place]
        found[name].values["linear"] = {0: value - noise, 1: value + noise}
    return make_table(plan, found, options.get("failed", {}), set())


def test_the_order_is_compared_with_the_papers() -> None:
    [sentence] = a_table(LINEAR, 0.002).verdicts
    assert sentence.startswith(
        "linear: of 5 pairs that differ in the paper (lin), 2 as in the paper"
    )
    assert "(random 75 above block 75, random 75 above grid 75)" in sentence
    assert (
        "2 the other way round than the paper (block 50 above block 75, grid 75 above" in sentence
    )
    assert "1 not told apart here (block 50 above grid 75)" in sentence
    assert sentence.endswith("; 1 more are equal there.")


def test_a_table_that_drowns_in_its_spread_says_so() -> None:
    first, second = a_table(LINEAR, 0.3).verdicts
    assert "no two rows differ by more than twice their standard error" in first
    assert "0 as in the paper, 0 the other way round than the paper, 5 not told apart" in second


def test_what_is_written(tmp_path: Path) -> None:
    plan = make_plan(sweep_recipe(PAPER))
    failed = {plan.rows[-1].jobs[1]["linear"]: Failure(3, "other weights\n  try: these")}
    values = {name: LINEAR[name] for name in ("random 75", "block 50", "block 75")}
    table = a_table(values, 0.01, failed=failed)
    assert columns(table) == [
        "row", "linear, %", "to random 75", "paper: lin", "held-out loss", "to random 75",
    ]  # fmt: skip
    base, block, _, grid = (cells(each, table) for each in table.rows)
    assert base == ["random 75", "50.0 ± 1.4", "base", "73.5", MISSING, "base"]
    assert block == [
        "block 50",
        "30.0 ± 1.4",
        "\N{MINUS SIGN}20.0 ± 2.0 *",
        "72.3",
        MISSING,
        MISSING,
    ]
    assert grid == ["grid 75 (exit 3)", MISSING, MISSING, "66", MISSING, MISSING]
    text = as_markdown(table)
    assert "| **random 75** | 50.0 ± 1.4 | base | 73.5 |" in text
    assert "- grid 75: exit 3: other weights\n    try: these" in text
    assert "MAE (He et al. 2021, arXiv 2111.06377), Table 1f" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert float(rows[1]["linear_difference"]) == pytest.approx(-0.2)
    assert [row["exit"] for row in rows] == ["0", "0", "0", "3"]
    write_table(table, tmp_path)
    record = json.loads((tmp_path / "table.json").read_text())
    assert record["rows"][1]["paper"] == {"linear": 72.3}
    assert write_plot(table, tmp_path)
    first = [(tmp_path / f"plot.{form}").read_bytes() for form in ("png", "svg")]
    assert first[0].startswith(b"\x89PNG")
    assert b"block 75" in first[1]
    write_plot(table, tmp_path)
    assert (tmp_path / "plot.svg").read_bytes() == first[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "mae_t1g"}, "no table mae_t1g"),
        ({"columns": {"linear": "linear"}}, "no column linear"),
        ({"rows": {"block 50": ["block", 51]}}, r"no row that begins with \['block', 51\]"),
    ],
)
def test_what_the_paper_lacks_is_an_error(change: dict[str, Any], message: str) -> None:
    plan = make_plan(sweep_recipe(PAPER, {"ablate": {"reference": change}}))
    found = {row.name: Measured() for row in plan.rows}
    with pytest.raises(RecipeError, match=message):
        make_table(plan, found, {}, set())


def counted(recipe: str, *words: str) -> Flops:
    return count_flops(resolve(read(f"ablations/{recipe}", words), "pretrain"))


def blocks(depth: int, width: int, tokens: int) -> int:
    return depth * (12 * width**2 * tokens + 2 * tokens**2 * width)


def test_flops_are_the_closed_form() -> None:
    flops = counted("mae_tiny")
    # 16 of 64 tokens and the class token; the head predicts the 48 hidden ones.
    assert flops.encoder == 2 * (48 * 96 * 16 + blocks(3, 96, 17))
    assert flops.decoder == 2 * (96 * 64 * 17 + blocks(2, 64, 65) + 64 * 48 * 48)
    assert flops.forward == flops.encoder + flops.decoder
    assert flops.total / flops.forward == pytest.approx(3.0, rel=0.02)
    half = counted("mae_tiny", "pretrain.decoder_masker={name: random, ratio: 0.375}")
    assert half.decoder < flops.decoder, "half of the hidden tokens are predicted"
    both = counted("mae_tiny", "pretrain.loss_on=all")
    assert both.decoder == flops.decoder + 2 * 64 * 48 * 16


@pytest.mark.slow  # two ViT-L, of no memory
def test_a_mask_token_in_the_encoder_costs_what_the_paper_says() -> None:
    without = counted("mae_base")
    assert without.encoder == 2 * (768 * 1024 * 49 + blocks(24, 1024, 50))
    assert without.decoder == 2 * (1024 * 512 * 50 + blocks(8, 512, 197) + 512 * 768 * 147)
    # 67.01 over 20.76 GMAC in closed form; the paper's table 1c: 3.3.
    ratio = counted("mae_base", "model.backbone.mask_token=true").total / without.total
    assert ratio == pytest.approx(3.23, rel=0.02)
