"""Record what must stay equal, bit for bit, while the code is rearranged; compare two records.

Runs every verb on tiny data, through the command line alone, and keeps digests of all it leaves:

    PYTHONPATH=TREE python tests/net/record.py record OUT.json
    python tests/net/record.py compare BEFORE.json AFTER.json

Numbers (tensors, metrics, JSON, pictures, pages, exit codes) and words (help, messages, logs) are
compared apart, so that no change of words hides a number. Times, machines, versions, paths and
process numbers are masked. CPU only, one thread. Two records at once need two folders: NET_WORK.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

WORK = Path(os.environ.get("NET_WORK", "/tmp/maekit-net"))
TIMEOUT = 240  # seconds that one command may take
MASKED = re.compile(
    r"^(seconds.*|.*_seconds|samples_per_second|data_wait|memory.*|time|left|host|pid|python|maekit|"
    r"modified|mtime|bytes|cpu|hours|minutes|rate|argv|command|.*_per_second|disk.*|free.*|step_ms)$"
)
NUMERIC = re.compile(r"[-+\d.,e ]+")
SPEED = "Samples/s"
TIMED = re.compile(r"(memory|pace|wait|second|speed).*, data$", re.IGNORECASE)
# Spellings that were meant to change, in keys and texts.
RESPELLED = (
    ("unlabelled", "unlabeled"),
    ("visualis", "visualiz"), ("colour", "color"), ("normalis", "normaliz"), ("centred", "centered"),
    ("centre", "center"), ("licence", "license"), ("recognis", "recogniz"), ("neighbour", "neighbor"),
    ("initialis", "initializ"), ("featuris", "featuriz"), ("randomis", "randomiz"),
    ("labelled", "labeled"), ("standardis", "standardiz"), ("honour", "honor"), ("grey", "gray"),
)  # fmt: skip

# Kinds of entries in the order in which they are told; the last two are words.
KINDS = ("exit", "number", "json", "picture", "html", "file", "words", "help")
WORDS = ("words", "help")

IMAGES = """\
name: net
data:
  train: {name: images, path: pictures/train}
  val: {name: images, path: pictures/val}
  size: [16, 24]
  stats: imagenet
  workers: 0
model:
  backbone: {name: image-vit, size: tiny, width: 32, depth: 2, heads: 2, patch: 8}
  decoder: {name: vit, width: 16, depth: 1, heads: 2}
pretrain:
  masker: {name: random, ratio: 0.5}
  target: {name: norm-pixel}
  steps: 9
  warmup: {steps: 2}
  batch: {global: 8}
  optimizer: {name: adamw, base_lr: 0.03}
  checkpoint: {steps: 4}
  validate: {every: 4, samples: 8}
  pictures: {every: 4, samples: 2}
finetune:
  model: {backbone: {drop_path: 0.2}}
  steps: 9
  warmup: {steps: 2}
  batch: {global: 8}
  optimizer: {name: adamw, base_lr: 0.1}
  layer_decay: 0.75
  ema: 0.9
  rand_augment: rand-m9-mstd0.5-inc1
  erase: 0.25
  mixup: 0.8
  cutmix: 1.0
  label_smoothing: 0.1
  head: {dropout: 0.1}
  checkpoint: {steps: 4}
  validate: {every: 4}
probe:
  kind: linear
  protocol: cached
  pixels: 8
  linear: {strengths: [0.01, 1.0], held_out: 0.3}
  knn: {k: 5}
  attentive: {epochs: 2, batch: 16}
expected:
  - {metric: probe.top1, value: 0.9, band: [0.0, 1.0], source: this record}
"""
VIDEOS = """\
name: netvideo
data:
  train: {name: sample-videos, split: train, count: 16, size: 32, length: 12, frames: 4, stride: 2}
  val: {name: sample-videos, split: val, count: 8, size: 32, length: 12}
  size: 16
  stats: imagenet
  workers: 0
