"""Exact frames of whatever PyAV decodes, and nothing silently wrong of what it does not."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_files import (
    Recipe,
    clip,
    encode,
    exif_video,
    pixels_of,
    plain_decode,
    plain_frames,
    without_a_gop,
)

from maekit.data import index_cache
from maekit.data import video as video_module
from maekit.data.video import open_video
from maekit.data.video_index import PacketUnits
from maekit.errors import DataError

GOPS = {"x264-params": "keyint=12:min-keyint=4:open-gop=1:bframes=3:b-pyramid=normal"}
CLOSED = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3"}
X265 = {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=4:log-level=none"}
CLOSED_X265 = {"x265-params": "keyint=12:min-keyint=12:open-gop=0:bframes=4:log-level=none"}
FAST = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
HIDDEN = {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}

# file: (how it is made, whether its times are trusted, channels)
KINDS: dict[str, tuple[Recipe, bool, int]] = {
    "open gops.mp4": (Recipe(options=GOPS), True, 3),
    "open gops.mkv": (Recipe(options=GOPS), True, 3),
    "intra refresh.mp4": (Recipe(options={"x264-params": "keyint=12:intra-refresh=1"}), True, 3),
    "interlaced.mp4": (
        Recipe(options={"flags": "+ildct+ilme", "x264-params": "tff=1:keyint=12"}), True, 3
    ),
    "fragments.mp4": (
        Recipe(options=GOPS, container={"movflags": "frag_keyframe+empty_moov"}), True, 3
    ),
    "uneven.mp4": (Recipe(options=GOPS, gaps={20: 30, 33: 5, 50: 200}), True, 3),
    "10 bit.mp4": (Recipe(pix_fmt="yuv420p10le", options=GOPS), True, 3),
    "hevc.mp4": (Recipe("libx265", options=CLOSED_X265), True, 3),
    "hevc, open gops.mp4": (Recipe("libx265", options=X265), False, 3),
    "vp9.webm": (Recipe("libvpx-vp9", options=FAST), True, 3),
    "vp8.webm": (Recipe("libvpx", options=FAST), True, 3),
    "vp8, hidden packets.webm": (Recipe("libvpx", options=HIDDEN), True, 3),
    "vp8, hidden packets.nut": (Recipe("libvpx", options=HIDDEN), False, 3),
    "mjpeg.mov": (Recipe("mjpeg", "yuvj420p"), True, 3),
    "prores.mov": (Recipe("prores_ks", "yuv422p10le"), True, 3),
    "b frames.avi": (Recipe("mpeg4", options={"g": "12", "bf": "2"}), False, 3),
    "stream.ts": (Recipe("mpeg2video", options={"g": "12", "bf": "2"}), False, 3),
    "raw.h264": (Recipe(options=GOPS), False, 3),
    "gray.mkv": (Recipe("ffv1", "gray"), False, 1),
    "gray 10 bit.mkv": (Recipe("ffv1", "gray10le"), False, 1),
    "alpha.mov": (Recipe("png", "rgba", frames=6), True, 3),
    "one frame.mp4": (Recipe(frames=1), True, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def gops(folder: Path) -> tuple[Path, list[np.ndarray]]:
    path = encode(folder / "gops.mp4", Recipe(options=CLOSED, frames=80))
    return path, plain_decode(path)


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_a_plain_decode(name: str, folder: Path) -> None:
    recipe, timed, channels = KINDS[name]
    if recipe.codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {recipe.codec}")
    path = encode(folder / name, recipe)
    truth = plain_decode(path)
    video = open_video(str(path))
    info = video.info
    assert (info.frames, info.height, info.width, info.channels, info.dtype) == (
        len(truth), 48, 64, channels, "uint8",
    )  # fmt: skip
    assert len(truth) == recipe.frames
    assert video.index.timed == timed
    rng = np.random.default_rng(0)
    for count in (1, 1, 1, 4, 9):
        ids = rng.integers(0, video.info.frames, count).tolist()
        np.testing.assert_array_equal(video.decode(ids), np.stack([truth[i] for i in ids]))
    ends = [video.info.frames - 1, 0]
    np.testing.assert_array_equal(video.decode(ends), np.stack([truth[i] for i in ends]))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 79), min_size=1, max_size=20))
def test_any_frames_in_any_order(gops: tuple[Path, list[np.ndarray]], ids: list[int]) -> None:
    path, truth = gops
    read = open_video(str(path)).decode(ids)
    np.testing.assert_array_equal(read, np.stack([truth[i] for i in ids]))


def test_there_is_no_such_frame(gops: tuple[Path, list[np.ndarray]]) -> None:
    video = open_video(str(gops[0]))
    for wrong in (-1, 80):
        with pytest.raises(IndexError, match=f"frame {wrong} of 80"):
            video.decode([0, wrong])
    assert video.decode([]).shape == (0, 48, 64, 3)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames decoded from now on, one entry for each run through packets."""
    counts: list[int] = []
    plain = video_module.decoded

    def counted(packets: object) -> object:
        counts.append(0)
        for frame in plain(packets):
            counts[-1] += 1
            yield frame

    monkeypatch.setattr(video_module, "decoded", counted)
    return counts


