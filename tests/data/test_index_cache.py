"""Indices of videos kept on disk: found again, never wrong, whatever happens to their files."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import fields, replace
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import Recipe, encode

from maekit.data import index_cache as module
from maekit.data import video as video_module
from maekit.data import video_index
from maekit.data.index_cache import IndexCache, Key
from maekit.data.video import open_video
from maekit.data.video_index import Index
from maekit.errors import DataError

KINDS = {
    "a.mp4": Recipe(frames=30),
    "a.ts": Recipe(frames=30),
    "a.avi": Recipe("mpeg4", frames=30),
    "a.webm": Recipe("libvpx", frames=30, options={"deadline": "realtime"}),
    "a.mkv": Recipe("ffv1", frames=30, gaps={7: 50}),
    "a.h264": Recipe(frames=30),
}
LONG_AGO = 1_600_000_000_000_000_000


def made(path: Path, recipe: Recipe) -> Path:
    encode(path, recipe)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def key_of(path: Path) -> Key:
    return str(path), path.stat().st_size, path.stat().st_mtime_ns


def an_index(frames: int = 9, seed: int = 0) -> Index:
    times = np.cumsum(np.random.default_rng(seed).integers(1, 1000, frames))
    plain = {"fps": 25.0, "height": 4, "width": 6, "channels": 3, "orientation": 1, "tick": 0.04}
    return Index(
        frames, intra=False, interlaced=False, times=times, timed=True, keys=times[::4], **plain
    )


def same(one: Index, other: Index) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Index)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def never(path: str) -> Index:
    raise AssertionError(f"{path} is looked at")


def missing(path: str) -> Index:
    raise FileNotFoundError(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_video_is_looked_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finds its index, and opens nothing but that."""
    if KINDS[name].codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {KINDS[name].codec}")
    path = str(made(tmp_path / name, KINDS[name]))
    monkeypatch.setattr(video_module, "index_cache", IndexCache(tmp_path / "kept"))
    first = open_video(path)
    monkeypatch.setattr(video_module, "index_cache", IndexCache(tmp_path / "kept"))
    with monkeypatch.context() as patch:
        patch.setattr(video_index.av, "open", never)
        again = open_video(path)
        monkeypatch.chdir(tmp_path)
        assert same(open_video(name).index, first.index)
    assert same(again.index, first.index)
    np.testing.assert_array_equal(again.decode([29, 3]), first.decode([29, 3]))


@pytest.mark.parametrize("changed", ["size", "time", "place"])
def test_a_changed_file_is_another_one(changed: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a" * 99)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    IndexCache(tmp_path / "kept").put(key_of(path), an_index())
    assert same(IndexCache(tmp_path / "kept").get(key_of(path), never), an_index())
    if changed == "size":
        path.write_bytes(b"a" * 98)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    elif changed == "time":
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
    else:
        path = path.rename(tmp_path / "b.mp4")
    with pytest.raises(FileNotFoundError):
        IndexCache(tmp_path / "kept").get(key_of(path), missing)


def filled(folder: Path, count: int) -> dict[Key, Index]:
    """Keep indices of files of one byte."""
    indices: dict[Key, Index] = {}
    for number in range(count):
        path = folder / f"{number}.mp4"
        path.write_bytes(b"a")
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
        indices[key_of(path)] = an_index(5 + number % 7, seed=number)
    cache = IndexCache(folder / "kept")
    for key, index in indices.items():
        cache.put(key, index)
    return indices


def test_damage_costs_a_look_and_never_gives_another_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IndexCache, "_file", lambda self, wanted: self._folder / "all.idx")
    indices = filled(tmp_path, 12)
    kept = tmp_path / "kept" / "all.idx"
    whole, rng = kept.read_bytes(), np.random.default_rng(0)
    looked = 0
    for turn in range(60):
        content = bytearray(whole)
        if turn % 3 == 0:
            del content[int(rng.integers(len(whole))) :]
        elif turn % 3 == 1:
            start = int(rng.integers(len(whole)))
            del content[start : start + int(rng.integers(1, 60))]
        for place in rng.integers(0, max(1, len(content)), 4 if content else 0):
            content[place] ^= int(rng.integers(1, 256))
        kept.write_bytes(content)
        for key, index in indices.items():
            looks: list[str] = []
            found = IndexCache(tmp_path / "kept").get(
                key, lambda path, index=index, looks=looks: looks.append(path) or index
            )
            assert same(found, index)
            looked += len(looks)
            assert same(IndexCache(tmp_path / "kept").get(key, never), index)  # made good
    assert 60 < looked < 60 * 12 * 0.9


@pytest.mark.parametrize("place", ["a file for the folder", "folders for the files", "no home"])
def test_a_cache_that_cannot_be_written_costs_only_time(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    kept = tmp_path / "kept"
    if place == "a file for the folder":
        kept.touch()
    elif place == "folders for the files":
        for number in range(256):
            (kept / f"{number:02x}.idx").mkdir(parents=True)
    else:

        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", homeless)
        monkeypatch.setattr(Path, "home", lambda: homeless(Path()))
    cache = IndexCache(None if place == "no home" else kept)
    index = an_index()
    assert cache.get(key_of(path), lambda _: index) is index
    assert cache.get(key_of(path), never) is index
    with pytest.raises(FileNotFoundError):
        IndexCache(None if place == "no home" else kept).get(key_of(path), missing)


def test_what_is_found_damaged_on_reading_is_kept_and_a_failing_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "a.mp4", KINDS["a.mp4"])
    monkeypatch.setattr(video_module, "index_cache", IndexCache(tmp_path / "kept"))
    video = open_video(str(path))
    assert video.index.timed
    with monkeypatch.context() as patch:  # as a disk that is away for a moment

        def failing(*_: object, **__: object) -> None:
            raise av.error.InvalidDataError(1, "gone")

        patch.setattr(type(video), "_fill", failing)
        with pytest.raises(DataError):
            video.decode([3])
    assert IndexCache(tmp_path / "kept").get(key_of(path), never).timed
    times = video.index.times + (np.arange(30) == 10)  # and as packets that say something else
    wrong = replace(video, index=replace(video.index, times=times))
    assert wrong.decode([10]).shape == (1, 48, 64, 3)
    assert not IndexCache(tmp_path / "kept").get(key_of(path), never).timed