model:
  backbone: {name: video-vit, size: small, width: 48, depth: 2, heads: 2, patch: [2, 8, 8]}
  decoder: {name: vit, width: 24, depth: 1, heads: 2}
pretrain:
  masker: {name: tube, ratio: 0.5}
  target: {name: norm-pixel, statistics: per-channel, eps: outside, space: unit}
  augment: {name: multi-scale-crop}
  steps: 5
  batch: {global: 4}
  optimizer: {name: adamw, base_lr: 0.03}
  validate: {every: 5, samples: 4}
  pictures: {every: 5, samples: 1}
finetune:
  steps: 4
  batch: {global: 4}
  optimizer: {name: adamw, base_lr: 0.05}
  views: {clips: 2, crops: 3}
  validate: {every: 4}
probe:
  kind: knn
  protocol: cached
  knn: {k: 3}
"""
TOKENIZER = """\
name: netdvae
data:
  train: {name: images, path: pictures/train}
  val: {name: images, path: pictures/val}
  size: [16, 16]
  stats: imagenet
  workers: 0
tokenizer:
  dvae: {vocabulary: 16, width: 8, init_width: 8, groups: 3, blocks: 1}
  steps: 5
  batch: {global: 8}
  optimizer: {name: adamw, base_lr: 0.01}
  validate: {every: 5, samples: 8}
