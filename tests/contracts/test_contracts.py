"""Every registered part keeps its contract, under several options, and broken ones are caught."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maekit import registry
from maekit.contracts import Dataset, Grid
from maekit.recipe.tokenizer import DVAESizes
from maekit.targets.dvae_networks import DVAE
from maekit.targets.pixel import Pixel
from maekit.testing import (
    BrokenPromiseError,
    check_backbone,
    check_dataset,
    check_decoder,
    check_masker,
    check_target,
)
from maekit.testing.apart import called, in_worker
from maekit.testing.datasets import read_samples
from maekit.testing.maskers import draw
from maekit.testing.modules import example
from maekit.weights.header import DVAEHeader
from maekit.weights.safetensors_io import write_weights

RETURNS_ALL = example(returns="all")  # a decoder without blocks needs an encoder that does
SMALL = {"size": "tiny", "width": 32, "depth": 2, "heads": 2, "patch": 8}

# Options that matter, beside a part's defaults. Every registered part must stand here.
PARTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "maskers": {
        "random": [{}, {"ratio": 0.9, "rounding": "hidden"}],
        "grid": [{}, {"cell": [3, 2]}],
        "tube": [{}, {"ratio": 0.6, "rounding": "keep"}],
        "frame": [{}, {"ratio": 0.5, "rounding": "keep"}],
        "block": [{}, {"ratio": 0.75, "min_area": 4, "aspect": 0.5}],
        "cube": [{}, {"ratio": 0.9, "rounding": "hidden", "cell": [1, 3, 2]}],
        "running-cell": [{}, {"ratio": 0.75, "rounding": "hidden"}],
    },
    "targets": {
        "pixel": [{}, {"space": "unit", "loss": "l1"}, {"frames": "center"}, {"frames": "double"}],
        "norm-pixel": [
            {},
            {"statistics": "per-channel", "eps": "outside", "loss": "smooth-l1"},
            {"frames": "center"},
            {"frames": "double", "space": "unit"},
        ],
        "dvae-token": [{"vocabulary": 16, "stride": 4}],
        "pca": [{}, {"components": 8, "frames": "center"}, {"components": 8, "frames": "double"}],
    },
    "backbones": {
        "image-vit": [
            SMALL,
            SMALL | {"class_token": False, "qkv_bias": "qv", "patch": [8, 16]},
            SMALL | {"mask_token": True, "positions": "learned"},
        ],
        "timm-vit": [{"model": "vit_tiny_patch16_224"}],
        "video-vit": [
            SMALL | {"patch": [2, 8, 8]},
            SMALL | {"patch": [1, 8, 16], "positions": "sincos-3d", "mask_token": True},
            SMALL | {"patch": [4, 8, 8], "positions": "learned", "init": "mae"},
            SMALL | {"patch": [2, 8, 8], "positions": "learned-separable", "class_token": True},
        ],
    },
    "decoders": {
        "linear": [{}],
        "vit": [
            {"width": 32, "depth": 1, "heads": 2},
            {"width": 32, "depth": 0, "heads": 1, "embed_bias": False, "qkv_bias": "none"},
            {"width": 32, "depth": 1, "heads": 2, "positions": "sincos-3d", "init": "videomae"},
            {"width": 32, "depth": 1, "heads": 2, "positions": "learned-separable"},
            {"width": 32, "depth": 1, "heads": 2, "class_token": True},
        ],
    },
    "datasets": {
        "ava": [{}],
        "images": [{}],
        "sample-actions": [{"count": 2, "size": 64}],
        "sample-images": [{"count": 24, "size": 32}],
        "sample-videos": [{"count": 8, "size": 32, "length": 5}],
        "torchvision": [{"set": "MNIST"}, {"set": "MNIST", "split": "test"}],
        "videos": [{}, {"layout": "frame-folders"}],
    },
}
# Promises that a built-in part breaks knowingly.
UNKEPT = {"torchvision": {"reads_the_same_in_a_worker_without_torch"}}  # as its module says
CASES = [
    (kind, name, options)
    for kind, parts in PARTS.items()
    for name, several in parts.items()
    for options in several
]


def test_every_built_in_part_is_checked_here() -> None:
    registered = {kind: set() for kind in registry.KINDS}  # type: dict[str, set[str]]
    for entry in registry.listed():
        if entry.distribution == "maekit":
            registered[entry.kind].add(entry.name)
    assert registered == {kind: set(parts) for kind, parts in PARTS.items()}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            array = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / label / f"{number}.png")
    return tmp_path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Write a video, and the same as a folder of its frames."""
    import av
    from PIL import Image

    (tmp_path / "clips" / "frames").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "clips" / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(5):
            array = rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "clips" / "frames" / f"{number}.png")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    boxes = "video,second,x1,y1,x2,y2,label\na,0.2,0,0,0.5,1,walk\na,0.3,0,0,1,1,run\n"
    (tmp_path / "boxes.csv").write_text(boxes)
    return tmp_path / "clips"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Fill a root of torchvision's, with three random digits in each of MNIST's files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for file, shape in (("images-idx3", (3, 28, 28)), ("labels-idx1", (3,))):
            head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            values = rng.integers(0, 10, shape, dtype=np.uint8)
            (raw / f"{split}-{file}-ubyte").write_bytes(head + values.tobytes())
    return tmp_path


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    """Write a dVAE that nobody has trained."""
    sizes = DVAESizes(vocabulary=16, width=8, groups=3, blocks=1, init_width=8)
    path = tmp_path / "dvae.safetensors"
    torch.manual_seed(0)
    header = DVAEHeader(dvae=sizes.model_dump(), channels=3)
    write_weights(path, DVAE(sizes, 3).state_dict(), header)
    return path


