"""torchvision's sets, from files in their own layouts; nothing is downloaded."""

from __future__ import annotations

import inspect
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maekit import registry
from maekit.datasets.torchvision_sets import SETS, TorchvisionSets
from maekit.errors import DataError, RecipeError
from maekit.recipe.schema import DataSpec
from maekit.testing import check_dataset

NO_WORKER = {"reads_the_same_in_a_worker_without_torch"}  # torchvision's sets bring torch
KIND = {np.dtype(np.uint8): 8}


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write the format of MNIST (yann.lecun.com/exdb/mnist): magic, sizes, values, big-endian."""
    head = bytes([0, 0, KIND[array.dtype], array.ndim])
    path.write_bytes(head + np.array(array.shape, ">i4").tobytes() + array.tobytes())


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Fill a root with 12 digits to train on and 5 to test, and what is in it."""
    root = tmp_path_factory.mktemp("sets")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, prefix, count in (("train", "train", 12), ("test", "t10k", 5)):
        arrays[split] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", arrays[split])
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return root, arrays


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sockets that refuse, and what they were asked for."""
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> Any:
        asked.append(address)
        message = "Network is unreachable"
        raise OSError(message)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


def build(**options: Any) -> TorchvisionSets:
    spec = DataSpec.model_validate({"name": "torchvision"} | options)
    built: TorchvisionSets = registry.build(spec)
    return built


def test_mnist(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, arrays = mnist
    for split, truth in arrays.items():
        dataset = build(set="MNIST", split=split, root=str(root))
        options = {"set": "MNIST", "split": split, "root": root}
        check_dataset(TorchvisionSets, options, without=NO_WORKER)
        assert len(dataset) == len(truth)
        for index in range(len(truth)):
            source = dataset.open(index)
            assert np.array_equal(source.read([0, 0]), truth[[index, index]][..., None])
            assert (source.info.label, source.info.id) == (index % 10, f"MNIST/{split}/{index}")
    assert dataset.classes is not None
    assert dataset.classes[3] == "3 - three"


def test_a_copy_for_a_worker_carries_no_pixels(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, arrays = mnist
    dataset = build(set="MNIST", root=str(root))
    dataset.open(0)
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000 < arrays["train"].nbytes
    copy = pickle.loads(sent)
    assert (len(copy), copy.classes) == (len(dataset), dataset.classes)
    assert np.array_equal(copy.open(7).read([0]), dataset.open(7).read([0]))


def test_samples_outside_are_refused(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    dataset = build(set="MNIST", root=str(mnist[0]))
    for index in (-1, 12):
        with pytest.raises(IndexError, match="of 12"):
            dataset.open(index)


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """Make a set of files: pictures of several modes, one of them broken."""
    folder = tmp_path / "eurosat" / "2750"
    for label, mode in (("Forest", "RGB"), ("River", "L")):
        (folder / label).mkdir(parents=True)
        Image.new(mode, (6, 4), 70).save(folder / label / "1.png")
    (folder / "River" / "2.png").write_bytes(b"no picture")
    return tmp_path


def test_a_set_of_files(eurosat: Path) -> None:
    dataset = build(set="EuroSAT", root=str(eurosat))
    assert dataset.classes == ("Forest", "River")
    first = dataset.open(0)
    assert (first.info.height, first.info.width, first.info.channels, first.info.label) == (
        4,
        6,
        3,
        0,
    )
    with pytest.raises(DataError, match="EuroSAT/train/2: cannot be read: UnidentifiedImageError"):
        dataset.open(2)


def test_unlabeled_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STL10's own files are gigabytes: small ones, whose checksums are taken as right."""
    from torchvision.datasets import STL10

    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)
    (folder / "train_X.bin").write_bytes(pictures[:2].tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    (folder / "unlabeled_X.bin").write_bytes(pictures[2:].tobytes())
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    dataset = build(set="STL10-unlabeled", root=str(tmp_path))
    assert dataset.classes is None
    assert [dataset.open(index).info.label for index in range(3)] == [0, 9, None]
    # Its files hold columns first (torchvision/datasets/stl10.py, __loadfile).
    assert np.array_equal(dataset.open(2).read([0])[0], pictures[2].transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"set": "CIFAR11", "root": "."}, "did you mean 'CIFAR10'"),
        (
            {"set": "MNIST", "split": "val", "root": "."},
            "split 'val' is not one of MNIST's: train, test",
        ),
        (
            {"set": "EuroSAT", "split": "test", "root": "."},
            "split 'test' is not one of EuroSAT's: train",
        ),
        ({"set": "MNIST"}, "missing"),
    ],
)
def test_options_are_checked_before_anything_is_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build(**options)


def test_damaged_files_are_an_error_that_names_the_set(
    mnist: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    shutil.copytree(mnist[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match="MNIST cannot be opened: "):
        build(set="MNIST", root=str(tmp_path))


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="h5py") as caught:
        build(set="PCAM", root=str(tmp_path), download=True)
    assert "install" in str(caught.value.hint)
    assert not no_network


def test_missing_files_are_an_error_that_says_how_to_get_them(
    tmp_path: Path, no_network: list[Any]
) -> None:
    with pytest.raises(DataError, match="MNIST cannot be opened: Dataset not found") as caught:
        build(set="MNIST", root=str(tmp_path))
    assert caught.value.where == str(tmp_path)
    assert "download: true" in str(caught.value.hint)
    assert not no_network


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
        ("FashionMNIST", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
        ("EMNIST-letters", "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"),
        ("Food101", "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
    ],
)
def test_a_download_names_its_source_and_fails_clearly_offline(
    name: str,
    address: str,
    tmp_path: Path,
    no_network: list[Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be fetched: ") as caught:
        build(set=name, root=str(tmp_path), download=True)
    assert no_network
    assert "unreachable" in str(caught.value)
    assert "network" in str(caught.value.hint)
    assert f"downloading {name} from {address} into {tmp_path}" in caplog.text
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["ImageNet", "FER2013", "StanfordCars"])
def test_sets_that_torchvision_cannot_download(
    name: str, tmp_path: Path, no_network: list[Any]
) -> None:
    with pytest.raises(DataError, match=name):
        build(set=name, root=str(tmp_path), download=True)
    assert not no_network


def test_what_is_there_is_not_downloaded(
    mnist: tuple[Path, dict[str, np.ndarray]],
    no_network: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert len(build(set="MNIST", root=str(mnist[0]), download=True)) == 12
    assert not no_network
    assert not caplog.text


@pytest.mark.parametrize("name", SETS)
def test_every_split_is_one_that_torchvision_knows(
    name: str, tmp_path: Path, no_network: list[Any]
) -> None:
    """torchvision refuses an unknown split (ValueError) before it looks for files."""
    from torchvision import datasets

    kind = getattr(datasets, name.partition("-")[0])
    for split, settings in SETS[name].items():
        inspect.signature(kind).bind(root="", **settings)
        with pytest.raises(DataError) as caught:
            build(set=name, split=split, root=str(tmp_path))
        assert not isinstance(caught.value.__cause__, (TypeError, ValueError)), caught.value
        assert isinstance(caught.value.__cause__, (ImportError, OSError, RuntimeError))


def test_torch_is_imported_only_when_a_set_is_opened() -> None:
    """Listing parts and checking recipes stay light."""
    code = (
        "import sys, maekit.registry as r; r.options_of('datasets', 'torchvision');"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