"""
R, V = "net.yaml", "netvideo.yaml"
FAST = ("pretrain.steps=3", "pretrain.pictures.every=3", "pretrain.validate.every=3")

# Each command by name; they run in this order and later ones use what earlier ones left.
CASES: list[tuple[str, tuple[str, ...]]] = [
    ("pretrain", ("pretrain", R, "--out", "a", "--json")),
    ("pretrain-again", ("pretrain", R, "--out", "a", "--resume")),
    ("pretrain-filled", ("pretrain", R, "--out", "a")),
    ("pretrain-other", ("pretrain", R, "--out", "a", "--resume", "seed=3")),
    ("pretrain-dry", ("pretrain", R, "--dry-run", "--json")),
    ("pretrain-numbered", ("pretrain", R, *FAST, "pretrain.batch.accumulation=2")),
    ("pretrain-grid", ("pretrain", R, *FAST, "pretrain.masker={name: grid}", "--out", "grid")),
    ("pretrain-block", ("pretrain", R, *FAST, "pretrain.masker={name: block, ratio: 0.5}",
                        "pretrain.target={name: pixel, loss: l1}", "--out", "block")),
    ("pretrain-pca", ("pretrain", R, *FAST, "pretrain.target={name: pca, components: 12}",
                      "data.stats=auto", "pretrain.augment={name: color-jitter}", "--out", "pca")),
    ("pretrain-all", ("pretrain", R, *FAST, "pretrain.loss_on=all", "pretrain.repeats=2",
                      "model.backbone.mask_token=true", "--out", "all")),
    ("pretrain-online", ("pretrain", R, *FAST, "pretrain.online_probe={every: 3, samples: 20}",
                         "data.workers=1", "--out", "online")),
    ("pretrain-from", ("pretrain", R, *FAST, "data.size=[24, 24]", "--from", "a", "--out", "from")),
    ("pretrain-timm", ("pretrain", R, *FAST, "~model.backbone", "--out", "timm",
                       "model.backbone={name: timm-vit, model: vit_tiny_patch16_224}", "data.size=[32, 32]")),
    ("finetune", ("finetune", R, "--from", "a", "--out", "ft", "--json")),
    ("finetune-scratch", ("finetune", R, "--from", "scratch", "finetune.steps=3", "--out", "fs")),
    ("finetune-partial", ("finetune", R, "--from", "a", "finetune.steps=3", "finetune.blocks=1",
                          "--out", "fp")),
    ("finetune-dry", ("finetune", R, "--from", "a", "--dry-run", "--json")),
    ("probe-linear", ("probe", R, "--from", "a", "--out", "pl", "--json", "--compare-expected")),
    ("probe-knn", ("probe", R, "--from", "a", "--kind", "knn", "--out", "pk", "--json")),
    ("probe-attentive", ("probe", R, "--from", "a", "--kind", "attentive", "--out", "pa", "--json")),
    ("probe-paper", ("probe", R, "--from", "a", "probe.protocol=paper", "probe.epochs=2",
                     "probe.batch={global: 16}", "--out", "pp", "--json")),
    ("probe-default", ("probe", R, "--kind", "knn")),
    ("probe-dry", ("probe", R, "--from", "a", "--dry-run")),
    ("embed", ("embed", "pictures/val", "--from", "a", "--out", "e.npz", "--json")),
    ("embed-cls", ("embed", "pictures/val", "--from", "ft", "--pool", "mean", "--layer", "1",
                   "--out", "e2.safetensors")),
    ("reconstruct", ("reconstruct", "pictures/val", "--from", "a", "--out", "rec", "--json")),
    ("reconstruct-more", ("reconstruct", "pictures/val/blue/00.png", "--from", "a", "--ratio",
                          "0.25,0.5", "--whole", "--attention", "--out", "rec2", "--json")),
    ("reconstruct-native", ("reconstruct", "pictures/val/blue/00.png", "--from", "block",
                            "--native", "--out", "rec3", "--json")),
    ("reconstruct-training", ("reconstruct", "pictures/val/blue/00.png", "--from", "a",
                              "--like-training", "2", "--out", "rec4", "--json")),
    ("reconstruct-demo", ("reconstruct", "pictures/val/red/00.png", "--out", "rec5", "--from",
                          "DEMO", "--json")),
    ("report", ("report", "a", "--out", "one.html")),
    ("report-two", ("report", "ft", "fs", "--out", "two.html")),
    ("report-four", ("report", "a", "pca", "pl", "--out", "four.html")),
    ("inspect", ("weights", "inspect", "a", "--json")),
    ("pretrain-square", ("pretrain", R, *FAST, "data.size=[16, 16]", "--out", "square")),
    *((f"convert-{form}", ("weights", "convert", "square", f"conv.{ending}", "--to", form))
      for form, ending in (("maekit", "safetensors"), ("mae", "pth"), ("hf", "hf"), ("timm", "timm"),
                           ("videomae", "v.pth"))),
    ("convert-back", ("weights", "convert", "conv.pth", "back.safetensors", "--to", "maekit",
                      "--target", "norm-pixel", "--heads", "2", "--clip", "1x16x16")),
    ("embed-hf", ("embed", "pictures/val", "--from", "hf:conv.hf", "--out", "e3.npz")),
    ("tokenizer", ("tokenizer", "netdvae.yaml", "--out", "dvae", "--json")),
    ("pretrain-dvae", ("pretrain", R, *FAST, "--out", "dv", "data.size=[16, 16]",
                       "pretrain.target={name: dvae-token, weights: dvae, vocabulary: 16, stride: 4}")),
    ("video", ("pretrain", V, "--out", "v", "--json")),
    ("video-dual", ("pretrain", V, "--out", "vd", "pretrain.steps=3", "pretrain.validate.every=3",
                    "pretrain.pictures.every=3",
                    "pretrain.masker={name: frame, ratio: 0.5}", "pretrain.target={name: pixel}",
                    "pretrain.decoder_masker={name: running-cell, ratio: 0.5}")),
    ("video-random", ("pretrain", V, "--out", "vr", "pretrain.steps=3", "pretrain.validate.every=3",
                      "pretrain.masker={name: random, ratio: 0.75}", "pretrain.pictures.every=3",
                      "pretrain.target={name: pixel, frames: center}", "pretrain.repeats=2")),
    ("video-finetune", ("finetune", V, "--from", "v", "--out", "vf", "--json")),
    ("video-inflate", ("finetune", V, "--from", "a", "finetune.steps=2", "--out", "vi",
                       "model.backbone={name: video-vit, width: 32, depth: 2, heads: 2, "
                       "patch: [2, 8, 8], positions: sincos-2d, class_token: true, qkv_bias: all}")),
    ("video-probe", ("probe", V, "--from", "v", "--out", "vp", "--json")),
    ("video-reconstruct", ("reconstruct", "clip.mp4", "--from", "v", "--out", "vrec", "--json")),
    ("video-convert", ("weights", "convert", "v", "v.hf", "--to", "hf")),
    ("video-report", ("report", "v", "vf", "--out", "video.html")),
    ("embed-parquet", ("embed", "pictures/val", "--from", "a", "--out", "e.parquet")),
    ("embed-tokens", ("embed", "clip.mp4", "--from", "v", "--pool", "tokens", "--out", "e4.npz")),
    ("reconstruct-masker", ("reconstruct", "clip.mp4", "--from", "vd", "--masker", "tube:0.75",
                            "--seed", "2", "--out", "rec6", "--json")),
    ("reconstruct-mask", ("reconstruct", "pictures/val/blue/00.png", "--from", "a", "--mask",
                          "mask.png", "--out", "rec7", "--json")),
    ("reconstruct-bad", ("reconstruct", "pictures/val/blue/00.png", "bad.png", "gone.png",
                         "--from", "a", "--out", "rec8", "--json")),
    ("finetune-views", ("finetune", R, "--from", "a", "finetune.steps=4", "--out", "fv",
                        "finetune.batch.accumulation=2", "finetune.views={crops: 3, enlarge: 1.2}")),
    ("probe-video-attentive", ("probe", V, "--from", "v", "--kind", "attentive", "--out", "va",
                               "--json")),
    ("convert-onnx", ("weights", "convert", "square", "conv.onnx", "--to", "onnx")),
    ("convert-mae-back", ("weights", "convert", "conv.pth", "back.safetensors", "--to", "maekit",
                          "--target", "norm-pixel", "--heads", "2", "--decoder-heads", "2",
                          "--clip", "1x16x16", "--json")),
    ("inspect-mae", ("weights", "inspect", "conv.pth", "--json")),
    ("inspect-hf", ("weights", "inspect", "hf:conv.hf", "--json")),
    ("inspect-words", ("weights", "inspect", "ft")),
    ("report-json", ("report", "pk", "pl", "--out", "five.html", "--json")),
    ("tokenizer-dry", ("tokenizer", "netdvae.yaml", "--dry-run")),
    ("plugins", ("plugins", "list", "--json")),
    ("plugins-words", ("plugins", "list", "--kind", "maskers")),
    ("validate-json", ("recipes", "validate", R, "net-bad.yaml", "--json")),
    ("version", ("--version",)),
    ("error-usage", ("pretrain",)),
    ("error-option", ("pretrain", R, "--sede", "3")),
    ("error-kind", ("plugins", "list", "--kind", "flowers")),
    ("error-run", ("report", "nowhere")),
    ("error-resume", ("pretrain", R, "--out", "nothing-here", "--resume")),
    ("error-labels", ("finetune", R, "--from", "a", "data.train.path=pictures/train/red")),
    ("error-device", ("pretrain", R, "--device", "cuda:7")),
    ("error-weights", ("embed", "pictures/val", "--from", "bad.png", "--out", "e5.npz")),
    ("error-heads", ("weights", "convert", "conv.pth", "b2.safetensors", "--to", "maekit")),
    ("error-place", ("weights", "convert", "a", "back.safetensors", "--to", "maekit")),
    ("recipes", ("recipes", "list", "--json")),
    ("schema", ("recipes", "schema")),
    ("validate", ("recipes", "validate", "quickstart", R, V, "mae_in1k_vit_b")),
    ("weights-list", ("weights", "list", "--json")),
    ("error-key", ("pretrain", R, "pretrain.masker.ration=1")),
    ("error-core", ("pretrain", R, "pretrain.steps=x")),
    ("error-recipe", ("pretrain", "quickstrat")),
    ("error-from", ("finetune", R, "--from", "nowhere")),
    ("error-model", ("finetune", R, "--from", "a", "model.backbone.depth=3")),
    ("error-data", ("pretrain", R, "data.train.path=nowhere")),
    ("error-nonfinite", ("pretrain", R, "pretrain.optimizer.base_lr=1e30", "pretrain.max_nonfinite=3",
                         "--out", "nan")),
]  # fmt: skip
INTERRUPTED = [
    ("resumed", ("pretrain", R, "pretrain.steps=40", "pretrain.pictures.every=20",
                 "pretrain.validate.every=20", "--out", "res")),
    ("resumed-finetune", ("finetune", R, "--from", "a", "finetune.steps=40",
                          "finetune.validate.every=20", "--out", "resft")),
    ("resumed-accumulation", ("pretrain", R, "pretrain.steps=40", "~pretrain.pictures",
                              "pretrain.batch.accumulation=4", "data.workers=1",
                              "pretrain.validate.every=20", "--out", "resac")),
    ("resumed-paper", ("probe", R, "--from", "a", "probe.protocol=paper", "probe.steps=60",
                       "probe.batch={global: 16}", "probe.checkpoint.steps=20", "--out", "respp")),
]  # fmt: skip


def draw() -> None:
    """Make the pictures and recipes that all commands use."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, each in (("train", 12), ("val", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            for number in range(each):
                pixels = rng.integers(40, 160, (20 + number % 5, 30, 3)) + rng.integers(0, 60, 3)
                pixels[..., channel] += 25
                path = Path("pictures") / split / name / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    for name, text in ((R, IMAGES), (V, VIDEOS), ("netdvae.yaml", TOKENIZER)):
        Path(name).write_text(text)
    Path("net-bad.yaml").write_text(
        IMAGES.replace("ratio:", "ration:").replace("steps: 9", "stpes: 9")
    )
    hidden = np.zeros((20, 30), np.uint8)
    hidden[:, 10:20] = 255
    Image.fromarray(hidden).save("mask.png")
    Path("bad.png").write_bytes(b"not a picture")
    import av

    with av.open("clip.mp4", "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for step in range(12):
            pixels = np.full((32, 32, 3), 40, np.uint8)
            pixels[8:20, step : step + 12] = (200, 80, 40)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)