@pytest.fixture
def places(
    pictures: Path, clips: Path, digits: Path, codes: Path, tmp_path: Path
) -> dict[str, dict[str, str]]:
    """Return the options that say where each dataset, or frozen network, finds its files."""
    cache = {"cache": str(tmp_path / "cache")}
    return {
        "dvae-token": {"weights": str(codes)},
        "ava": {"path": str(tmp_path / "boxes.csv"), "videos": str(clips)},
        "images": {"path": str(pictures)},
        "sample-actions": cache,
        "sample-images": cache,
        "sample-videos": cache,
        "torchvision": {"root": str(digits)},
        "videos": {"path": str(clips)},
    }


CHECKS = {
    "backbones": check_backbone,
    "datasets": check_dataset,
    "decoders": check_decoder,
    "maskers": check_masker,
    "targets": check_target,
}
# What takes a process, for which one does below; or torch's compiler, for which slow tests are.
COSTLY = {
    "backbones": {"computes_the_same_compiled"},
    "datasets": {"reads_the_same_in_a_worker_without_torch"},
    "decoders": {"computes_the_same_compiled"},
    "maskers": {"draws_the_same_in_a_worker_without_torch"},
    "targets": set(),
}


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_contract(
    kind: str, name: str, options: dict[str, Any], places: dict[str, dict[str, str]]
) -> None:
    keywords = {"contexts": [RETURNS_ALL]} if options.get("depth") == 0 else {}
    CHECKS[kind](  # type: ignore[operator]
        registry.find(kind, name),
        options | places.get(name, {}),
        without=COSTLY[kind] | UNKEPT.get(name, set()),
        **keywords,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "options"), [case for case in CASES if case[0] in ("backbones", "decoders")]
)
def test_compiled(kind: str, name: str, options: dict[str, Any]) -> None:
    keywords = {"contexts": [RETURNS_ALL]} if options.get("depth") == 0 else {}
    CHECKS[kind](registry.find(kind, name), options, only=COSTLY[kind], **keywords)  # type: ignore[operator]


def test_maskers_and_datasets_import_no_torch(places: dict[str, dict[str, str]]) -> None:
    built = [
        registry.find(kind, name)(
            registry.options_of(kind, name).model_validate(options | places.get(name, {}))
        )
        for kind, name, options in CASES
        if kind in ("maskers", "datasets") and name != "torchvision"
    ]
    jobs: list[tuple[Any, ...]] = [
        (read_samples, part, [0]) if isinstance(part, Dataset) else (draw, part, Grid(2, 4, 6), 0)
        for part in built
    ]
    there, heavy = in_worker(called, jobs)
    assert not heavy
    for here, answer in zip(called(jobs), there, strict=True):
        assert pickle.dumps(here) == pickle.dumps(answer)


class Misspelled(Pixel):
    """A target whose ``fit`` would never be called."""

    def fits(self, batches: object) -> None:
        """Do nothing."""


def test_a_misspelled_member_is_named() -> None:
    with pytest.raises(BrokenPromiseError, match="`fits`; did you mean `fit`") as caught:
        check_target(Misspelled)
    assert caught.value.promises == ("members_are_spelled_as_the_contract_spells_them",)
