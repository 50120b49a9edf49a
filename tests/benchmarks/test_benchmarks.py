"""The benchmarks run, and count as they say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import images, run, videos
from benchmarks.sides import Group, compare


def test_turns_and_ratios() -> None:
    now = 0.0
    turns: list[str] = []

    def work(name: str, seconds: float) -> object:
        def once(_: int) -> None:
            nonlocal now
            now += seconds
            turns.append(name)

        return once

    sides = {"ours": work("ours", 2.0), "theirs": work("theirs", 3.0), "slow": work("slow", 8.0)}
    found = compare(Group("g", "ms", sides, clock=lambda: now), pairs=4)  # type: ignore[arg-type]
    assert {name: side["ratio"] for name, side in found["sides"].items()} == {
        "ours": 1.0, "theirs": 1.5, "slow": 4.0,
    }  # fmt: skip
    assert found["sides"]["slow"]["median"] == 8000
    assert turns[3:9] == ["ours", "theirs", "slow", "theirs", "slow", "ours"]  # none is always last


def test_images_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    run.main(["--only", "images", "--pairs", "1", "--samples", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    (group,) = found["groups"].values()
    assert group["sides"]["maekit"]["ratio"] == 1.0
    assert group["facts"]["pixels"] == "equal Pillow's, bit for bit"
    assert found["commit"]
    assert found["machine"]["cores"]
    assert "| maekit |" in out.with_suffix(".md").read_text() == capsys.readouterr().out


@pytest.mark.slow
def test_videos_steps_and_scaling(tmp_path: Path) -> None:
    for group in videos.groups(tmp_path, samples=1):
        assert group.facts["frames equal a plain decode"]
        assert compare(group, 1)["sides"]["maekit"]["ratio"] == 1.0
    assert images.photo(8, 9, 0).shape == (8, 9, 3)
    options = argparse.Namespace(step_batch=1, clips=1, samples=8, pairs=1)
    (first, *_) = run.groups("steps", tmp_path, options)
    found = compare(first, 1)
    assert found["facts"]["flops of a step"] > 1e9
