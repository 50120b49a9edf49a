"""Dataset `videos`: folders, lists in every dialect, and folders of frames."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from video_faults import HangingVideos, motions
from video_sets import frames_of, labels_of, listed, videos

from maekit.contracts import View
from maekit.data import video as video_module
from maekit.data.batch import PADDED, BatchBuilder
from maekit.data.loader import Loader
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.datasets.videos import SUFFIXES, Videos
from maekit.engine.left_out import SeenLeftOut
from maekit.errors import DataError
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import RandomResizedCrop
from maekit.testing import check_dataset

# What a promise about labels needs to be looked at.
SEEN = {"is_built_from_options_alone", "holds_a_sample", "opens_every_sample"}
NAMES = ("a b,c.mp4", "ü 日本/x.mp4", "sub/d 7.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 20, 21 and 22 frames."""
    folder = tmp_path_factory.mktemp("set")
    for number, name in enumerate(NAMES):
        motions(folder / name, frames=20 + number)
    return folder


def test_any_nested_folder_is_a_set(folder: Path) -> None:
    dataset = videos(folder)
    assert [dataset.name(i) for i in range(3)] == [f"{folder}/{name}" for name in sorted(NAMES)]
    assert dataset.classes is None
    check_dataset(Videos, {"path": folder})
    source = dataset.open(0)
    assert (source.info.frames, source.info.height, source.info.width, source.info.channels) == (
        20,
        48,
        64,
        3,
    )
    assert (source.info.fps, source.info.dtype, source.info.label, source.info.crops) == (
        25.0,
        "uint8",
        None,
        False,
    )


