"""Videos that are cut, damaged, or no videos at all: nothing is silently wrong."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import Recipe, clip, encode, plain_decode, plain_frames

from maekit.data.video import open_video
from maekit.errors import DataError

GOPS = {"x264-params": "keyint=12:min-keyint=4:open-gop=1:bframes=3:b-pyramid=normal"}


@pytest.mark.parametrize("name", ["cut.mkv", "cut.avi", "cut.ts", "cut.mp4"])
def test_a_cut_file_is_as_long_as_what_decodes(name: str, tmp_path: Path) -> None:
    recipe = Recipe("mpeg4", options={"g": "6"}) if name.endswith("avi") else Recipe(
        options=GOPS, container={"movflags": "+faststart"} if name.endswith("mp4") else {}
    )  # fmt: skip
    path = encode(tmp_path / name, recipe)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    truth = plain_decode(path)
    video = open_video(str(path))
    assert 5 < video.info.frames == len(truth) < 60
    np.testing.assert_array_equal(video.decode(range(len(truth))), np.stack(truth))


def test_packets_that_do_not_add_up_are_noticed(tmp_path: Path) -> None:
    """Zeros over a packet's lengths in the middle: what comes before them is the video."""
    path = encode(tmp_path / "a.mp4", Recipe(options={"x264-params": "keyint=100:bframes=0"}))
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[place : place + 4] = (size + 100).to_bytes(4, "big")
    path.write_bytes(content)
    truth = plain_decode(path)
    video = open_video(str(path))
    assert 20 < video.info.frames == len(truth) < 60
    assert not video.index.timed
    np.testing.assert_array_equal(video.decode([len(truth) - 1])[0], truth[-1])


@pytest.mark.parametrize("name", ["libx264.mp4", "mpeg4.avi"])
def test_damage_never_gives_other_frames_than_a_plain_decode(name: str, tmp_path: Path) -> None:
    """(Of damaged MJPEG not even that can be said: FFmpeg leaves what lay in its memory.)"""
    codec = name.partition(".")[0]
    path = encode(tmp_path / name, Recipe(codec, options={"g": "12"}, frames=40))
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    compared = 0
    for _ in range(8):
        content = bytearray(whole)
        for place in rng.integers(len(whole) // 10, len(whole) * 9 // 10, 3):
            content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        os.utime(path, ns=(0, int(rng.integers(1, 2**60))))
        truth = plain_decode(path)
        for number in rng.integers(0, max(1, len(truth)), 6 if truth else 0).tolist():
            try:
                frame = open_video(str(path)).decode([number])[0]
            except DataError:
                continue
            np.testing.assert_array_equal(frame, truth[number])
            compared += 1
    assert compared > 10


@pytest.mark.parametrize(
    "name",
    [
        "mpeg4.avi",
        "mjpeg.avi",
        "msmpeg4.avi",
        "flv.flv",
        "libx264.ts",
        "mpeg2video.ts",
        "mpeg1video.mpg",
        "libvpx.nut",
        "libx265.ts",
    ],
)
def test_damaged_files_are_counted_as_a_plain_decode_goes(name: str, tmp_path: Path) -> None:
    """Counting leaves out what makes pixels; not one frame and not one time more or less comes."""
    codec = name.partition(".")[0]
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"libx265": {"x265-params": "log-level=none"}, "libvpx": {"deadline": "realtime"}}
    recipe = Recipe(codec, pix_fmt, options=options.get(codec, {"g": "12"}), frames=30)
    path = encode(tmp_path / name, recipe)
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    lengths = set()
    for turn in range(8):
        content = bytearray(whole)
        for place in rng.integers(len(whole) // 4, len(whole), 2 * turn):
            content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(content[: len(content) - (turn % 3) * 1000])
        os.utime(path, ns=(0, turn))
        plain = plain_frames(path)
        index = open_video(str(path)).index
        assert index.frames == len(plain)
        carried = [frame.pts for frame in plain]
        if index.times is not None and None not in carried:
            assert index.times.tolist() == sorted(carried)
        lengths.add(len(plain))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("prores_ks", "yuv422p10le")]
)
def test_damaged_frames_without_prediction_are_bad(
    codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    """And the ones around them are not."""
    path = encode(tmp_path / "a.mov", Recipe(codec, pix_fmt, frames=6))
    truth = plain_decode(path)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][3]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    for byte in range(place + size // 2, place + size, 7):
        content[byte] ^= 0xFF
    path.write_bytes(content)
    video = open_video(str(path))
    assert video.info.frames == 6
    np.testing.assert_array_equal(video.decode([2, 4]), np.stack([truth[2], truth[4]]))
    with pytest.raises(DataError):
        video.decode([3])


def test_a_stream_whose_first_keyframe_comes_late_is_read(tmp_path: Path) -> None:
    """After more than the 5 MB that FFmpeg looks at by itself: it would know no size."""
    shots = np.random.default_rng(0).integers(0, 256, (70, 176, 240, 3), dtype=np.uint8)
    late = {"preset": "ultrafast", "qp": "1", "x264-params": "keyint=62:scenecut=0:bframes=0"}
    path = encode(tmp_path / "a.ts", Recipe(options=late), shots)
    whole = path.read_bytes()
    path.write_bytes(whole[188 * (len(whole) // 188 // 40) :])  # without the first keyframe
    assert path.stat().st_size > 5_600_000
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.width == 0
    deeper = {"probesize": "100000000", "analyzeduration": "100000000"}
    with av.open(str(path), options=deeper) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for source in (str(path), path.as_uri()):
        video = open_video(source)
        assert video.info.frames == len(truth) > 4
        np.testing.assert_array_equal(video.decode([len(truth) - 1, 0]), [truth[-1], truth[0]])


def test_a_video_that_changes_its_size_is_bad_from_there_on(tmp_path: Path) -> None:
    small = encode(tmp_path / "a.h264", Recipe(), clip(10))
    large = encode(tmp_path / "b.h264", Recipe(), clip(10, 64, 96))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    video = open_video(str(both))
    assert video.decode([9]).shape == (1, 48, 64, 3)
    with pytest.raises(DataError, match="changes its size from 48x64 to 64x96"):
        video.decode([video.info.frames - 1])


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 100)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    with (tmp_path / "endless.mp4").open("wb") as file:
        file.truncate(1 << 40)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile http://127.0.0.1:9/a.mp4\n")
    for name, reason in {
        "empty.mp4": "is empty", "text.mp4": "cannot be decoded", "folder.mp4": "not a regular",
        "link.mp4": "link to a file that does not exist", "pipe.mp4": "not a regular",
        "endless.mp4": "cannot be decoded", "sound.mp4": "no video stream", "gone.mp4": "not exist",
        "list.mp4": "cannot be decoded",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=reason) as error:
            open_video(str(tmp_path / name))
        assert error.value.where == str(tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        open_video("/dev/zero")