def test_who_has_no_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    index = an_index()
    assert IndexCache().get(key_of(path), lambda _: index) is index


def test_what_may_be_wrong_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a")  # now: a second change might not show in its time
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    old = key_of(path)
    kept = tmp_path / "kept"
    os.utime(path)
    IndexCache(kept).put(key_of(path), an_index())
    IndexCache(kept).put(old, an_index())  # it changed while it was looked at
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    IndexCache(kept).put(old, replace(an_index(), passing=True))  # a disk that answered no more
    assert not list(kept.glob("*"))
    IndexCache(kept).put(old, an_index())
    assert same(IndexCache(kept).get(old, never), an_index())
    for name, value in (("VERSION", module.VERSION + 1), ("av", _Other())):  # another maekit, or av
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(FileNotFoundError):
                IndexCache(kept).get(old, missing)


class _Other:
    library_versions = av.library_versions | {"libavcodec": (99, 0, 0)}


def test_files_stay_within_bounds_and_keep_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IndexCache, "_file", lambda self, wanted: self._folder / "all.idx")
    monkeypatch.setattr(module, "_FILE_BYTES", 8000)
    indices = filled(tmp_path, 100)
    kept = tmp_path / "kept" / "all.idx"
    assert 3000 < kept.stat().st_size <= 8000
    for key, index in list(indices.items())[-10:]:
        assert same(IndexCache(tmp_path / "kept").get(key, never), index)
    with pytest.raises(FileNotFoundError):
        IndexCache(tmp_path / "kept").get(next(iter(indices)), missing)
    # What others left there goes, too; and so does an index that is no longer of any file.
    with kept.open("ab") as file:
        file.write(b"mkvi" * 5000)
    key, index = list(indices.items())[-1]
    for turn in range(40):
        os.utime(key[0], ns=(LONG_AGO, LONG_AGO + turn))
        IndexCache(tmp_path / "kept").put(key_of(Path(key[0])), index)
    assert kept.stat().st_size <= 8000
    for key, index in list(indices.items())[-10:-1]:
        assert same(IndexCache(tmp_path / "kept").get(key, never), index)
    assert not list(kept.parent.glob(".partial-*"))


def _keep(folder: Path, numbers: range) -> None:
    cache = IndexCache(folder / "kept")
    for number in numbers:
        cache.put(key_of(folder / f"{number}.mp4"), an_index(200, seed=number))


@pytest.mark.parametrize("limit", [2**21, 30_000])
def test_processes_write_at_once(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is torn: at worst one is lost where a file is written anew at that moment."""
    monkeypatch.setattr(IndexCache, "_file", lambda self, wanted: self._folder / "all.idx")
    monkeypatch.setattr(module, "_FILE_BYTES", limit)
    for number in range(120):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"a")
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=_keep, args=(tmp_path, range(n, 120, 4))) for n in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()
        assert other.exitcode == 0
    found = 0
    for number in range(120):
        key = key_of(tmp_path / f"{number}.mp4")
        index = IndexCache(tmp_path / "kept")._read(key)
        if index is not None:
            assert same(index, an_index(200, seed=number))
            found += 1
    assert found == 120 if limit > 30_000 else found > 5
    assert (tmp_path / "kept" / "all.idx").stat().st_size <= limit + 4 * 600


FIVE_MINUTES = {
    "long.mp4": Recipe(options={"preset": "ultrafast", "g": "250"}, frames=7500),
    "long.ts": Recipe(options={"preset": "ultrafast", "g": "250"}, frames=7500),
    "long.avi": Recipe("mpeg4", options={"g": "250"}, frames=7500),
    "long.webm": Recipe("libvpx", options={"deadline": "realtime", "cpu-used": "8"}, frames=7500),
}


@pytest.mark.nightly
def test_opening_50_videos_again_costs_little_more_than_their_indices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five minutes each: at most 2 ms of CPU more than reading their index (issue 14)."""
    paths: list[str] = []
    for name, recipe in FIVE_MINUTES.items():
        first = made(tmp_path / name, replace(recipe, rate=25))
        for number in range(13 if len(paths) < 26 else 12):
            paths.append(str(first.with_name(f"{number} {name}")))
            os.link(first, paths[-1])
    assert len(paths) == 50
    times: dict[str, list[float]] = {"first": [], "again": [], "index": []}
    for turn in ("first", "again", "index"):
        cache = IndexCache(tmp_path / "kept")
        monkeypatch.setattr(video_module, "index_cache", cache)
        for path in paths:
            key, start = key_of(Path(path)), time.process_time()
            if turn == "index":
                assert cache._read(key) is not None
            else:
                assert open_video(path).info.frames == 7500
            times[turn].append(time.process_time() - start)
    more = np.array(times["again"]) - np.array(times["index"])
    shown = {turn: f"{1000 * np.mean(each):.2f} ms" for turn, each in times.items()}
    print(shown, f"more: {1000 * more.max():.2f} ms at most")  # noqa: T201
    assert more.max() < 2e-3, shown