def call(words: Sequence[str]) -> tuple[int, str, str]:
    """Run one command in a forked child; return its exit code, stdout and stderr."""
    return wait(start(words))


def start(words: Sequence[str]) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with open(".out", "w") as out, open(".err", "w") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.setpgid(0, 0)
            from maekit.cli.app import main

            sys.argv = ["maekit", *words]
            try:
                main(list(words))
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            except BaseException:  # noqa: BLE001 - it is the record that tells
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def wait(child: int) -> tuple[int, str, str]:
    until = time.monotonic() + TIMEOUT
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return (
                os.waitstatus_to_exitcode(status),
                Path(".out").read_text(),
                Path(".err").read_text(),
            )
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)


def interrupted(words: Sequence[str], out: str) -> tuple[int, str, str]:
    """Stop a run by SIGTERM after a few steps, and resume it."""
    child = start(words)
    metrics = Path(out) / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 6):
        time.sleep(0.005)
        if os.waitpid(child, os.WNOHANG)[0]:
            return -1, "", "it ended before it was stopped"
    os.kill(child, signal.SIGTERM)
    stopped, *_ = wait(child)
    code, told, errors = call([*words, "--resume"])
    return (code if stopped == 75 else stopped), told, errors


def masked(value: Any) -> Any:  # noqa: ANN401
    """Return a JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {k: "-" if MASKED.match(str(k)) else masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    if isinstance(value, str) and value.startswith('[{"key"'):  # a report's curves
        curves = json.loads(value)
        return [each for each in curves if each["key"] not in ("pace", "samples_per_second")]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # NaN is not equal to itself
    return plain_text(value) if isinstance(value, str) else value


def plain_text(text: str) -> str:
    """Text without paths of trees, times, versions and process numbers."""
    text = text.replace(str(WORK), "WORK")
    for tree in sorted({str(Path(p).resolve()) for p in sys.path if p}, key=len, reverse=True):
        if tree not in ("/", "/tmp"):  # noqa: S108 - the place of scripts, not of trees
            text = text.replace(tree, "TREE")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+\d\d:\d\d|Z)?", "WHEN", text)
    text = re.sub(
        r"\b[0-9a-f]{64}\b", "SHA256", text
    )  # of whole files, whose headers hold a version
    text = re.sub(r"\b\d+:\d\d(:\d\d)?\b", "WHEN", text)
    text = re.sub(r"\b[\d.,]+ ?(samples/s|s\b|ms|min|MB|GB|kB|%|hours)", r"N \1", text)
    return re.sub(r"minutes +│? *[\d.]+", "minutes N", text)


def known(path: Path) -> tuple[str, int, int]:
    """Return what tells a file from what it was before a later command wrote it anew."""
    state = path.stat()
    return str(path), state.st_mtime_ns, state.st_size


def entries(root: Path, seen: set[tuple[str, int, int]]) -> Iterator[tuple[str, Any]]:
    """Read what the files below a folder hold, by path and kind, of those that are new."""
    for path in sorted(root.rglob("*")):
        if not path.is_file() or "tensorboard" in path.parts or known(path) in seen:
            continue
        seen.add(known(path))
        name = str(path.relative_to(root))
        if path.name in (".out", ".err", "lock") or "pictures/train" in name:
            continue
        yield from of_file(name, path)


def of_file(name: str, path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                digest = hashlib.sha256(tensor.contiguous().flatten().view(-1).numpy().tobytes())
                yield f"number {name} {key}", [list(tensor.shape), digest.hexdigest()[:16]]
            for key, text in (file.metadata() or {}).items():
                try:
                    yield f"json {name} metadata {key}", masked(json.loads(text))
                except ValueError:
                    yield f"json {name} metadata {key}", plain_text(text)
    elif path.suffix == ".pth":
        import torch

        found = torch.load(path, weights_only=False)
        for key, tensor in found.get("model", found).items():
            yield f"number {name} {key}", hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]
    elif path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                array = arrays[key]
                held = (
                    plain_text(str(array.tolist()))
                    if array.dtype.kind in "US"
                    else (hashlib.sha256(array.tobytes()).hexdigest()[:16])
                )
                yield f"number {name} {key}", held
    elif path.suffix == ".json":
        yield f"json {name}", masked(json.loads(path.read_text()))
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text().splitlines()):
            yield f"number {name} {number}", masked(json.loads(line))
    elif path.suffix in (".png", ".gif", ".mp4", ".webp"):
        yield f"picture {name} bytes", hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        if path.suffix != ".mp4":
            yield f"picture {name} pixels", pixels_of(path)
    elif path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        for key, column in parquet.read_table(path).to_pydict().items():
            digest = hashlib.sha256(plain_text(repr(column)).encode()).hexdigest()
            yield f"number {name} {key}", digest[:16]
    elif path.suffix == ".onnx":
        import onnx

        for tensor in onnx.load(path).graph.initializer:
            held = onnx.numpy_helper.to_array(tensor)
            yield f"number {name} {tensor.name}", hashlib.sha256(held.tobytes()).hexdigest()[:16]
    elif path.suffix == ".html":
        for number, line in enumerate(html_lines(path.read_text())):
            yield f"html {name} {number}", line
    elif path.suffix == ".yaml":
        import yaml

        yield f"json {name}", masked(yaml.safe_load(path.read_text()))
    elif path.suffix == ".txt" or not path.suffix:
        kind = "words" if path.name == "log.txt" else "json"
        text = path.read_text(errors="replace")
        if kind == "words":  # without the lines of tracebacks
            text = "".join(line for line in text.splitlines(True) if not line.startswith("  "))
        yield f"{kind} {name}", plain_text(text)
    else:
        yield f"file {name}", path.stat().st_size > 0


def pixels_of(path: Path) -> str:
    """Digest of all frames of a picture as it is decoded, with its size."""
    from PIL import Image, ImageSequence

    with Image.open(path) as picture:
        frames = [each.convert("RGBA").tobytes() for each in ImageSequence.Iterator(picture)]
        return f"{picture.size} x {len(frames)} {hashlib.sha256(b''.join(frames)).hexdigest()[:16]}"


def html_lines(text: str) -> list[str]:
    """Read a page as a browser does: tags with sorted attributes, and texts without their white space."""
    from html.parser import HTMLParser

    lines: list[str] = []

    class Reader(HTMLParser):
        column = 0
        timed = drawn = (
            False  # in a table of what differs from run to run; in a chart, with its ticks
        )

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            shown = [
                (k, v if len(v or "") < 200 else hashlib.sha256(str(v).encode()).hexdigest()[:16])
                for k, v in sorted(attrs)
            ]
            lines.append(plain_text(f"<{tag} {shown}>"))
            self.drawn |= tag == "svg"
            self.heads = [] if tag == "table" else self.heads
            self.column = 0 if tag == "tr" else self.column + (tag in ("td", "th"))
            self.timed |= bool(TIMED.search(str(dict(attrs).get("aria-label"))))

        def handle_endtag(self, tag: str) -> None:
            lines.append(f"</{tag}>")
            self.timed &= tag != "table"
            self.drawn &= tag != "svg"

        def handle_data(self, data: str) -> None:
            words = " ".join(data.split())
            if words.startswith('[{"key"'):
                curves = json.loads(words)
                lines.extend(json.dumps(e) for e in curves if not MASKED.match(e["key"]))
            elif NUMERIC.fullmatch(words) and (
                self.heads[self.column - 1 : self.column] == [SPEED]
                or lines[-3:] == ["Speed", "</dt>", "<dd []>"]
            ):
                lines.append("N")
            elif words and not ((self.timed or self.drawn) and NUMERIC.fullmatch(words)):
                lines.append(plain_text(words))
            if words and lines[-2:-1] == ["<th [('scope', 'col')]>"]:
                self.heads.append(words)

    reader = Reader()
    reader.heads = []
    reader.feed(text)
    return lines


def helps() -> Iterator[tuple[str, ...]]:
    yield ("--help",)
    for verb in ("pretrain", "finetune", "probe", "reconstruct", "embed", "tokenizer", "report"):
        yield (verb, "--help")
    for group, verbs in (
        ("recipes", ("list", "show", "copy", "validate", "schema")),
        ("weights", ("inspect", "convert", "list", "get")),
        ("plugins", ("list",)),
    ):
        yield (group, "--help")
        for verb in verbs:
            yield (group, verb, "--help")


def record(out: Path) -> None:
    """Run everything and write what it left."""
    os.environ.update(
        OMP_NUM_THREADS="1", COLUMNS="100", XDG_CACHE_HOME=str(WORK / "cache"), TERM="dumb"
    )
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    from maekit.cli import app  # noqa: F401
    from maekit.demo import WEIGHTS

    shutil.rmtree(WORK, ignore_errors=True)
    work = WORK / "work"
    work.mkdir(parents=True)
    os.chdir(work)
    draw()
    seen = {known(path) for path in work.rglob("*")}
    found: dict[str, Any] = {}

    def keep(name: str, act: Callable[[], tuple[int, str, str]]) -> None:
        began = time.monotonic()
        code, told, errors = act()
        found[f"exit {name}"] = code
        try:
            found[f"json {name}: stdout"] = masked(json.loads(told))
        except ValueError:
            kind = "help" if name.endswith("--help") else "words"
            found[f"{kind} {name}: stdout"] = plain_text(told)
        found[f"words {name}: stderr"] = plain_text(errors)
        for key, value in entries(work, seen):
            kind, _, rest = key.partition(" ")
            found[f"{kind} {name}: {rest}"] = value
        print(f"{name}: {code} in {time.monotonic() - began:.1f} s", flush=True)

    for name, words in CASES:
        words = tuple(str(WEIGHTS) if word == "DEMO" else word for word in words)
        keep(name, lambda words=words: call(words))
    for name, words in INTERRUPTED:
        keep(name, lambda words=words: interrupted(words, words[words.index("--out") + 1]))
    _, listing, _ = call(("recipes", "list", "--json"))
    for recipe in json.loads(listing):
        name = recipe["name"]
        keep(f"show {name}", lambda name=name: call(("recipes", "show", name, "--resolved")))
    for words in helps():
        keep(" ".join(words), lambda words=words: call(words))
    out.write_text(json.dumps(found, indent=0, sort_keys=True))
    print(f"{len(found)} entries in {out}")


def respelled(value: Any) -> Any:  # noqa: ANN401
    """Return the value with the spellings that were meant to change."""
    text = json.dumps(value)
    for old, new in RESPELLED:
        text = text.replace(old, new).replace(old.capitalize(), new.capitalize())
    return json.loads(text)


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yield each place in which two values differ, with both."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        ours, theirs = before.splitlines(), after.splitlines()
        pairs = itertools.zip_longest(ours, theirs, fillvalue="(no line)")
        for number, (one, other) in enumerate(pairs, 1):
            if one != other:
                yield f"{path} line {number}:\n      - {one[:200]}\n      + {other[:200]}"
    elif before != after:
        yield f"{path}:\n      - {str(before)[:200]}\n      + {str(after)[:200]}"


def unordered(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Read recipes' texts where they differ, so that the mere order of keys counts as equal."""
    import yaml

    mere = []
    for key in old.keys() & new.keys():
        recipe = key.endswith("recipe.yaml") or (" show " in key and key.endswith("stdout"))
        texts = isinstance(old[key], str) and isinstance(new[key], str)
        if recipe and texts and old[key] != new[key]:
            before, after = (yaml.safe_load(each[key]) for each in (old, new))
            if before == after:
                mere.append(key)
                new[key] = old[key]
            else:
                old[key], new[key] = before, after
    if mere:
        print(f"{len(mere)} recipes differ in the order of keys alone")


