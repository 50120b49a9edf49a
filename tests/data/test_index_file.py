"""Large arrays of a set lie in one file, and are never sent."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from maekit.data import index_file
from maekit.data.index_file import ArrayFile, keep, recall
from maekit.data.order import Order, Stream
from maekit.data.split import split_off
from maekit.datasets.file_lists import KeptPaths
from maekit.datasets.images import Images
from maekit.datasets.videos import Videos


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_file, "LARGE", 1000)
    return tmp_path / "cache/maekit/indices"


def write_list(folder: Path, rows: int, line: str = "pictures/{:05d}.png,{}") -> Path:
    (folder / "pictures").mkdir(exist_ok=True)
    for name in ("00000.png", "00000.mp4"):
        (folder / "pictures" / name).touch()
    path = folder / "list.csv"
    lines = [line.format(row, row % 3) for row in range(rows)]
    path.write_text("path,label\n" + "\n".join(lines) + "\n")
    return path


def same(one: Images | Videos, other: Images | Videos) -> bool:
    names = [[each.name(row) for row in range(len(each))] for each in (one, other)]
    return names[0] == names[1] and one.classes == other.classes and (
        list(one.labels if one.labels is not None else [])
        == list(other.labels if other.labels is not None else [])
    )  # fmt: skip


def test_a_list_is_read_once_and_found_by_its_content(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_list(tmp_path, 500)
    monkeypatch.setattr(index_file, "LARGE", 2**30)
    plain = Images(Images.Options(path=path))
    assert not cache.exists()
    monkeypatch.setattr(index_file, "LARGE", 1000)
    first = Images(Images.Options(path=path))
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("maekit.datasets.images.read_list", None)  # nothing is parsed again
        again = Images(Images.Options(path=path))
        moved = tmp_path / "copy.csv"
        moved.write_bytes(path.read_bytes())
        copied = Images(Images.Options(path=moved, root=tmp_path))
    assert isinstance(again._files.paths, KeptPaths)
    for each in (first, again, copied, pickle.loads(pickle.dumps(again))):
        assert same(each, plain)
    # Other content, or other options, are another index.
    path.write_text(path.read_text().replace("00499", "90499"))
    assert Images(Images.Options(path=path)).name(499).endswith("90499.png")
    assert Images(Images.Options(path=path, labels="none")).labels is None
    assert len(list(cache.iterdir())) == 3


def test_stretches_of_videos_and_folders_and_shares_are_kept_too(
    tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "list.txt"
    write_list(tmp_path, 1)
    path.write_text("".join(f"pictures/{row:05d}.mp4 {row} 16 {row % 4}\n" for row in range(300)))
    sets = [Videos(Videos.Options(path=path)) for _ in range(2)]
    assert sets[1]._spans[7].tolist() == sets[0]._spans[7].tolist() != sets[0]._spans[8].tolist()
    assert same(*sets)
    for number in range(200):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number:04d}.png").touch()
    folder = Images(Images.Options(path=tmp_path))
    assert isinstance(folder._files.paths, KeptPaths)
    train, val, _ = split_off(folder, 0.2, "sample")
    for each in (folder, train, val):
        copy = pickle.loads(pickle.dumps(each))
        assert [copy.name(row) for row in range(len(copy))] == [
            each.name(row) for row in range(len(each))
        ]
    assert len(pickle.dumps(train)) < len(pickle.dumps(train.rows))


def test_what_is_sent_does_not_grow_with_a_set(tmp_path: Path) -> None:
    sizes = [
        len(pickle.dumps(Images(Images.Options(path=write_list(tmp_path, rows)))))
        for rows in (500, 5000)
    ]
    assert abs(sizes[0] - sizes[1]) < 100


def test_paths_are_read_in_any_order(tmp_path: Path) -> None:
    found = Images(Images.Options(path=write_list(tmp_path, 5000)))
    rng = np.random.default_rng(0)
    for row in [0, 4999, 4095, 4096, *rng.integers(0, 5000, 50).tolist(), *range(4090, 4110)]:
        assert found.name(row).endswith(f"{row:05d}.png")
    for row in (-1, 5000):
        with pytest.raises(IndexError):
            found.name(row)


def test_a_late_sample_costs_as_many_reads_as_an_early_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Images(Images.Options(path=write_list(tmp_path, 5000)))
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(
        os, "pread", lambda file, count, place: reads.append(count) or pread(file, count, place)
    )
    costs = []
    for row in (9, 4900):
        reads.clear()
        found.name(row)
        costs.append(list(reads))
    assert costs[0] == costs[1]


def test_damaged_and_unwritable_indices_are_done_without(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_list(tmp_path, 500)
    made = Images(Images.Options(path=path))
    expected = [made.name(row) for row in (0, 499)]
    (file,) = cache.iterdir()
    for damage in (file.read_bytes()[:-10], b"", b"maekit-index-1\n{}\n"):
        file.write_bytes(damage)
        assert recall(file.stem) is None
        again = Images(Images.Options(path=path))
        assert [again.name(row) for row in (0, 499)] == expected
        assert recall(file.stem) is not None
    file.write_bytes(b"")  # in place, while it is open
    with pytest.raises(OSError, match="has changed"):
        again.name(7)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "list.csv"))  # no folder
    assert keep("key", {"a": np.zeros(3)}, {}) is None
    again = Images(Images.Options(path=path))
    assert not isinstance(again._files.paths, KeptPaths)
    assert same(again, pickle.loads(pickle.dumps(again)))


def test_an_index_holds_its_arrays_and_unused_ones_go(cache: Path) -> None:
    arrays = {"a": np.arange(7, dtype=np.int32), "b": np.ones((2, 3)), "c": np.zeros(0, np.uint8)}
    made = keep("old", arrays, {"words": ["x" * 100_000]})
    assert isinstance(made, ArrayFile)
    assert made.plain == {"words": ["x" * 100_000]}
    for name in "ab":
        assert np.array_equal(made.array(name), arrays[name])
    assert made.read("a", 2, 5).tolist() == [2, 3, 4]
    os.utime(made.path, (0, 0))
    keep("new", {}, {})
    assert [path.name for path in cache.iterdir()] == ["new.idx"]


@pytest.mark.parametrize("shuffle", ["full", "window", "none"])
def test_the_order_of_a_billion_samples_takes_no_more_memory(shuffle: str) -> None:
    peaks = []
    for samples in (10**6, 10**9):
        stream = Stream(Order(samples, seed=0, shuffle=shuffle), 256)  # type: ignore[arg-type]
        stream.keys(0)
        tracemalloc.start()
        for step in (0, samples // 256 - 1, 3 * (samples // 256) + 7):
            assert len(set(stream.keys(step))) == 256
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0] + 10_000
