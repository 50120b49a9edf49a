"""Fresh weights follow the laws of the official code, every tensor of every paper.

MAE: models_mae.py, initialize_weights. VideoMAE: modeling_pretrain.py; what no ``_init_weights`` is
applied to keeps PyTorch's default. mae_st: models_mae.py and util/video_vit.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from recipe_models import shallow_model
from torch import Tensor

from maekit.engine.build import build_model
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.weights.header import Header

Law = Callable[[str, Tensor], None]
CHECKED = 200_000  # values of a tensor, at most
CRITICAL = 2.6  # of Kolmogorov's statistic times sqrt(n): by chance in 3 of 1,000,000 tensors


def holds(name: str, values: Tensor, cumulative: Callable[[Tensor], Tensor]) -> None:
    """Kolmogorov's test of what a tensor's values are distributed as."""
    flat = values.detach().double().flatten()
    flat = flat[:: max(1, len(flat) // CHECKED)].sort().values
    expected = cumulative(flat)
    steps = torch.arange(len(flat) + 1, dtype=torch.float64) / len(flat)
    apart = torch.maximum((expected - steps[:-1]).abs(), (expected - steps[1:]).abs()).max()
    assert float(apart) * math.sqrt(len(flat)) < CRITICAL, name


def uniform(bound: float) -> Law:
    def law(name: str, values: Tensor) -> None:
        assert float(values.detach().abs().max()) <= bound * (1 + 1e-6), name
        holds(name, values, lambda x: (x / bound + 1) / 2)

    return law


def xavier(inputs: int, outputs: int) -> Law:
    return uniform(math.sqrt(6 / (inputs + outputs)))


def torch_default(inputs: int) -> Law:
    """Of a convolution's or linear layer's weight and bias."""
    return uniform(1 / math.sqrt(inputs))


def normal(name: str, values: Tensor, *, cut: float = math.inf) -> None:
    """With a deviation of 0.02, cut at so many deviations on either side."""
    assert float(values.detach().abs().max()) <= 0.02 * cut * (1 + 1e-6), name
    ends = torch.tensor([-cut, cut], dtype=torch.float64)
    low, high = torch.special.ndtr(ends)
    holds(name, values, lambda x: (torch.special.ndtr(x / 0.02) - low) / (high - low))


def constant(value: float) -> Law:
    def law(name: str, values: Tensor) -> None:
        assert bool((values == value).all()), name

    return law


def table(name: str, values: Tensor) -> None:
    assert not values.requires_grad, name


ZERO = constant(0.0)


def block(place: str, width: int, qkv: Law) -> dict[str, Law]:
    return {
        rf"{place}\.attn\.qkv\.weight": qkv,
        rf"{place}\.attn\.(qkv\.bias|q_bias|v_bias)": ZERO,
        rf"{place}\.attn\.proj\.weight": xavier(width, width),
        rf"{place}\.mlp\.fc[12]\.weight": xavier(width, 4 * width),
        rf"{place}\.(attn\.proj|mlp\.fc[12])\.bias": ZERO,
    }


def fused(width: int) -> Law:
    return xavier(width, 3 * width)


def apart(width: int) -> Law:
    """mae_st's queries, keys and values: three matrices."""

    def law(name: str, values: Tensor) -> None:
        for third in values.chunk(3):
            xavier(width, width)(name, third)

    return law


COMMON = {
    r".*norm[12]?\.weight": constant(1.0),
    r".*norm[12]?\.bias": ZERO,
    r"decoder\.(embed|head)\.bias": ZERO,
}
ENCODER, DECODER = r"backbone\.transformer\.0", r"decoder\.blocks\.0"
LAWS: dict[str, dict[str, Law]] = {
    "mae_in1k_vit_b": {
        **COMMON,
        r"(backbone\.class|decoder\.mask)_token": normal,
        r".*\.positions\.table": table,
        r"backbone\.patch_embed\.weight": xavier(3 * 16 * 16, 768),
        r"backbone\.patch_embed\.bias": torch_default(3 * 16 * 16),
        r"decoder\.embed\.weight": xavier(768, 512),
        r"decoder\.head\.weight": xavier(512, 768),
        **block(ENCODER, 768, fused(768)),
        **block(DECODER, 512, fused(512)),
    },
    "videomae_k400": {
        **COMMON,
        r"decoder\.mask_token": partial(normal, cut=1.0),
        r"backbone\.patch_embed\.(weight|bias)": torch_default(3 * 2 * 16 * 16),
        r"decoder\.embed\.weight": torch_default(768),
        r"decoder\.head\.weight": xavier(384, 1536),
        **block(ENCODER, 768, fused(768)),
        **block(DECODER, 384, fused(384)),
    },
    "mae_st_k400": {
        **COMMON,
        # Cut at 2 and not at 2 deviations, which is 100 of them: as good as not cut.
        r"(backbone\.class|decoder\.mask)_token|.*\.positions\.(spatial|temporal|prefix)": normal,
        r"decoder\.class_token": ZERO,  # models_mae.py draws the encoder's only
        r"backbone\.patch_embed\.weight": xavier(3 * 2 * 16 * 16, 1024),
        r"backbone\.patch_embed\.bias": torch_default(3 * 2 * 16 * 16),
        r"decoder\.embed\.weight": xavier(1024, 512),
        r"decoder\.head\.weight": xavier(512, 768),
        **block(ENCODER, 1024, apart(1024)),
        **block(DECODER, 512, apart(512)),
    },
}


@pytest.mark.parametrize("recipe", LAWS)
def test_every_tensor_follows_its_law(recipe: str) -> None:
    model, _ = shallow_model(recipe)
    used = set()
    for name, values in model.named_parameters():
        laws = [law for law in LAWS[recipe] if re.fullmatch(law, name)]
        assert len(laws) == 1, f"{name}: {laws}"
        LAWS[recipe][laws[0]](name, values)
        used.add(laws[0])
    assert used == LAWS[recipe].keys()


def test_from_scratch_weights_follow_timms_law() -> None:
    """timm 0.3.2, vision_transformer.py: trunc_normal_(std=.02); its convolution is PyTorch's."""
    recipe = resolve(load("mae_scratch_vit_b", ["model.backbone.depth=1"]), "finetune")
    assert recipe.model is not None
    backbone = recipe.model.backbone
    model = build_model(
        Header(backbone=backbone, clip=(1, 224, 224), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    laws: dict[str, Law] = {
        r".*norm[12]?\.weight": constant(1.0),
        r".*norm[12]?\.bias|.*(qkv|proj|fc1|fc2)\.bias": ZERO,
        r".*class_token|.*\.positions\.table|.*(qkv|proj|fc1|fc2)\.weight": normal,
        r"backbone\.patch_embed\.(weight|bias)": torch_default(3 * 16 * 16),
    }
    for name, values in model.named_parameters():
        (law,) = (law for pattern, law in laws.items() if re.fullmatch(pattern, name))
        law(name, values)
        assert values.requires_grad


def test_another_seed_gives_other_weights() -> None:
    one, other = (shallow_model("videomae_k400", seed)[0] for seed in (0, 1))
    first, second = (model.state_dict()["decoder.head.weight"] for model in (one, other))
    assert not torch.equal(first, second)