def case_of(key: str) -> str:
    return key.partition(" ")[2].split(": ")[0]


def compare(before: Path, after: Path, words: bool) -> int:  # noqa: FBT001
    """Print what differs, grouped by kind; return 1 if anything but words does."""
    old = respelled(json.loads(before.read_text()))
    new = respelled(json.loads(after.read_text()))
    unordered(old, new)
    cases, later = ({case_of(key) for key in each} for each in (old, new))
    for side, only in ((before, cases - later), (after, later - cases)):
        if only:
            print(f"only {side} has: {', '.join(sorted(only))}")
    shared = [key for key in sorted(old.keys() | new.keys()) if case_of(key) in cases & later]
    changed = [key for key in shared if old.get(key) != new.get(key)]
    for kind in KINDS:
        mine = [key for key in changed if key.split(" ")[0] == kind]
        every = sum(key.split(" ")[0] == kind for key in shared)
        print(f"{kind}: {len(mine)} of {every} differ")
        shown: dict[str, int] = {}
        for key in mine if words or kind not in WORDS else ():
            case = case_of(key)
            shown[case] = shown.get(case, 0) + 1
            if shown[case] <= 3:
                first = next(iter(differences(old.get(key), new.get(key))), "")
                print(f"  {key}{first}")
        for case, count in shown.items():
            if count > 3:
                print(f"  {case}: {count} in all")
    return int(any(key.split(" ")[0] not in WORDS for key in changed) or bool(cases - later))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("record").add_argument("out", type=Path)
    both = verbs.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    both.add_argument("--words", action="store_true", help="show texts that differ, too")
    chosen = parser.parse_args()
    if chosen.verb == "record":
        record(chosen.out.resolve())
    else:
        sys.exit(compare(chosen.before, chosen.after, chosen.words))
