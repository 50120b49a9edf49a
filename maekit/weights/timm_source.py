"""``timm:NAME``: weights that timm fetches, as maekit's own ViT where the structure is plain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError, WeightsError
from maekit.recipe.schema import BackboneSpec
from maekit.recipe.suggest import suggest
from maekit.registry import spec_of
from maekit.weights.adopt import Weights, read_foreign
from maekit.weights.foreign import Foreign
from maekit.weights.formats import recognize
from maekit.weights.header import Header
from maekit.weights.hints import Given
from maekit.weights.report import Report

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("maekit")
_CONFIG = ("input_size", "mean", "std", "license")  # of timm's pretrained_cfg
HEADS = ("head.", "attn_pool.")


def open_timm(name: str, given: Given, allow_missing: Sequence[str]) -> Weights:
    """Fetch a pre-trained model of timm's.

    Raises:
        RecipeError: timm has no such model, or no weights for it.
        WeightsError: they cannot be fetched.
    """
    model, config = _fetch(name)
    height, width = config["input_size"][1:]
    found = Foreign(
        {key: tensor.detach() for key, tensor in model.state_dict().items()},
        f"timm:{name}",
        config={
            "model_type": "vit",
            "image_size": [height, width],
            "num_attention_heads": _heads(model),
            "layer_norm_eps": 1e-6,
        },
        preprocessor={"image_mean": config["mean"], "image_std": config["std"]},
    )
    seen = recognize(found.tensors)
    if seen is not None and not seen.missing and not seen.unexpected and _plain(model):
        weights = read_foreign(found, given, allow_missing)
        declared = config.get("license")
        return Weights(
            weights.header.model_copy(update={"license": declared}),
            weights.tensors, weights.origin, weights.report, foreign=True,
        )  # fmt: skip
    return _as_timm_vit(name, model, found, config)


def pretrained(name: str) -> tuple[Any, Any]:
    """timm's description of a model's weights, and where they are.

    Raises:
        RecipeError: timm has no such model, or no weights for it.
    """
    import timm

    if not timm.is_model(name):
        hint = suggest(name, timm.list_models()) or "`timm.list_models('*vit*')` lists them"
        raise RecipeError(f"timm {timm.__version__} has no model '{name}'", hint=hint)
    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that this architecture does not have
        raise RecipeError(f"{error}", where=f"timm:{name}", hint=_listing(name)) from error
    hub = f"https://huggingface.co/{known.hf_hub_id}" if known and known.hf_hub_id else None
    address = (hub or known.url) if known else None
    if not known or not address:
        raise RecipeError(f"timm has no weights for '{name}'", hint=_listing(name))
    return known, address


def _fetch(name: str) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    known, address = pretrained(name)
    log.info("fetching %s through timm, from %s unless it is cached", name, address)
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm passes on whatever its transport raises
        msg = f"cannot fetch the weights: {type(error).__name__}: {error}"
        hint = f"check the connection to {address}, or give a file of these weights"
        raise WeightsError(msg, where=f"timm:{name}", hint=hint) from error
    return model.eval(), {key: getattr(known, key) for key in _CONFIG}


def _listing(name: str) -> str:
    return f"`timm.list_pretrained('{name.partition('.')[0]}*')` lists those that it has"


def _heads(model: nn.Module) -> int | None:
    blocks: Any = getattr(model, "blocks", None)
    heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks else None
    return heads if isinstance(heads, int) else None


def _plain(model: nn.Module) -> bool:
    """Whether what leaves no trace in tensors is as in MAE too: epsilon, activation, positions."""
    from timm.models.vision_transformer import Block, VisionTransformer
    from torch.nn import GELU

    if type(model) is not VisionTransformer or model.no_embed_class or model.num_reg_tokens:
        return False
    return all(
        type(block) is Block
        and block.norm1.eps == block.norm2.eps == model.norm.eps == 1e-6
        and type(block.mlp.act) is GELU
        and block.mlp.act.approximate == "none"
        for block in model.blocks
    )


def _as_timm_vit(name: str, model: nn.Module, found: Foreign, config: dict[str, Any]) -> Weights:
    """As the backbone ``timm-vit``, which runs timm's own code."""
    from torch import nn

    renamed = isinstance(getattr(model, "norm", None), nn.Identity)  # the norm after the pooling
    tensors, aside = {}, []
    for key, tensor in found.tensors.items():
        if key.startswith(HEADS):
            aside.append(f"{key}, behind the features")
            continue
        ours = key.replace("fc_norm.", "norm.", 1) if renamed else key
        tensors[f"backbone.model.{ours}"] = tensor
    architecture = name.partition(".")[0]
    height, width = config["input_size"][1:]
    header = Header(
        backbone=spec_of(BackboneSpec, {"name": "timm-vit", "model": architecture}),
        clip=(1, height, width),
        channels=config["input_size"][0],
        mean=config["mean"],
        std=config["std"],
        source=f"timm, {name}",
        license=config.get("license"),
    )
    notes = ("not a plain ViT: it runs as the backbone timm-vit", "no decoder weights: it encodes")
    report = Report("timm", len(tensors), aside=tuple(aside), notes=notes)
    return Weights(header, tensors, f"timm:{name}", report, foreign=True)
