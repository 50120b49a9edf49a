"""Every key of the parts for videos does something, as in test_every_key."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from fingerprint import run
from PIL import Image

from maekit import registry
from maekit.engine.build import build_model
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, write_weights

BASE = """\
name: clips
seed: 3
data:
  train: {{name: videos, path: {folder}/train, frames: 8}}
  val: {{name: videos, path: {folder}/val}}
  size: [16, 24]
  workers: 0
model:
  backbone:
    {{name: video-vit, size: tiny, width: 32, depth: 1, heads: 2, patch: [2, 4, 4]}}
  decoder: {{name: vit, width: 16, depth: 1, heads: 2}}
pretrain:
  masker: {{name: tube, ratio: 0.7}}
  target: {{name: norm-pixel}}
  augment: {{name: random-resized-crop}}
  steps: 2
  warmup: {{steps: 1}}
  batch: {{global: 4}}
  optimizer: {{name: adamw, base_lr: 0.1}}
  validate: {{every: 1, samples: 3}}
"""

# key: (overrides that change it, overrides that both runs need for it to matter)
PERTURBED: dict[str, tuple[list[str], list[str]]] = {
    "data.train.frames": (["data.train.frames=4"], []),
    "data.train.stride": (["data.train.stride=2"], []),
    "data.train.sampling": (["data.train.sampling=segments"], []),
    "data.train.sampling: spread": (["data.train.sampling=spread"], ["data.train.stride=2"]),
    "data.val.sampling: spread": (["data.val.sampling=spread"], ["data.val.stride=2"]),
    "data.val.stride": (["data.val.stride=2"], []),
    "data.val.sampling": (["data.val.sampling=segments"], []),
    "pretrain.repeat_from": (["pretrain.repeat_from=same-frames"], ["pretrain.repeats=2"]),
    "videos.path": (["data.train.path=FOLDER/val"], []),
    "videos.layout": (["data.train.layout=frame-folders"], []),
    "videos.labels": (["data.train.labels=none"], []),
    "videos.root": (["data.train.root=FOLDER/val"], ["data.train.path=FOLDER/train/list.txt"]),
    "videos.columns": (
        ["data.train.columns=start-frames"],
        ["data.train.path=FOLDER/train/list.txt"],
    ),
    "tube.ratio": (["pretrain.masker.ratio=0.5"], []),
    "tube.rounding": (["pretrain.masker.rounding=keep"], []),
    "frame.ratio": (["pretrain.masker.ratio=0.5"], ["pretrain.masker.name=frame"]),
    "frame.rounding": (
        ["pretrain.masker.rounding=keep"],
        ["pretrain.masker.name=frame", "pretrain.masker.ratio=0.6"],
    ),
    "video-vit.size": (
        ["model.backbone.size=small"],
        ["~model.backbone.width", "~model.backbone.heads"],
    ),
    "video-vit.width": (["model.backbone.width=48"], []),
    "video-vit.depth": (["model.backbone.depth=2"], []),
    "video-vit.heads": (["model.backbone.heads=4"], []),
    "video-vit.patch": (["model.backbone.patch=[4,4,4]"], []),
    "video-vit.mlp_ratio": (["model.backbone.mlp_ratio=2"], []),
    "video-vit.qkv_bias": (["model.backbone.qkv_bias=none"], []),
    "video-vit.class_token": (["model.backbone.class_token=true"], []),
    "video-vit.positions": (["model.backbone.positions=learned"], []),
    "video-vit.positions_grid": (["model.backbone.positions_grid=[1,4,6]"], []),
    "video-vit.inflate": (
        ["model.backbone.inflate=center"],
        ["--from", "FOLDER/image.safetensors", "model.backbone.positions=sincos-2d"],
    ),
    "video-vit.drop_path": (["model.backbone.drop_path=0.9"], ["model.backbone.depth=2"]),
    "video-vit.init": (["model.backbone.init=mae"], []),
    "video-vit.mask_token": (["model.backbone.mask_token=true"], []),
}


def test_every_option_of_the_parts_is_perturbed_here() -> None:
    parts = {"datasets": "videos", "backbones": "video-vit"}
    options = [(name, registry.options_of(kind, name)) for kind, name in parts.items()]
    options += [(name, registry.options_of("maskers", name)) for name in ("tube", "frame")]
    known = {f"{name}.{option}" for name, model in options for option in model.model_fields}
    assert known == {key for key in PERTURBED if not key.startswith(("data.", "pretrain."))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of clips, one folder of frames, and a list."""
    folder = tmp_path_factory.mktemp("video keys")
    for split, count in (("train", 6), ("val", 4)):
        for number in range(count):
            shots = np.random.default_rng(number + count).integers(
                0, 256, (20 + number, 24, 32, 3), dtype=np.uint8
            )
            write(folder / split / "ab"[number % 2] / f"{number}.avi", shots)
    image = Header(
        backbone={"name": "image-vit", "class_token": False, "qkv_bias": "qv", "patch": 4}
        | {"size": "tiny", "width": 32, "depth": 1, "heads": 2},
        clip=(1, 16, 24), channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    write_weights(folder / "image.safetensors", model_tensors(build_model(image)), image)
    frames = folder / "train" / "a" / "frames"
    frames.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 24), (20 * number, 0, 99)).save(frames / f"{number}.png")
    rows = [f"{'ab'[number % 2]}/{number}.avi {number + 2} {number + 9}" for number in range(4)]
    (folder / "train" / "list.txt").write_text("\n".join(rows) + "\n")
    return folder


def write(path: Path, shots: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = shots.shape[2], shots.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for shot in shots:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], str]:
    """Fingerprints of runs that several keys compare with."""
    return {}


@pytest.mark.parametrize("key", PERTURBED)
def test_a_perturbed_video_key_changes_the_run(
    key: str,
    folder: Path,
    tmp_path: Path,
    known: dict[tuple[str, ...], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed, both = PERTURBED[key]
    if tuple(both) not in known:
        known[tuple(both)] = run(both, folder, tmp_path / "before", capsys, BASE)
    before = known[tuple(both)]
    after = run([*both, *changed], folder, tmp_path / "after", capsys, BASE)
    assert before.startswith("[0, ")  # both train
    assert after.startswith("[0, ")
    assert after != before


def test_a_run_on_clips_is_reproducible(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the comparisons above could not fail."""
    once, again = (run([], folder, tmp_path / name, capsys, BASE) for name in ("a", "b"))
    assert once == again
