"""Samples that validation shares with training."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maekit.contracts import Dataset, Source
from maekit.data.overlap import Overlap, overlap


@dataclass
class Named(Dataset):
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def open(self, index: int) -> Source:
        raise NotImplementedError


def files(folder: Path, *names: str, seed: int = 0) -> Named:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.bytes(200))  # all of one size
    return Named([str(folder / name) for name in names])


def test_sets_apart_share_nothing_though_names_and_sizes_are_alike(tmp_path: Path) -> None:
    names = [f"{label}/{number}.npy" for label in "abc" for number in range(9)]
    train, val = files(tmp_path / "train", *names), files(tmp_path / "val", *names, seed=1)
    assert overlap(train, val) is None
    assert overlap(Named([]), val) is None
    drawn = Named([f"set/train/{n}" for n in range(9)]), Named([f"set/val/{n}" for n in range(9)])
    assert overlap(*drawn) is None


def test_the_same_files_are_found_however_they_are_named(tmp_path: Path) -> None:
    train = files(tmp_path, *(f"{n}.png" for n in range(10)))
    assert overlap(train, train) == Overlap(10, 0, train.names[0])
    val = Named([f"{tmp_path}/x/../3.png", f"{tmp_path}//4.png", f"{tmp_path}/new.png"])
    assert overlap(train, val) == Overlap(2, 0, f"{tmp_path}/3.png")
    assert overlap(train, Named([train.names[2]] * 3)) == Overlap(3, 0, train.names[2])


def test_copies_are_found_by_name_size_and_content(tmp_path: Path) -> None:
    names = [f"{label}/{number}.png" for label in "ab" for number in range(6)]
    train = files(tmp_path / "train", *names)
    val = files(tmp_path / "val", *names, seed=1)
    for name in names[:3]:
        shutil.copy(tmp_path / "train" / name, tmp_path / "val" / name)
    assert overlap(train, val) == Overlap(0, 3, f"{tmp_path}/val/a/0.png")
    flat = files(tmp_path / "flat", "7.png", "odd.png", seed=2)  # in no folder of its class
    shutil.copy(tmp_path / "flat" / "odd.png", tmp_path / "train" / "a")
    train.names.append(f"{tmp_path}/train/a/odd.png")
    assert overlap(train, flat) == Overlap(0, 1, f"{tmp_path}/flat/odd.png")


def test_of_many_copies_some_are_compared(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(400)]
    train = files(tmp_path / "a", *names)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = overlap(train, Named([f"{tmp_path}/b/{name}" for name in names]))
    assert found == Overlap(0, 400, f"{tmp_path}/b/0.png")
