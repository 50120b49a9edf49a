"""Compiled steps: in one graph, and asked for by the recipes that are meant for a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maekit import registry
from maekit.engine.build import build_model, header_of
from maekit.engine.precision import Precision
from maekit.layers import Statistics
from maekit.recipe.load import load
from maekit.recipe.sections import TrainingSection
from maekit.recipe.shipped import shipped
from maekit.registry import resolve
from maekit.tokens import Mask

ON_CPUS = {
    "quickstart",
    "quickstart_video",
    "drawn_images",
    "drawn_videos",
    "tiny_actions",
    "tiny_images",
    "tiny_videos",
}


def test_recipes_meant_for_a_gpu_compile_there() -> None:
    seen = 0
    for name in shipped():
        recipe = resolve(load(name))
        if recipe.pretrain is None or name.startswith("ablations/"):
            continue
        seen += 1
        section: TrainingSection = recipe.pretrain
        assert section.compiles("cuda") is (name not in ON_CPUS), name
        assert not section.compiles("cpu"), name
    assert seen > 20


def test_auto_is_a_word_and_anything_else_is_what_it_says() -> None:
    for words, cuda, cpu in (("auto", True, False), ("true", True, True), ("false", False, False)):
        section = resolve(load("quickstart", [f"pretrain.compile={words}"])).pretrain
        assert section is not None
        assert (section.compiles("cuda"), section.compiles("cpu")) == (cuda, cpu)


@pytest.mark.slow  # tracing takes seconds
@pytest.mark.parametrize(("recipe", "words"), [
    ("quickstart", ()),
    ("quickstart", ("pretrain.target={name: pixel}", "pretrain.loss_on=all")),
    ("quickstart_video", ()),
    ("mae_in1k_vit_b", ("model.backbone.size=tiny", "model.backbone.depth=2", "data.size=64")),
    ("mae_st_k400", ("model.backbone.size=tiny", "model.backbone.depth=2", "data.size=64")),
])  # fmt: skip
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_one_graph(recipe: str, words: tuple[str, ...], precision: str) -> None:
    resolved = resolve(load(recipe, words), "pretrain")
    pretrain = resolved.pretrain
    assert pretrain is not None
    model = build_model(header_of(resolved, Statistics((0.5,) * 3, (0.25,) * 3))).train()
    rng = np.random.default_rng(0)
    draw = registry.build(pretrain.masker)
    hidden = np.stack([draw(model.grid, rng).reshape(-1) for _ in range(2)])
    mask = Mask.build(torch.from_numpy(hidden), loss_on=pretrain.loss_on)
    views = [torch.rand(2, 3, *model.clip)]
    torch.compiler.reset()
    compiled = torch.compile(model.masked_loss, fullgraph=True, backend="eager")
    with Precision.of(precision, torch.device("cpu")).autocast():  # type: ignore[arg-type]
        torch.testing.assert_close(compiled(views, mask), model.masked_loss(views, mask))
