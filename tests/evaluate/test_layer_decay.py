"""Layer-wise learning rates against the papers' formula, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import model

from maekit.engine.build import build_model
from maekit.engine.loop import TrainState, Weighed, update
from maekit.engine.optim import layer_groups
from maekit.engine.schedule import Schedule
from maekit.evaluate.classifier import Classifier, make_head
from maekit.evaluate.supervision import groups_of
from maekit.recipe.finetune import Finetune
from maekit.weights.header import Header

DEPTH = 3  # of toys.model


def classifier() -> Classifier:
    encoder = model()
    return Classifier.of(encoder, make_head(32, 5), pool="mean", norm="fresh")


def options(**changed: object) -> Finetune:
    return Finetune.model_validate({"steps": 1, "layer_decay": 0.65, **changed})


@pytest.mark.parametrize("decay", [0.65, 0.75, 1.0])
def test_scales_are_the_papers(decay: float) -> None:
    """scale = decay ** (depth + 1 - id): id 0 the embedding, i + 1 block i, depth + 1 the rest."""
    one = classifier()
    scales = {}
    for group in groups_of(one, options(layer_decay=decay)):
        for name in group["names"]:
            scales[name] = group["lr_scale"]
    expected = {
        "backbone.patch_embed.weight": decay**4,
        "backbone.class_token": decay**4,
        "backbone.transformer.0.attn.qkv.weight": decay**3,
        "backbone.transformer.1.norm1.bias": decay**2,
        "backbone.transformer.2.mlp.fc2.weight": decay,
        "fc_norm.weight": 1,
        "head.linear.weight": 1,
        "head.linear.bias": 1,
    }
    assert {name: scales[name] for name in expected} == pytest.approx(expected)


def test_timms_own_groups_of_its_own_model_are_the_same() -> None:
    """An independent count: timm's param_groups_layer_decay, over a model that both can build."""
    import timm
    import timm.optim

    name = "vit_tiny_patch16_224"
    header = Header(
        backbone={"name": "timm-vit", "model": name},
        clip=(1, 32, 32),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    encoder = build_model(header, 0)
    one = Classifier.of(encoder, make_head(192, 5), pool="mean", norm="fresh")
    ours = {
        member.replace("head.linear", "head").removeprefix("backbone.model."): group
        for group in groups_of(one, options())
        for member in group["names"]
    }
    theirs = timm.create_model(name, img_size=32, num_classes=5, global_pool="avg")
    names = {id(parameter): name for name, parameter in theirs.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(
        theirs, 0.05, layer_decay=0.65, no_weight_decay_list=theirs.no_weight_decay()
    )
    assert len(names) == sum(len(group["params"]) for group in groups) == 152
    for group in groups:
        for parameter in group["params"]:
            own = ours[names[id(parameter)]]
            assert own["lr_scale"] == pytest.approx(group["lr_scale"])
            assert own["weight_decay"] == group["weight_decay"]


def test_every_trained_parameter_is_in_one_group_and_decayed_as_it_should_be() -> None:
    one = classifier()
    one.backbone.train_positions(True)  # type: ignore[attr-defined]
    groups = groups_of(one, options(optimizer={"weight_decay": 0.3}))
    names = [name for group in groups for name in group["names"]]
    trained = [name for name, p in one.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trained)
    assert "backbone.positions.table" in names
    decayed = {name for group in groups if group["weight_decay"] == 0.3 for name in group["names"]}
    assert decayed == {
        name
        for name, p in one.named_parameters()
        if p.requires_grad and p.ndim > 1 and "class_token" not in name and "table" not in name
    }
    for group in groups:
        assert len(group["params"]) == len(group["names"])


def test_the_loop_multiplies_the_schedule_by_the_scale() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = layer_groups(
        layers.named_parameters(),
        0.05,
        (),
        layer_of=lambda name: int(name[0]),
        depth=0,
        decay=0.5,
    )
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    state = TrainState(layers, optimizer, Schedule(4, 2, 0.1, 0.0), 1, 1.0)

    class Step:
        def weigh(self, batch: Any) -> Weighed:
            return Weighed(batch, 1.0)

        def loss(self, weighed: Weighed) -> torch.Tensor:
            return layers(torch.ones(1, 2)).sum()

    seen = []
    for _ in range(4):
        update(state, Step(), [None])  # type: ignore[list-item]
        by_layer = {group["names"][0][0]: group["lr"] for group in optimizer.param_groups}
        seen.append((by_layer["0"], by_layer["1"]))
    assert [high for _, high in seen] == pytest.approx([0, 0.05, 0.1, 0.05])
    assert [low for low, _ in seen] == pytest.approx([0, 0.025, 0.05, 0.025])
