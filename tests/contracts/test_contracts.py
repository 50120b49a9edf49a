"""Every registered part keeps its contract, under several options, and broken ones are caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maekit import registry
from maekit.contracts import Grid, Masker, PartContext
from maekit.recipe.schema import BackboneSpec, DataSpec, DecoderSpec, MaskerSpec, TargetSpec
from maekit.recipe.tokenizer import DVAESizes
from maekit.targets.dvae_networks import DVAE
from maekit.targets.pixel import Pixel
from maekit.testing import (
    check_backbone,
    check_dataset,
    check_decoder,
    check_masker,
    check_target,
)
from maekit.testing.masks import GRIDS
from maekit.weights.header import DVAEHeader
from maekit.weights.safetensors_io import write_weights

IMAGE = PartContext((1, 32, 48), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
CLIP = replace(IMAGE, shape=(4, 32, 48))
EVEN = (Grid(1, 14, 14), Grid(8, 4, 6))  # running cells need grids that divide
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
        "images": [{}],
        "sample-images": [{"count": 24, "size": 32}],
        "sample-videos": [{"count": 8, "size": 32, "length": 5}],
        "torchvision": [{"set": "MNIST"}, {"set": "MNIST", "split": "test"}],
        "videos": [{}, {"layout": "frame-folders"}],
    },
}
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
        "images": {"path": str(pictures)},
        "sample-images": cache,
        "sample-videos": cache,
        "torchvision": {"root": str(digits)},
        "videos": {"path": str(clips)},
    }


SPECS = {spec.kind: spec for spec in (BackboneSpec, DataSpec, DecoderSpec, MaskerSpec, TargetSpec)}


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_contract(
    kind: str, name: str, options: dict[str, Any], places: dict[str, dict[str, str]]
) -> None:
    options = options | places.get(name, {})
    for context in contexts(kind, name):
        torch.manual_seed(0)
        part = registry.build(SPECS[kind].model_validate({"name": name} | options), context)
        match kind:
            case "maskers":
                check_masker(part, EVEN if name == "running-cell" else GRIDS)
            case "datasets":
                check_dataset(part)
            case "backbones":
                check_backbone(part, context)
            case "targets":
                check_target(part, context)
            case "decoders":
                check_decoder(part, context)


def contexts(kind: str, name: str) -> list[PartContext]:
    """Return an image and a clip, where a part takes both."""
    if kind == "backbones":
        return [CLIP if name == "video-vit" else IMAGE]
    if kind in ("maskers", "datasets"):
        return [IMAGE]
    returns = "all" if name == "linear" else "visible"
    image = replace(
        IMAGE,
        grid=Grid(1, 4, 6), patch=(1, 8, 8), width=32, prefix_tokens=1, out_dim=192,
        returns=returns,
    )  # fmt: skip
    clip = replace(
        CLIP,
        grid=Grid(2, 4, 6), patch=(2, 8, 8), width=32, prefix_tokens=0, out_dim=384,
        returns=returns,
    )  # fmt: skip
    return [image, clip]


def test_decoder_behind_an_encoder_that_returns_all() -> None:
    context = replace(
        IMAGE,
        grid=Grid(1, 4, 6), patch=(1, 8, 8), width=32, prefix_tokens=1, returns="all", out_dim=192,
    )  # fmt: skip
    spec = DecoderSpec.model_validate({"name": "vit", "width": 32, "depth": 1, "heads": 2})
    check_decoder(registry.build(spec, context), context)


class Broken(Masker):
    """A masker that breaks its contract in one way."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        if self.how == "global":
            return np.random.permutation(grid.tokens).reshape(grid) < 2  # noqa: NPY002
        if self.how == "count":
            return rng.random(grid) < 0.5
        if self.how == "dtype":
            return np.zeros(grid)
        return np.zeros(grid.tokens, dtype=bool)


@pytest.mark.parametrize(
    ("how", "said"),
    [("global", "generator"), ("count", "constant"), ("dtype", "bool"), ("shape", "shape")],
)
def test_a_broken_masker_is_caught(how: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_masker(Broken(how))


class Misspelled(Pixel):
    """A target whose ``fit`` would never be called."""

    def fits(self, batches: object) -> None:
        """Do nothing."""


def test_a_misspelled_member_is_named() -> None:
    context = contexts("targets", "pixel")[0]
    with pytest.raises(AssertionError, match="`fits`; did you mean `fit`"):
        check_target(Misspelled(Misspelled.Options(), context), context)
    masker = Broken("count")
    masker.need_pixels = True
    with pytest.raises(AssertionError, match="`need_pixels`; did you mean `needs_pixels`"):
        check_masker(masker)


def test_a_leaking_backbone_is_caught() -> None:
    spec = BackboneSpec.model_validate({"name": "image-vit"} | SMALL)
    backbone = registry.build(spec, IMAGE)
    honest = backbone._embed
    backbone._embed = lambda pixels, mask: honest(pixels, mask) + pixels.mean()
    with pytest.raises(AssertionError, match="hidden pixels reach the encoder"):
        check_backbone(backbone, IMAGE)
