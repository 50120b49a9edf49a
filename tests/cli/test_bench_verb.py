"""``maekit bench`` as a user types it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks import videos
from own_process import run

from maekit.engine import bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0.2)
    monkeypatch.setattr(bench, "STEP", 0.2)
    monkeypatch.setattr(bench, "_SIDE", {"cpu": 256})


@pytest.mark.usefixtures("_short")
def test_a_table_and_a_sentence_or_json(cli: Cli, small: str) -> None:
    before = sorted(Path().rglob("*"))
    shown = cli("bench", small)
    assert shown.code == 0, shown.err
    for word in ("model alone", "loader alone", "data wait", "decode", "hold"):
        assert word in shown.out
    found = json.loads(cli("bench", small, "--json", "-q").out)
    assert (found["verb"], found["exit"]) == ("bench", 0)
    assert set(found["model"]) >= {"step_ms", "samples_per_second", "mfu", "memory_bytes"}
    assert set(found["loader"]) >= {"samples_per_second", "read_ms", "decode_ms", "hand_over_ms"}
    assert found["bottleneck"] in ("model", "loader", "both")
    assert sorted(Path().rglob("*")) == before  # it writes nothing


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("names", [
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
])  # fmt: skip
def test_ranks_are_refused(
    cli: Cli, small: str, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names[0], "0")
    monkeypatch.setenv(names[1], "2")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    refused = cli("bench", small, "-q")
    assert (refused.code, "started 2 ranks" in refused.err) == (2, True)


@pytest.mark.usefixtures("_short")
def test_without_the_data_or_the_section(cli: Cli, small: str) -> None:
    words = ("data.train.path=nowhere", "--json", "-q")
    assert cli("bench", small, *words).code == 6
    assert cli("bench", small, *words, "--samples", "64").code == 0
    assert cli("bench", small, "~pretrain").code == 2


def clips(folder: Path) -> tuple[str, ...]:
    files = videos.draw(folder / "clips", 8, 250)
    (folder / "list.txt").write_text("".join(f"{file} 0\n" for file in files))
    return f"data.train.path={folder / 'list.txt'}", "~data.val"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "recipe",
    [
        "tiny_images",
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("quickstart", "quickstart_video", "videomae_k400")
        ),
    ],
)
def test_shipped_recipes_take_two_minutes(
    recipe: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By the processor time of all its processes: two minutes of all cores are never more."""
    words: tuple[str, ...] = ()
    if recipe == "tiny_images":
        data = request.getfixturevalue("shared_data") / "tiny-imagenet-20"
        words = (f"data.train.path={data / 'train'}", f"data.val.path={data / 'val'}")
    elif recipe == "videomae_k400":
        words = clips(tmp_path)
    before = os.times()
    found = run(tmp_path, "bench", recipe, *words)
    after = os.times()
    busy = after.children_user - before.children_user
    busy += after.children_system - before.children_system
    assert busy < 120 * (os.cpu_count() or 1)
    assert found["both"]["steps"] >= 1
    assert found["bottleneck"] in ("model", "loader", "both")
    assert found["advice"]
    assert found["model"]["batch"] >= 1
