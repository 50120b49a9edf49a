"""VideoMAE's checkpoints as AVA's code takes them: every key accounted for, logits, the way back.

MCG-NJU/VideoMAE-Action-Detection 15615db: its model has `norm` and no `fc_norm`. A pre-training
checkpoint leaves its decoder behind and brings the norm; one fine-tuned on Kinetics leaves its head
and `fc_norm` behind, and the norm begins anew; its own ones are whole.
"""

from __future__ import annotations

from pathlib import Path

import numerics
import numpy as np
import pytest
import torch
from official import (
    TINY,
    TINY_DECODER,
    State,
    deepspeed_checkpoint,
    tuned,
    videomae,
    videomae_checkpoint,
    videomae_encoder,
)
from paper_reference import blocks, embedded, layer_norm, linear, normalized
from torchvision.ops import roi_align

import maekit
from maekit.contracts import Boxes
from maekit.engine.build import require_whole
from maekit.errors import WeightsError
from maekit.evaluate.classifier import load_classifier
from maekit.evaluate.detection.detector import load_detector
from maekit.evaluate.detection.supervision import make_detector
from maekit.evaluate.detection.task import DetectionTask
from maekit.evaluate.encoder import load_encoder
from maekit.recipe.finetune import Finetune
from maekit.recipe.load import read
from maekit.recipe.schema import Recipe
from maekit.registry import resolve
from maekit.weights.export import export_maekit, export_videomae
from maekit.weights.export_hf import export_hf
from maekit.weights.hints import CAFFE, UserHints
from maekit.weights.importer import Weights, open_weights

HEADS, ACTIONS, CLIP = 4, 80, (4, 32, 32)
HINTS = UserHints(heads=HEADS, clip=CLIP)


def own(path: Path, wrapper: bool = True) -> tuple[Weights, State]:
    torch.manual_seed(0)
    state = tuned(videomae_encoder(**TINY), ACTIONS, fc_norm=False)
    torch.save(deepspeed_checkpoint(state) if wrapper else state, path)
    return require_whole(open_weights(path, user_hints=HINTS)), state


@torch.no_grad()
def test_its_own_checkpoints_are_whole_and_give_its_logits(tmp_path: Path) -> None:
    weights, state = own(tmp_path / "ava.pth")
    report = weights.report
    assert (report.matched, report.missing, report.unexpected) == (len(state), (), ())
    assert "VideoMAE-Action-Detection" in report.kind
    model, header = load_detector(weights)
    assert (header.mean, header.std) == CAFFE
    described = header.classifier
    assert described is not None
    assert described.kind == "detection"
    assert len(described.outputs) == 80
    pixels = torch.rand(2, 3, *CLIP)
    corners = [np.array([[0.1, 0.2, 0.6, 0.9]]), np.array([[0.5, 0.0, 1.0, 1.0], [0, 0, 0.2, 0.3]])]
    double = {name: tensor.double() for name, tensor in state.items()}
    x = blocks(embedded(normalized(pixels, CAFFE), double), double, "blocks", HEADS)
    plane = layer_norm(x, double, "norm").view(2, 2, 4, 4, -1).mean(1).permute(0, 3, 1, 2)
    # Boxes end at their last pixel: AlphAction's convention.
    boxes = [torch.tensor(each * 32 - [0, 0, 1, 1]) for each in corners]
    bins = roi_align(plane, boxes, 7, spatial_scale=1 / 8, sampling_ratio=0, aligned=False)
    expected = linear(bins.amax((2, 3)), double, "head")
    found = model(model.normalize(pixels), model.cells(corners, (32, 32)))
    numerics.close(found, expected, terms=numerics.vit_terms(3 * 2 * 64, 48, 2, 32) + 96)
    assert expected.std() > 0.1


def test_a_detector_goes_back_to_its_keys_and_to_no_classifier(tmp_path: Path) -> None:
    weights, state = own(tmp_path / "ava.pth")
    export_videomae(weights, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    for path in (tmp_path / "ava.pth", tmp_path / "again.pth"):
        with pytest.raises(WeightsError, match="scores boxes in clips and no whole samples"):
            load_classifier(open_weights(path, user_hints=HINTS))
    with pytest.raises(WeightsError, match="has its head on pool mean, norm fresh"):
        export_hf(weights, tmp_path / "hf")


@pytest.mark.parametrize("dropped", ["norm.weight", "head.bias", "blocks.1.mlp.fc2.bias"])
def test_one_key_less_is_named(dropped: str, tmp_path: Path) -> None:
    state = tuned(videomae_encoder(**TINY), ACTIONS, fc_norm=False)
    del state[dropped]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=f"1 missing: {dropped}"):
        open_weights(tmp_path / "cut.pth", user_hints=HINTS)