def test_far_frames_are_sought(
    gops: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth = gops
    video = open_video(str(path))
    counts = count_decoded(monkeypatch)
    read = video.decode([75, 2])
    np.testing.assert_array_equal(read, np.stack([truth[75], truth[2]]))
    assert sum(counts) < 30
    counts.clear()
    video.decode(range(40, 70))
    assert 30 <= sum(counts) < 60


@pytest.mark.parametrize("options", [
    {"x264-params": "keyint=250:bframes=3:b-pyramid=none"},
    {"x264-params": "keyint=12:bframes=3:b-pyramid=normal"},
    {"x264-params": "keyint=250:bframes=8:b-adapt=0"},
    {"flags": "+ildct+ilme", "x264-params": "keyint=40:tff=1:bframes=2"},
], ids=str)  # fmt: skip
def test_frames_that_nothing_needs_are_not_decoded(
    options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "b.mp4", Recipe(options=options, frames=60))
    truth, video = plain_decode(path), open_video(str(path))
    counts = count_decoded(monkeypatch)
    for ids in ([0, 59], range(3, 51, 4), [58, 7, 7, 21], range(60)):
        counts.clear()
        np.testing.assert_array_equal(video.decode(ids), np.stack([truth[i] for i in ids]))
        before = max(ids) - min(ids) + 1
        assert sum(counts) <= before + 12  # once: none of them is decoded anew without a seek
        if len(set(ids)) < 30:
            assert sum(counts) < 0.8 * before + 8


@pytest.mark.parametrize("options", [
    {"x264-params": "keyint=12:bframes=3:b-pyramid=normal"},
    {"flags": "+ildct+ilme", "x264-params": "keyint=12:tff=1:bframes=2"},
], ids=["frames", "fields"])  # fmt: skip
def test_nothing_behind_the_last_frame_is_decoded(
    options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But of interlaced videos, whose last frame may need another packet."""
    path = encode(tmp_path / "b.mp4", Recipe(options=options, frames=40))
    truth, video = plain_decode(path), open_video(str(path))
    with av.open(str(path)) as container:
        order = [packet.pts for packet in container.demux(video=0) if packet.size]
    sent: list[int] = []
    plain = video_module.decoded
    monkeypatch.setattr(
        video_module, "decoded", lambda packets: plain(sent.append(p.pts) or p for p in packets)
    )
    fields = "flags" in options
    assert video.index.interlaced == fields
    # Where the first frame does not say that there are fields, what comes last does.
    for index in (video.index, replace(video.index, interlaced=False)):
        for number in (0, 7, 23, 39):
            sent.clear()
            read = replace(video, index=index).decode([number])
            np.testing.assert_array_equal(read[0], truth[number])
            last = order.index(index.times[number])
            beyond = [time for time in sent if time is not None and order.index(time) > last]
            assert bool(beyond) == (fields and number < 39)


def test_only_pictures_that_say_so_are_spared() -> None:
    record = bytes([1, 100, 0, 30, 0xFF])  # lengths of four bytes

    def packet(*units: bytes) -> Any:
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)

    h264 = PacketUnits("h264", record)
    delimiter, remark, spare, needed, key = b"\x09\x10", b"\x06ab", b"\x01xx", b"\x41xx", b"\x65xx"
    assert h264.spare(packet(delimiter, remark, spare))
    assert h264.spare(packet(spare, spare))
    for units in ((needed,), (spare, needed), (key,), (remark,), (b"\x07sps", spare), (b"\x02a",)):
        assert not h264.spare(packet(*units))
    for broken in (b"", b"\0\0", packet(spare)[:-1], packet(spare) + b"\0", b"\0\0\0\0"):
        assert not h264.spare(broken)  # type: ignore[arg-type]
    start_codes = PacketUnits("h264", b"\0\0\0\1")
    assert not start_codes.spare(b"\0\0\0\1" + spare)  # type: ignore[arg-type]
    for other in ("hevc", "vp9", "mpeg4"):
        assert not PacketUnits(other, record).spare(packet(spare))


@pytest.mark.parametrize("how", ["early", "late", "nowhere", "lost"])
def test_a_seek_that_goes_astray_costs_only_time(
    how: str, gops: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth = gops
    plain = video_module._sought

    def astray(container: object, stream: object, keys: np.ndarray, key: int) -> object:
        if how == "early":
            return plain(container, stream, keys, keys[0])
        if how == "late":
            container.seek(int(keys[-1]), stream=stream)
            return key, iter(container.demux(stream))
        if how == "nowhere":
            return key, iter(())
        raise av.error.InvalidDataError(1, "no seek")

    monkeypatch.setattr(video_module, "_sought", astray)
    video = open_video(str(path))
    np.testing.assert_array_equal(video.decode([50]), np.stack([truth[50]]))


@pytest.mark.parametrize("name", ["libx264.mp4", "libx265.mp4", "libx264.mkv", "libx265.mkv"])
def test_files_cut_at_open_gops(name: str, tmp_path: Path) -> None:
    codec = name.partition(".")[0]
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    recipe = Recipe(codec, options=GOPS if codec == "libx264" else X265)
    path = without_a_gop(encode(tmp_path / f"whole {name}", recipe), tmp_path / name)
    truth = plain_decode(path)
    assert 30 < len(truth) < 60
    for number, frame in enumerate(truth):
        np.testing.assert_array_equal(open_video(str(path)).decode([number])[0], frame)
    assert open_video(str(path)).info.frames == len(truth)


def test_times_that_turn_out_wrong_are_counted_anew(
    gops: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, truth = gops
    monkeypatch.setattr(video_module, "index_cache", index_cache.IndexCache(tmp_path / "kept"))
    video = open_video(str(path))
    times = video.index.times.copy()
    times[10] += 1
    wrong = replace(video, index=replace(video.index, times=times))
    np.testing.assert_array_equal(wrong.decode([10])[0], truth[10])
    anew = open_video(str(path))
    assert not anew.index.timed
    assert anew.info.frames == 80
    longer = replace(video.index, frames=81, times=np.append(video.index.times, 10**9))
    with pytest.raises(DataError, match="decoding ends at frame 80 of 80"):
        replace(video, index=longer).decode([80])


@pytest.mark.parametrize("orientation", [1, 6])
def test_side_data_without_a_name(orientation: int, tmp_path: Path) -> None:
    path = exif_video(tmp_path / "a.mov", orientation)
    truth = plain_decode(path)
    video = open_video(str(path))
    assert video.info.frames == len(truth) == 5
    np.testing.assert_array_equal(video.decode(range(5)), np.stack(truth))


MATRICES = {
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("orientation", MATRICES)
def test_what_is_to_be_shown_turned_is_turned(orientation: int, tmp_path: Path) -> None:
    """The matrix moves corners: (x, y) to (a x + c y, b x + d y), then into the picture."""
    a, b, c, d = MATRICES[orientation]
    shots = clip(2)
    truth = plain_decode(encode(tmp_path / "plain.mp4", Recipe(), shots))[1]
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write a display matrix")
    video = open_video(str(encode(tmp_path / "turned.mp4", Recipe(matrix=matrix), shots)))
    height, width = truth.shape[:2]
    expected = np.zeros((video.info.height, video.info.width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            column, row = a * x + c * y, b * x + d * y
            column += (a < 0) * (width - 1) + (c < 0) * (height - 1)
            row += (b < 0) * (width - 1) + (d < 0) * (height - 1)
            expected[row, column] = truth[y, x]
    np.testing.assert_array_equal(video.decode([1])[0], expected)


def test_an_odd_angle_is_refused(tmp_path: Path) -> None:
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write a display matrix")
    part = 46341
    matrix = (part, part, 0, -part, part, 0, 0, 0, 1 << 30)
    path = encode(tmp_path / "a.mp4", Recipe(matrix=matrix, frames=2))
    with pytest.raises(DataError, match="something else than quarters"):
        open_video(str(path))


def test_names_that_ffmpeg_takes_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = encode(tmp_path / "a.mp4", Recipe(frames=3)).read_bytes()
    for name in ("12:30.mp4", "%03d.mp4", "日本 ü,.mp4", os.fsdecode(b"bad\xff.mp4"), "-.mp4"):
        Path(name).write_bytes(content)
        assert open_video(name).decode([2]).shape == (1, 48, 64, 3)


def test_urls_are_read_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    path = encode(tmp_path / "a.mp4", Recipe(options=GOPS))
    with fsspec.open("memory://videos/a b.mp4", "wb") as file:
        file.write(path.read_bytes())
    video = open_video("memory://videos/a b.mp4")
    np.testing.assert_array_equal(video.decode([55, 3]), open_video(str(path)).decode([55, 3]))
    with pytest.raises(DataError, match="cannot be read"):
        open_video("memory://videos/missing.mp4")


def test_sizes_are_bounded_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = open_video(str(encode(tmp_path / "a.mp4", Recipe(frames=3))))
    with pytest.raises(DataError, match=r"300000 x 48 x 64 x 3 .* more than the limit"):
        video.decode([0] * 300_000)
    shots = np.zeros((1, 8200, 8208, 3), np.uint8)
    huge = encode(tmp_path / "b.avi", Recipe("mjpeg", "yuvj420p"), shots)
    with pytest.raises(DataError, match="8200 x 8208 pixels, more than the limit"):
        open_video(str(huge))
    with pytest.raises(DataError, match="8200 x 8208 pixels, more than the limit"):
        open_video(f"file://{huge}")


def test_addresses_of_this_machine_are_checked_like_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for place in ("/dev/zero", tmp_path / "pipe.mp4"):
        with pytest.raises(DataError, match="not a regular file"):
            open_video(f"file://{place}")
    with pytest.raises(DataError, match="not opened"):
        open_video("ftp://host/a.mp4")
    path = encode(tmp_path / "a.mp4", Recipe(frames=3))
    assert open_video(f"file://{path}").info.frames == 3


def test_seconds_are_those_after_the_first_frame(tmp_path: Path) -> None:
    even = open_video(str(encode(tmp_path / "a.mkv", Recipe(frames=50))))
    assert even.between(0.4, 1.0) == range(10, 25)
    assert even.between(1.6, float("inf")) == range(40, 50)
    assert len(even.between(7, 8)) == 0
    uneven = open_video(str(encode(tmp_path / "b.mp4", Recipe(frames=50, gaps={20: 50}))))
    assert uneven.between(0.0, 1.0) == range(20)
    assert uneven.between(2.8, 3.2) == range(20, 30)
    raw = open_video(str(encode(tmp_path / "c.h264", Recipe(frames=50))))
    assert raw.index.times is None  # nothing says when its frames are shown
    assert raw.between(0.4, 1.0) == range(10, 25)


UNEVEN = {0: -1, 12: 30, 13: 1, 14: 2, 40: 100}
COUNTED = {
    "even.avi": Recipe("mpeg4", options={"g": "12"}, gaps={0: -1}),
    "even, b frames.avi": Recipe("mpeg4", options={"g": "12", "bf": "2"}, gaps={0: -1}),
    "uneven.avi": Recipe("mpeg4", options={"g": "12"}, gaps=UNEVEN),
    "uneven, mjpeg.avi": Recipe("mjpeg", "yuvj420p", gaps=UNEVEN),
    "uneven, mpeg 2.ts": Recipe("mpeg2video", options={"g": "12", "bf": "2"}, gaps=UNEVEN),
    "uneven, h264.ts": Recipe(options=GOPS, gaps=UNEVEN),
    "uneven, open gops.mp4": Recipe("libx265", options=X265, gaps=UNEVEN),
    "uneven, ffv1.mkv": Recipe("ffv1", gaps=UNEVEN),
    "uneven, vp8.nut": Recipe("libvpx", options=FAST, gaps=UNEVEN),
}


@pytest.mark.parametrize("name", COUNTED)
def test_seconds_of_counted_videos_are_by_the_frames_own_times(name: str, tmp_path: Path) -> None:
    recipe = COUNTED[name]
    if recipe.codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {recipe.codec}")
    video = open_video(str(encode(tmp_path / name, recipe)))
    assert not video.index.timed
    shown = np.cumsum([1 + recipe.gaps.get(frame, 0) for frame in range(recipe.frames)]) / 25
    shown -= shown[0]
    for start, end in ((0.0, 0.5), (0.5, 1.9), (1.8, 3.02), (3.9, 7.0), (0.0, float("inf"))):
        inside = np.flatnonzero((shown > start - 5e-3) & (shown < end - 5e-3))  # MKV: milliseconds
        assert list(video.between(start, end)) == inside.tolist(), (start, end)


def test_a_file_that_is_written_anew_is_looked_at_anew(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", Recipe("mpeg4", frames=12))
    assert open_video(str(path)).info.frames == 12
    encode(path, Recipe("mpeg4", frames=20))
    assert open_video(str(path)).info.frames == 20


def test_indices_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scans = []
    plain = video_module.scan
    monkeypatch.setattr(video_module, "scan", lambda file: scans.append(file) or plain(file))
    monkeypatch.setattr(index_cache, "_KEPT_BYTES", 4000)
    monkeypatch.setattr(video_module, "index_cache", index_cache.IndexCache(tmp_path / "kept"))
    paths = [str(encode(tmp_path / f"{n}.mp4", Recipe(frames=20))) for n in range(6)]
    for path in (*paths, paths[-1], paths[0]):
        open_video(path)
    assert scans == [*paths, paths[0]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_5000_decodes_keep_memory_flat(tmp_path: Path) -> None:
    path = str(encode(tmp_path / "a.mp4", Recipe(options={"g": "4"}, frames=8), clip(8, 16, 16)))
    gone = str(tmp_path / "missing.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"bad" * 100)
    sizes = []
    for turn in range(5000):
        open_video(path).decode([turn % 8])
        if turn % 50 == 0:
            for bad in (gone, str(tmp_path / "bad.mp4")):
                with pytest.raises(DataError):
                    open_video(bad)
        if turn in (1000, 4999):
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert (sizes[1] - sizes[0]) * os.sysconf("SC_PAGE_SIZE") < 4 * 2**20


@pytest.mark.parametrize(("name", "every"), [
    ("odd", 1), ("arid6-bright", 10), ("arid6-orig-sample", 2), ("motion8", 25), ("asl20", 7),
    ("colored-shape-actions", 25),
])  # fmt: skip
def test_real_videos(name: str, every: int, shared_data: Path) -> None:
    suffixes = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".mpg", ".h264"}
    files = sorted(path for path in (shared_data / name).rglob("*") if path.suffix in suffixes)
    rng = np.random.default_rng(0)
    compared = 0
    for path in files[::every]:
        if path.name.startswith("."):
            continue
        try:
            truth = plain_frames(path)
        except (av.FFmpegError, IndexError):  # no video at all
            truth = []
        if not truth:
            with pytest.raises(DataError):
                open_video(str(path))
            continue
        video = open_video(str(path))
        assert video.info.frames == len(truth), path.name
        ids = [0, len(truth) - 1, *rng.integers(0, len(truth), 3).tolist()]
        expected = np.stack([pixels_of(truth[i]) for i in ids])
        np.testing.assert_array_equal(video.decode(ids), expected)
        compared += 1
    assert compared >= 3
