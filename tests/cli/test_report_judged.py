"""``maekit report`` of runs that were judged: which are compared by sample, and which are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


def test_runs_judged_alike_otherwise_and_not_at_all(cli: Cli, two: str) -> None:
    views = "finetune.views={clips: 1, crops: 3}"
    for out, words in (("a", ()), ("b", (views,))):
        run = ("finetune.steps=1", *words, "--from", "scratch", "--out", out, "-q")
        assert cli("finetune", two, *run).code == 0
    for out in ("cut", "none"):
        shutil.copytree("a", out)
    text = Path("a/predictions.jsonl").read_text()
    Path("cut/predictions.jsonl").write_text(text[:-30])
    Path("none/predictions.jsonl").unlink()
    told = cli("report", "a", "b", "cut", "none")
    assert told.code == 0, told.err
    assert "judged by finetune/all/1x3, not finetune/all/1x1" in told.out
    last = len(text.splitlines())
    reasons = {
        "cut": f"line {last} of predictions.jsonl is cut short or not JSON",
        "none": "no predictions.jsonl",
    }
    for reason in reasons.values():
        assert reason in told.out
    record = json.loads(cli("report", "a", "b", "cut", "none", "--json").out)
    (pair,) = record["paired"]
    assert (pair["one"], pair["other"], pair["samples"]) == ("b", "a", last)
    assert {each["run"]: each["reason"] for each in record["not_paired"]} == reasons
    assert all(each["beside"] is None for each in record["not_paired"])
