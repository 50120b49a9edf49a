"""``timm:NAME``: plain ViTs become maekit's own, others run as timm's; nothing is fetched here."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from numerics import close

from maekit.engine.build import load_model, require_whole
from maekit.errors import RecipeError, WeightsError
from maekit.weights.importer import open_weights


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Models that timm would have fetched: the same architecture, random weights, two blocks."""
    import timm

    made: list[Any] = []
    create = timm.create_model

    def instead(name: str, pretrained: bool = False, **settings: Any) -> Any:
        if not pretrained:
            return create(name, **settings)
        torch.manual_seed(0)
        model = create(name, **settings)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        made.append(model.eval())
        return model

    monkeypatch.setattr(timm, "create_model", instead)
    return made


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", "image-vit"),
        ("vit_small_patch16_dinov3.lvd1689m", "timm-vit"),
        ("vit_base_patch32_clip_224.openai", "timm-vit"),
    ],
)
def test_features_are_timms(
    name: str, backbone: str, fetched: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    import timm

    with caplog.at_level(logging.INFO, "maekit"):
        weights = require_whole(open_weights(f"timm:{name}"))
    assert f"from https://huggingface.co/timm/{name} unless it is cached" in caplog.text
    assert weights.header.backbone.name == backbone
    assert weights.header.decoder is None
    assert weights.header.license
    ours, header = load_model(weights)
    pixels = torch.randn(1, 3, 1, *header.clip[1:])
    expected = fetched[0].forward_features(pixels[:, :, 0])
    close(ours.encode(pixels), expected, terms=4 * 768)  # of the widest one's fc2
    assert header.mean == tuple(timm.get_pretrained_cfg(name).mean)


def test_without_a_connection_it_says_where_it_wanted_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import timm

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as caught:
        open_weights("timm:vit_base_patch16_224.mae")
    assert "name resolution failed" in str(caught.value)
    assert "https://huggingface.co/timm/vit_base_patch16_224.mae" in str(caught.value)


def test_what_timm_does_not_have() -> None:
    with pytest.raises(RecipeError, match="did you mean 'vit_base_patch16_224'"):
        open_weights("timm:vit_base_patch16_223")
    with pytest.raises(RecipeError, match=r"list_pretrained\('vit_base_patch16_224\*'\)"):
        open_weights("timm:vit_base_patch16_224.nothing")
    with pytest.raises(RecipeError, match="no weights for 'vit_giant_patch14_224'"):
        open_weights("timm:vit_giant_patch14_224")
