"""Sample videos: real files, the same for the same options, read like any other."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from maekit.datasets import sample_videos
from maekit.datasets.drawing.motion import MOTIONS, Moving, draw_clip
from maekit.datasets.sample_videos import SampleVideos, encode, encoder
from maekit.errors import StorageError

COUNT = len(MOTIONS) + 2


def build(cache: Path, **options: object) -> SampleVideos:
    chosen = {"cache": str(cache), "count": COUNT, "size": 32, "length": 6} | options
    return SampleVideos(SampleVideos.Options(**chosen))


def files(cache: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def test_clips_are_read_with_the_label_of_their_folder(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    assert len(dataset) == COUNT
    assert list(dataset.classes or ()) == sorted(MOTIONS)
    for index in range(COUNT):
        source = dataset.open(index)
        assert (source.info.frames, source.info.height, source.info.width) == (6, 32, 32)
        assert source.info.fps == 12
        assert source.read([0, 5]).shape == (2, 32, 32, 3)
        assert source.info.label is not None
        assert sorted(MOTIONS)[source.info.label] == Path(dataset.name(index)).parent.name


def test_what_is_read_is_what_was_drawn(tmp_path: Path) -> None:
    dataset = build(tmp_path, size=64)
    for index in range(COUNT):
        file = Path(dataset.name(index))
        rng = np.random.default_rng([0, 0, int(file.stem)])
        drawn = draw_clip(file.parent.name, 6, 64, rng).astype(float)
        read = dataset.open(index).read(range(6)).astype(float)
        mine = np.square(read - drawn).mean(axis=(1, 2, 3))
        assert mine.max() < 200  # 25 dB; color is kept at half the resolution
        ends = np.square(drawn[0] - drawn[-1]).mean()
        assert np.square(read[0] - drawn[0]).mean() < 0.5 * ends  # the frames are in order


def test_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two")
    first, second = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(first) == COUNT
    assert first == second


def test_encoding_does_not_change_from_run_to_run() -> None:
    """As it did, now and then, with x264's own choice of settings."""
    clips = [draw_clip("left", 24, 64, np.random.default_rng(seed)) for seed in range(12)]
    for clip in clips:
        assert len({encode(clip, *encoder()) for _ in range(4)}) == 1


@pytest.mark.parametrize("change", [{"split": "val"}, {"seed": 1}, {"length": 7}, {"size": 48}])
def test_other_options_give_other_clips(tmp_path: Path, change: dict[str, object]) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two", **change)
    assert not set(files(tmp_path / "one").values()) & set(files(tmp_path / "two").values())


def test_what_moves_can_be_chosen() -> None:
    """Behind an object most of the backdrop rests, which is drawn over by at most its shadow."""

    def clip(seed: int, moving: Moving) -> np.ndarray:
        return draw_clip("left", 6, 64, np.random.default_rng(seed), moving)

    for seed in range(6):
        camera, thing = clip(seed, "camera"), clip(seed, "object")
        assert sum(np.array_equal(clip(seed, "either"), one) for one in (camera, thing)) == 1
        rests = [(drawn[0] == drawn[-1]).all(axis=-1).mean() for drawn in (camera, thing)]
        assert rests[0] < rests[1]


def test_clips_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    monkeypatch.setattr(sample_videos, "draw_clip", None)  # a second drawing would call it
    assert len(build(tmp_path)) == COUNT


@pytest.mark.parametrize(
    ("available", "codec"), [({"libx264", "mpeg4"}, "h264"), ({"mpeg4"}, "mpeg4")]
)
def test_files_are_mp4_with_or_without_x264(
    available: set[str], codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "codecs_available", available)
    clip = draw_clip("up", 5, 32, np.random.default_rng(0))
    with av.open(io.BytesIO(encode(clip, *encoder()))) as container:
        assert "mp4" in container.format.name
        stream = container.streams.video[0]
        assert stream.codec_context.name == codec
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 12
        assert sum(1 for _ in container.decode(stream)) == 5


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="sample videos") as caught:
        build(tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in str(caught.value)


def test_the_cache_folder_has_the_data_sets_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = SampleVideos(SampleVideos.Options(count=COUNT, size=32, length=2))
    assert Path(dataset.name(0)).is_relative_to(tmp_path / "maekit" / "sample-videos")


@pytest.mark.parametrize("wrong", [{"count": len(MOTIONS) - 1}, {"size": 33}, {"length": 1}])
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SampleVideos.Options(**wrong)


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from maekit.datasets.sample_videos import SampleVideos as S\n"
        f"S(S.Options(cache={str(tmp_path)!r}, count={COUNT}, size=32, length=4))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
