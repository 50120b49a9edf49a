"""A probe of clips stands beside what moves in them, which is to be had without learning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_recipes import VIDEOS, Recipe, sets, write_clip, write_recipe

from maekit.cli.probe import _NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Result

    Cli = Callable[..., Result]

SIDE = 32
DRIFTING: Recipe = {
    "name": "drifting",
    "model": {"backbone": {"width": 16}},
    "probe": {"kind": "knn", "knn": {"k": 1, "temperature": None}},
}


def drift(path: Path, down: bool, seed: int) -> None:
    """Film a blurred square on gray that moves along one axis, from a random place."""
    rng = np.random.default_rng(seed)
    place = rng.integers(4, 12, 2)
    color = rng.integers(0, 2, 3) * 255
    frames = np.full((4, SIDE, SIDE, 3), 128, np.uint8)
    for step in range(4):
        top, left = place + 4 * step * np.array([down, not down])
        frames[step, top : top + 8, left : left + 8] = color
    write_clip(path, frames)


@pytest.fixture
def drifting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a recipe over clips that only their motion tells apart."""
    monkeypatch.chdir(tmp_path)
    for name, first, each in (("train", 0, 40), ("val", 1000, 10)):
        rows = []
        for number in range(each):
            drift(tmp_path / f"{name}{number}.mp4", number % 2 == 0, first + number)
            rows.append(f"{name}{number}.mp4 {number % 2}\n")
        (tmp_path / f"{name}.txt").write_text("".join(rows))
    lists = sets(tmp_path / "train.txt", tmp_path / "val.txt")
    return write_recipe(tmp_path / "drifting.yaml", VIDEOS, lists, DRIFTING, without=("pretrain",))


def test_differences_of_frames_are_a_floor_of_clips(cli: Cli, drifting: str) -> None:
    words = ("--from", "scratch", "--out", "out", "--json", "-q")
    made = cli("probe", drifting, *words)
    assert made.code == 0, made.err
    floor = json.loads(made.out)["floor"]
    assert list(floor) == ["random", "pixels", "differences"]
    assert floor["differences"] == 1.0
    told = cli("probe", drifting, "--from", "scratch", "--out", "told", "-q")
    assert f"floor: {_NAMES['differences']}" in " ".join(told.out.split())


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_every_kind_of_probe_has_it(cli: Cli, drifting: str, kind: str) -> None:
    more = ("probe.protocol=paper", "probe.steps=2", "probe.warmup.steps=0", "probe.batch.global=8")
    words = ("--from", "scratch", "--json", "-q", "--kind", kind, "probe.attentive.epochs=1")
    made = cli("probe", drifting, *words, *(more if kind == "linear" else ()))
    assert made.code == 0, made.err
    assert 0 <= json.loads(made.out)["floor"]["differences"] <= 1
