"""HDF5 data sets: every layout gives the same pixels, and what is wrong is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from maekit.contracts import DataError
from maekit.testing import check_dataset
from maekit_hdf5.arrays import Arrays
from maekit_hdf5.rows import Rows
from maekit_hdf5.sample import write
from maekit_hdf5.spectrogram import Spectrogram, spectrogram

CLIPS = np.random.default_rng(0).integers(0, 65536, (5, 4, 6, 8, 3), dtype=np.uint16)  # NTHWC


def store(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=array)
    return path


def arrays(path: Path, **options: object) -> Arrays:
    return Arrays(Arrays.Options.model_validate({"path": path, **options}))


@pytest.mark.parametrize("layout", ["NTHWC", "NCTHW", "NHWTC", "NWHCT"])
def test_every_order_of_axes_gives_the_same_clip(tmp_path: Path, layout: str) -> None:
    order = ["NTHWC".index(axis) for axis in layout]
    data = arrays(store(tmp_path / "a.h5", data=CLIPS.transpose(order)), layout=layout, fps=5)
    assert len(data) == 5
    source = data.open(3)
    assert source.info[1:7] == (6, 8, 3, "uint16", 4, 5.0)
    # In the order that is asked for, and as often.
    assert np.array_equal(source.read([2, 0, 2]), CLIPS[3][[2, 0, 2]])


def test_pictures_without_frames_or_channels(tmp_path: Path) -> None:
    data = arrays(
        store(tmp_path / "a.h5", group__x=CLIPS[:, 0, :, :, 0]), key="group/x", layout="NHW"
    )
    info, clip = data.open(4).info, data.open(4).read([0])
    assert (info.frames, info.channels, info.fps) == (1, 1, None)
    assert np.array_equal(clip, CLIPS[4, :1, :, :, :1])


@pytest.mark.parametrize(
    ("stored", "given"),
    [("float64", "float32"), ("int16", "float32"), ("float16", "float32"), ("uint8", "uint8")],
)
def test_types_become_those_of_the_contract(tmp_path: Path, stored: str, given: str) -> None:
    pictures = (CLIPS[:, 0] % 100).astype(stored)
    source = arrays(store(tmp_path / "a.h5", data=pictures)).open(1)
    assert source.info.dtype == given
    assert source.read([0]).dtype == given
    assert np.array_equal(source.read([0])[0], pictures[1].astype(given))


def test_a_folder_of_files_is_one_set(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    store(tmp_path / "b.h5", data=CLIPS[:2, 0], kind=np.array([b"cat", b"dog"]))
    store(tmp_path / "deep" / "a.hdf5", data=CLIPS[2:, 0], kind=np.array([b"dog", b"dog", b"ant"]))
    store(tmp_path / ".hidden.h5", data=CLIPS[:, 0])
    data = arrays(tmp_path, labels="kind")
    assert [data.name(i).rpartition("/")[2] for i in range(5)] == [
        "b.h5#0", "b.h5#1", "a.hdf5#0", "a.hdf5#1", "a.hdf5#2",
    ]  # fmt: skip
    assert data.classes == ["ant", "cat", "dog"]
    assert [data.open(i).info.label for i in range(5)] == [1, 2, 2, 2, 0]
    assert list(data.labels) == [1, 2, 2, 2, 0]
    assert np.array_equal(data.open(3).read([0])[0], CLIPS[3, 0])
    assert [Path(each).name for each in data.sources("file")] == ["b.h5"] * 2 + ["a.hdf5"] * 3
    assert Arrays.reads(str(tmp_path))
    assert not Arrays.reads(str(tmp_path / "nothing"))


def test_labels_of_any_language(tmp_path: Path) -> None:
    names = ["thé", "café", "水", "café", "plain"]
    text = h5py.string_dtype("utf-8")
    long = np.array(names, dtype=object)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = CLIPS[:, 0]
        file.create_dataset("free", data=long, dtype=text)
        file.create_dataset("fixed", data=np.array([name.encode() for name in names]))
        file["latin"] = np.array([name.encode("utf-16") for name in names])
    for key in ("free", "fixed"):
        data = arrays(tmp_path / "a.h5", labels=key)
        assert data.classes == sorted(set(names))
        assert [data.classes[label] for label in data.labels] == names
    with pytest.raises(DataError, match="labels 'latin' are no UTF-8"):
        arrays(tmp_path / "a.h5", labels="latin")


def test_a_clip_of_no_known_rate_has_none(tmp_path: Path) -> None:
    info = arrays(store(tmp_path / "a.h5", data=CLIPS), layout="NTHWC").open(0).info
    assert (info.frames, info.fps) == (4, None)


def test_a_copy_in_another_process_opens_its_own_files(tmp_path: Path) -> None:
    data = arrays(store(tmp_path / "a.h5", data=CLIPS[:, 0]))
    data.open(0).read([0])  # a file is open now
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy.open(2).read([0])[0], CLIPS[2, 0])


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    path = store(tmp_path / "a.h5", volumes__raw=CLIPS, other=CLIPS[0], few=np.arange(3))
    with pytest.raises(DataError, match="there is no array 'data'") as caught:
        arrays(path)
    assert "volumes/raw" in str(caught.value.hint)
    with pytest.raises(DataError, match="has 5 axes"):
        arrays(path, key="volumes/raw", layout="NHWC")
    with pytest.raises(
        DataError, match=r"labels 'few' have the shape \(3,\), and there are 5 rows"
    ):
        arrays(path, key="volumes/raw", layout="NTHWC", labels="few")
    with pytest.raises(DataError, match="no such file"):
        arrays(tmp_path / "absent.h5")
    (tmp_path / "torn.h5").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        Rows._handle(arrays(path, key="volumes/raw", layout="NTHWC"), str(tmp_path / "torn.h5"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no HDF5 files"):
        arrays(tmp_path / "empty")
    for layout in ("NTHW C", "HWN", "NHWHC", "NTC"):
        with pytest.raises(ValidationError):
            Arrays.Options(path=path, layout=layout)


def test_a_sine_is_one_bright_row_of_zero_decibels() -> None:
    time = np.arange(512)
    signal = np.stack([np.sin(2 * np.pi * 8 / 64 * time), 0 * time]).astype(np.float32)
    shown = spectrogram(signal, window=64, hop=32, bins=32, floor=-80)
    assert shown.shape == (32, 15, 2)
    assert (shown[..., 0].argmax(axis=0) == 8).all()
    np.testing.assert_allclose(shown[8, :, 0], 0, atol=1e-4)
    np.testing.assert_allclose(shown[7, :, 0], 20 * np.log10(0.5), atol=1e-3)  # Hann: half beside
    assert (shown[..., 1] == -80).all()  # silence


@pytest.mark.parametrize("layout", ["NSC", "NCS"])
def test_signals_of_several_channels(tmp_path: Path, layout: str) -> None:
    signals = np.random.default_rng(1).normal(size=(3, 300, 2)).astype(np.float32)
    stored = signals if layout == "NSC" else signals.transpose(0, 2, 1)
    path = store(tmp_path / "a.h5", data=stored)
    options = {"path": path, "layout": layout, "window": 64, "hop": 16, "bins": 20}
    data = Spectrogram(Spectrogram.Options.model_validate(options))
    info = data.open(1).info
    assert (info.height, info.width, info.channels, info.dtype) == (20, 15, 2, "float32")
    expected = spectrogram(signals[1].T, 64, 16, 20, -80)
    assert np.array_equal(data.open(1).read([0]), expected[None])
    wide = Spectrogram(Spectrogram.Options.model_validate(options | {"window": 512}))
    with pytest.raises(DataError, match="300 samples are less than a window"):
        wide.open(0)
    with pytest.raises(DataError, match="bins: 40"):
        Spectrogram(Spectrogram.Options.model_validate(options | {"bins": 40}))


def test_the_sample_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, rows=6)
    first, second = (arrays(tmp_path / name, labels="labels") for name in ("one", "two"))
    assert len(first) == 6 + 3
    assert all(np.array_equal(first.open(i).read([0]), second.open(i).read([0])) for i in range(9))


def test_both_keep_their_promises(tmp_path: Path) -> None:
    write(tmp_path, rows=6)
    check_dataset(Arrays, {"path": str(tmp_path), "labels": "labels"})
    clips = store(tmp_path / "clips.h5", data=CLIPS)
    check_dataset(Arrays, {"path": str(clips), "layout": "NTHWC", "fps": 8.0})
    signals = {"path": str(tmp_path / "train.h5"), "key": "signal", "window": 64, "hop": 32}
    check_dataset(Spectrogram, signals)