def recipe() -> tuple[Recipe, Finetune]:
    made = resolve(
        read(
            {
                "name": "ava",
                "data": {
                    "train": {"name": "videos", "path": "x", "frames": 4},
                    "size": 32,
                    "stats": {"mean": list(CAFFE[0]), "std": list(CAFFE[1])},
                },
                "finetune": {"steps": 1, "head": {"kind": "detection"}},
            }
        ),
        "finetune",
    )
    assert made.finetune is not None
    return made, made.finetune


@pytest.mark.parametrize("labels", [False, True])
def test_trainings_begin_as_the_official_code_does(labels: bool, tmp_path: Path) -> None:
    """Its missing and unexpected keys, by hand: utils.py:328-330 prints them and goes on."""
    torch.manual_seed(0)
    if labels:
        state = tuned(videomae_encoder(**TINY), 400, fc_norm=True)
        torch.save(videomae_checkpoint(state), tmp_path / "k400.pth")
        unexpected = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
        fresh = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    else:
        state = videomae(**TINY, **TINY_DECODER)
        torch.save(videomae_checkpoint(state), tmp_path / "k400.pth")
        unexpected = {name for name in state if not name.startswith("encoder.")}
        fresh = {"head.weight", "head.bias"}
    hints = HINTS if labels else UserHints(heads=HEADS, clip=CLIP, decoder_heads=2)
    opened = open_weights(tmp_path / "k400.pth", user_hints=hints)
    assert not opened.report.missing
    assert not opened.report.unexpected
    maekit_file = tmp_path / "k400.safetensors"
    maekit_file.parent.mkdir(exist_ok=True)
    made, options = recipe()
    options = options.model_copy(update={"norm": "fresh" if labels else "pretrained"})
    export_maekit(require_whole(opened), maekit_file)
    with pytest.raises(WeightsError, match=r"mean: \(0\.485"):  # pre-training's are ImageNet's
        load_encoder(maekit_file, made)
    encoder, header = load_encoder(maekit_file, made, own_stats=True)
    assert (header.mean, header.std) == CAFFE
    task = DetectionTask(tuple(map(str, range(80))), [Boxes(np.zeros((0, 4)), ())], [], (0,))
    model, _ = make_detector(encoder, header, options, task, seed=0)
    ours = {
        name.removeprefix("backbone.").replace("transformer.", "blocks."): tensor
        for name, tensor in model.state_dict().items()
    }
    norm = torch.cat([ours["norm.weight"], ours["norm.bias"]])
    if labels:
        assert norm.unique().tolist() == [0, 1]
    taken = {name.removeprefix("encoder."): name for name in state if name not in unexpected}
    for name, theirs in taken.items():
        mine = ours.get(name.replace("patch_embed.proj", "patch_embed"))
        assert mine is not None, name
        assert torch.equal(mine, state[theirs]), name
    begun = {name for name in ours if name.startswith(("norm", "head"))}
    assert len(begun - ({"norm.weight", "norm.bias"} - fresh)) == len(fresh)
    assert not ours["head.linear.bias"].any()


def test_python_says_what_to_do_with_a_detector(tmp_path: Path) -> None:
    weights, _ = own(tmp_path / "ava.pth", wrapper=False)
    export_maekit(weights, tmp_path / "ava.safetensors")
    with pytest.raises(WeightsError, match="maekit detect"):
        maekit.load_classifier(tmp_path / "ava.safetensors")
    assert maekit.load(tmp_path / "ava.safetensors").encode(torch.rand(1, 3, *CLIP)).shape[1] == 32
    model, header = load_detector(tmp_path / "ava.safetensors", clip=(4, 48, 48))
    assert model.grid == (2, 6, 6)
    assert header.classifier is not None
    assert header.classifier.roi is not None
