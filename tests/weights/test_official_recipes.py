"""What mae_in1k's recipes make of official files: models that are the official ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numerics
import numpy as np
import pytest
import torch
from official import State, mae, training_checkpoint
from paper_reference import IMAGENET, logits
from PIL import Image

import maekit
from maekit.engine.build import require_whole
from maekit.grid import Grid
from maekit.layers import sincos_2d
from maekit.weights.export import export_mae
from maekit.weights.importer import open_weights

WIDTH, DEPTH, PATCH, HEADS = 192, 2, 8, 3  # the narrowest published width: its heads are known
SMALL = (
    "model.backbone={name: image-vit, size: tiny, depth: 2, patch: 8}",
    "data.train={name: images, path: pictures}",
    "data.val={name: images, path: pictures}",
    "data.size=32",
    "data.workers=0",
)
VERBS = {
    "finetune": (
        "finetune.steps=2", "finetune.warmup={steps: 1}", "finetune.batch.global=4",
        "finetune.head.classes=2", "finetune.optimizer.base_lr=0.1", "finetune.rand_augment=null",
    ),
    "probe": ("probe.steps=2", "probe.warmup={steps: 1}", "probe.batch.global=4"),
}  # fmt: skip


def draw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)


@torch.no_grad()
@pytest.mark.parametrize("verb", VERBS)
def test_the_result_is_an_official_model(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures")
    torch.manual_seed(0)
    encoder = mae(WIDTH, DEPTH, PATCH)
    fixed = sincos_2d(Grid(1, 4, 4), WIDTH)
    encoder["pos_embed"] = torch.cat([torch.zeros(1, WIDTH), fixed])[None]
    # As pre-training saves it: with arguments that hold a path.
    torch.save(training_checkpoint(encoder, input_size=32, output_dir=tmp_path), "mae.pth")
    with torch.enable_grad():
        maekit.run(
            "mae_in1k_vit_b", verb, source="mae.pth", overrides=[*SMALL, *VERBS[verb]], out=verb
        )
    weights = require_whole(open_weights(verb))
    export_mae(weights, Path("out.pth"))
    state: State = torch.load("out.pth")["model"]
    _check_layout(verb, state, encoder)
    pixels = torch.rand(3, 3, 1, 32, 32)
    model, header = maekit.load_classifier(verb)
    assert header.classifier is not None
    pool = header.classifier.pool
    assert pool == {"finetune": "mean", "probe": "cls"}[verb]
    expected = logits(pixels, state, IMAGENET, pool=pool, heads=HEADS)
    terms = numerics.vit_terms(3 * PATCH**2, WIDTH, DEPTH, 17) + 2 * WIDTH
    numerics.close(model(model.normalize(pixels)), expected, terms=terms)
    # And in again: what their code would have written is the same model.
    again, _ = maekit.load_classifier("out.pth")
    assert torch.equal(again(again.normalize(pixels)), model(model.normalize(pixels)))


def _check_layout(verb: str, state: dict[str, Any], encoder: State) -> None:
    """models_vit.py's names; the probe left the encoder as it was, and moved its head."""
    heads = {key for key in state if key.startswith("head.")}
    if verb == "finetune":
        assert heads == {"head.weight", "head.bias"}
        assert "norm.weight" not in state
        assert not torch.equal(state["blocks.1.mlp.fc2.weight"], encoder["blocks.1.mlp.fc2.weight"])
        return
    assert "head.0.running_var" in heads
    assert int(state["head.0.num_batches_tracked"]) == 2
    assert state["head.1.bias"].abs().max() > 0
    assert all(torch.equal(state[key], tensor) for key, tensor in encoder.items())