def test_folders_are_labels_and_what_is_hidden_is_skipped(tmp_path: Path) -> None:
    for name in ("run/deep/a.mp4", "jump/b.MP4", ".trash/c.mp4", "jump/._b.mp4", "jump/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    dataset = videos(tmp_path)
    assert dataset.classes == ("jump", "run")
    assert [Path(dataset.name(i)).name for i in range(len(dataset))] == ["b.MP4", "a.mp4"]
    assert videos(tmp_path, labels="none").classes is None


# The three videos above, in each dialect, with labels 2, 0, 2 where it has any.
DIALECTS = {
    "VideoMAE, spaces": ("a b,c.mp4 2\nü 日本/x.mp4  0\nsub/d 7.mp4 2\n", True),
    "VideoMAE, commas": ("a b,c.mp4,2\nü 日本/x.mp4,0\nsub/d 7.mp4,2\n", True),
    "VideoMAE, tabs": ("a b,c.mp4\t2\nü 日本/x.mp4\t0\nsub/d 7.mp4\t2\n", True),
    "paths alone": ("a b,c.mp4\nü 日本/x.mp4\nsub/d 7.mp4\n", False),
    "VideoMAEv2": ("a b,c.mp4 0 -1\nü 日本/x.mp4 0 -1\nsub/d 7.mp4 0 -1\n", False),
    "VideoMAEv2, labels": ("a b,c.mp4 0 -1 2\nü 日本/x.mp4 0 -1 0\nsub/d 7.mp4 0 -1 2\n", True),
    "frames and label": ("a b,c.mp4 999 2\nü 日本/x.mp4 20 0\nsub/d 7.mp4 5 2\n", True),
    "Windows": ("a b,c.mp4 2\r\nü 日本\\x.mp4 0\r\nsub\\d 7.mp4 2\r\n", True),
    "CSV": ('path,label\n"a b,c.mp4",2\nü 日本/x.mp4,0\nsub/d 7.mp4,2\n', True),
    "CSV of Windows": (
        "\ufeffpath;label\r\na b,c.mp4;2\r\nü 日本\\x.mp4;0\r\nsub\\d 7.mp4;2\r\n", True),
    "CSV, empty times": (
        'path,label,start,end\n"a b,c.mp4",2,,\nü 日本/x.mp4,0,,\nsub/d 7.mp4,2,0,\n', True),
    "JSONL": (
        """{"path": "a b,c.mp4", "label": 2}\n{"path": "ü 日本/x.mp4", "label": 0}
        {"path": "sub\\\\d 7.mp4", "label": 2}\n""", True),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(dialect: str, folder: Path) -> None:
    text, labeled = DIALECTS[dialect]
    dataset = listed(folder, text)
    assert frames_of(dataset) == [20, 21, 22]
    assert labels_of(dataset) == ([2, 0, 2] if labeled else [None] * 3)
    assert dataset.classes == (("0", "1", "2") if labeled else None)
    assert labels_of(listed(folder, text, labels="none")) == [None] * 3
    listing = {"path": folder.parent / "list.csv", "root": folder}
    check_dataset(Videos, listing, only={"labels_are_those_of_the_samples", *SEEN})


def test_stretches_of_videos(folder: Path) -> None:
    whole = videos(folder).open(0).read(range(20))
    seconds = listed(
        folder, 'path,start,end\n"a b,c.mp4",0.2,0.6\n"a b,c.mp4",,0.2\nsub/d 7.mp4,,\n'
    )
    assert frames_of(seconds) == [10, 5, 22]
    np.testing.assert_array_equal(seconds.open(0).read([0, 9]), whole[[5, 14]])
    lines = '{"path": "a b,c.mp4", "start": 0.2}\n{"path": "a b,c.mp4", "end": 0.4}\n'
    assert frames_of(listed(folder, lines)) == [15, 10]
    numbers = listed(folder, "a b,c.mp4 1 5\nsub/d 7.mp4 0 22\nsub/d 7.mp4 0 -1\n")
    assert frames_of(numbers) == [5, 22, 22]
    np.testing.assert_array_equal(numbers.open(0).read([0, 4]), whole[[1, 5]])
    with pytest.raises(DataError, match=r"asks for 7 s to 9 s; the video has 20 frames") as error:
        listed(folder, 'path,start,end\n"a b,c.mp4",7,9\n').open(0)
    assert error.value.where == f"{folder}/a b,c.mp4"
    with pytest.raises(DataError, match="asks for 20 frames from 1 on; the video has 20"):
        listed(folder, "a b,c.mp4 1 20\n").open(0)


def test_columns_can_be_said(folder: Path) -> None:
    text = "a b,c.mp4 3 2\nsub/d 7.mp4 5 4\n"
    assert labels_of(listed(folder, text)) == [2, 4]
    dataset = listed(folder, text, columns="start-frames")
    assert labels_of(dataset) == [None, None]
    assert frames_of(dataset) == [2, 4]


@pytest.mark.parametrize(("text", "line", "reason"), [
    ("a.mp4 1\nb.mp4\n", 2, "has no label, the rows before it have one"),
    ("a.mp4 1\nb.mp4 1 2\n", 2, "has 2 fields after the path, the rows before it have 1"),
    ("a.mp4 0 -1\nb.mp4 x -1\n", 2, "'x' is not a number of frames"),
    ("a.mp4 -3 5 1\n", 1, "-3 5 is not a range of frames"),
    ("a.mp4 1 0 1\n", 1, "1 0 is not a range of frames"),
    ("a.mp4 -1\n", 1, "label '-1'"),
    ("path,start\na.mp4,soon\n", 2, "start 'soon'"),
    ("path,start,end\na.mp4,3,2\n", 2, "start 3 and end 2 are not a range of time"),
    ('{"path": "a.mp4", "end": [1]}\n', 1, r"end '\[1\]'"),
])  # fmt: skip
def test_errors_name_file_and_line(folder: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        listed(folder, text)
    assert error.value.where == f"{folder.parent / 'list.csv'}:{line}"


def test_options_that_would_do_nothing_are_errors(folder: Path) -> None:
    for options in ({"root": str(folder)}, {"columns": "label"}):
        with pytest.raises(DataError, match="is for lists; this is a folder") as error:
            videos(folder, **options)
        assert error.value.where == str(folder)
    with pytest.raises(DataError, match="layout: frame-folders is for folders; this is a list"):
        listed(folder, "a b,c.mp4 1\n", layout="frame-folders")


@pytest.mark.parametrize(
    "header", ["label,youtube_id,time_start,time_end,split", "youtube_id,time_start,time_end,split"]
)
def test_kinetics_own_lists_name_no_files(folder: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"names no files and is not supported") as error:
        listed(folder, f"{header}\nabseiling,abc,1,11,train\n")
    assert error.value.where == f"{folder.parent / 'list.csv'}:1"


def test_wrong_columns_say_which_were_expected(folder: Path) -> None:
    with pytest.raises(DataError, match=r"columns are frames-label, .* are 3(.|\n)*quotes"):
        listed(folder, "a.mp4 3\n", columns="frames-label")


def reader_of(dataset: Videos, **options: object) -> SampleReader:
    settings = {
        "spec": DataSpec(name="videos", frames=4, stride=2), "views": (View("clip", (32, 32)),),
        "augment": RandomResizedCrop(name="random-resized-crop"), "channels": 3, "seed": 0,
        "purpose": "test",
    }  # fmt: skip
    return SampleReader(dataset, **(settings | options))


@pytest.mark.parametrize("repeat_from", ["new-clip", "same-frames"])
def test_repeats_come_from_one_decode(
    repeat_from: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[list[int]] = []
    plain = video_module.OpenVideo.decode
    monkeypatch.setattr(
        video_module.OpenVideo, "decode",
        lambda video, ids: reads.append(list(ids)) or plain(video, ids),
    )  # fmt: skip
    reader = reader_of(videos(folder), repeats=4, repeat_from=repeat_from)
    starts = set()
    for epoch in range(5):
        plans = reader.plans(reader.dataset.open(2), Key(epoch, 2))
        boxes = {plan.box for plan in plans}
        starts.add(len({plan.frame_ids[0] for plan in plans}))
        assert len(boxes) == 4
        reads.clear()
        sample = reader.read(Key(epoch, 2))
        assert sample.views[0].shape == (4, 3, 4, 32, 32)
        assert reads == [sorted({frame for plan in plans for frame in plan.frame_ids})]
    assert starts == {1} if repeat_from == "same-frames" else max(starts) > 2


def test_short_clips_are_padded_and_marked(folder: Path) -> None:
    enough = reader_of(videos(folder), spec=DataSpec(name="videos", frames=10, stride=2))
    assert not enough.read(Key(0, 0)).left_out
    spec = DataSpec(name="videos", frames=11, stride=2)
    short = reader_of(videos(folder), spec=spec)
    sample = short.read(Key(0, 0))
    assert sample.left_out == {PADDED: 1}
    np.testing.assert_array_equal(sample.views[0][:, :, 9], sample.views[0][:, :, 10])
    for workers in (0, 1):
        with Loader(short, [[Key(0, 2), Key(0, 0)]], workers=workers, timeout=120) as loader:
            batch = next(iter(loader))
        assert batch.left_out == ((Key(0, 0), {PADDED: 1}),)


@pytest.mark.parametrize(("options", "note"), [
    ({"stride": 2}, "is shorter than 30 frames at stride 2: such clips are padded"),
    ({"sampling": "spread", "stride": 2}, "than 30 frames at stride 2: such clips are padded"),
    ({}, "is shorter than 30 frames: such clips are padded"),
    ({"sampling": "segments"}, "is shorter than 30 frames: such clips show frames twice"),
])  # fmt: skip
def test_short_clips_are_told_of(folder: Path, options: dict[str, object], note: str) -> None:
    told: list[object] = []
    reader = reader_of(videos(folder), spec=DataSpec(name="videos", frames=30, **options))
    extra: dict[str, object] = {}
    seen = SeenLeftOut(reader, "data.train", extra, told.append)
    for epoch in range(2):
        builder = BatchBuilder(reader.layout, [Key(epoch, 0), Key(epoch, 1)])
        for place, index in enumerate((0, 1)):
            builder.put(place, reader.read(Key(epoch, index)))
        seen.add(builder.finish().left_out)
    assert len(told) == 1  # there would be many
    assert note in told[0].text
    assert extra == {"left_out": {"data.train": {PADDED: 2}}}  # each sample once


@pytest.mark.slow
def test_whatever_is_no_video_ends_in_time_and_is_listed(folder: Path, tmp_path: Path) -> None:
    motions(tmp_path / "good.mp4", frames=12)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("endless.mp4", "endless.h264"):  # the second of which FFmpeg reads to its end
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
    (tmp_path / "hang.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    dataset = HangingVideos(HangingVideos.Options(path=str(tmp_path)))
    assert len(dataset) == 7
    keys = [Key(0, index) for index in range(7)]
    with Loader(reader_of(dataset), [keys], workers=1, timeout=3.0) as loader:
        batch = next(iter(loader))
    reasons = {Path(bad.file).name: bad.reason for bad in batch.bad}
    assert reasons.pop("endless.mp4").startswith("cannot be decoded")
    assert reasons == {
        "empty.mp4": "is empty (0 bytes)", "hang.mp4": "no answer within 3 s",
        "endless.h264": "no answer within 3 s",
        "folder.mp4": "is a folder without pictures, and so no video",
        "pipe.mp4": "is not a regular file",
    }  # fmt: skip
    assert batch.weight.tolist() == [
        float(Path(dataset.name(k.index)).name == "good.mp4") for k in keys
    ]


def test_a_set_is_small_to_send(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{n:09d}.mp4 {n % 7}\n" for n in range(50_000)))
    (tmp_path / "000000000.mp4").touch()
    dataset = videos(tmp_path / "list.txt")
    content = pickle.dumps(dataset)
    assert len(content) < 50_000 * 30
    assert pickle.loads(content).name(49_999) == str(tmp_path / "000049999.mp4")


def test_real_sets(shared_data: Path) -> None:
    dataset = videos(shared_data / "motion8" / "train.txt")
    assert (len(dataset), len(dataset.classes)) == (320, 8)
    assert videos(shared_data / "arid6-bright" / "val.txt").open(35).info.label is not None
    odd = videos(shared_data / "odd", labels="none")
    good, blamed = 0, set()
    for index in range(len(odd)):
        name = odd.name(index)
        assert Path(name).suffix.lower() in SUFFIXES
        try:
            source = odd.open(index)
            clip = source.read([0, source.info.frames - 1])
        except DataError as error:
            blamed.add(Path(error.where).name)
            continue
        good += 1
        assert clip.shape == (2, source.info.height, source.info.width, source.info.channels)
    assert blamed == {
        "audio_only.mp4", "empty.mp4", "text_named.mp4", "truncated_no_moov.mp4",
        "small_mp4-with-audio.mp4",
    }  # fmt: skip
    assert good == len(odd) - 5


def test_pyav_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp4"
    motions(path, frames=20)
    content = bytearray(path.read_bytes())
    content[-3000:-2000] = bytes(1000)
    path.write_bytes(content)
    try:
        source = videos(tmp_path).open(0)
        source.read(range(source.info.frames))
    except DataError:
        pass
    assert av.logging.get_level() is None
    assert capfd.readouterr() == ("", "")
