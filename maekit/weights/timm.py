"""``timm:NAME``: weights that timm fetches, as maekit's own ViT where the structure is plain."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from torch import Tensor, nn

from maekit.errors import RecipeError, WeightsError
from maekit.recipe.explain import suggest
from maekit.recipe.schema import BackboneSpec
from maekit.registry import spec_of
from maekit.weights.foreign import ForeignCheckpoint
from maekit.weights.header import Header

log = logging.getLogger("maekit")
_CONFIG = ("input_size", "mean", "std", "license")  # of timm's pretrained_cfg
HEADS = ("head.", "attn_pool.")


class TimmModel(NamedTuple):
    """A pre-trained model as timm fetched it.

    Attributes:
        checkpoint: its tensors, with what timm says of them in the words of a Hugging Face folder.
        config: timm's own description: input_size, mean, std, license.
        plain: whether nothing that leaves no trace in tensors differs from MAE's ViT: epsilon,
            activation, positions.
    """

    name: str
    module: nn.Module
    checkpoint: ForeignCheckpoint
    config: dict[str, Any]
    plain: bool

    @property
    def license(self) -> str | None:
        """As timm declares it."""
        found: str | None = self.config.get("license")
        return found

    def as_timm_vit(self) -> tuple[Header, dict[str, Tensor], list[str]]:
        """Describe it as the backbone ``timm-vit``, which runs timm's own code.

        Returns:
            The header, the backbone's tensors under maekit's names, and each tensor that is left
            out with the reason.
        """
        # timm names the norm behind the pooling fc_norm and leaves an identity in its place.
        norm_after_pooling = isinstance(getattr(self.module, "norm", None), nn.Identity)
        tensors, aside = {}, []
        for key, tensor in self.checkpoint.tensors.items():
            if key.startswith(HEADS):
                aside.append(f"{key}, behind the features")
                continue
            ours = key.replace("fc_norm.", "norm.", 1) if norm_after_pooling else key
            tensors[f"backbone.model.{ours}"] = tensor
        channels, height, width = self.config["input_size"]
        architecture = self.name.partition(".")[0]
        header = Header(
            backbone=spec_of(BackboneSpec, {"name": "timm-vit", "model": architecture}),
            clip=(1, height, width),
            channels=channels,
            mean=self.config["mean"],
            std=self.config["std"],
            source=f"timm, {self.name}",
            license=self.license,
        )
        return header, tensors, aside


def version() -> str:
    """Return timm's version."""
    import timm

    return str(timm.__version__)


def fetch_timm(name: str) -> TimmModel:
    """Fetch a pre-trained model through timm, from its cache where it is there.

    Raises:
        RecipeError: timm has no such model, or no weights for it.
        WeightsError: they cannot be fetched.
    """
    module, config = _fetch(name)
    height, width = config["input_size"][1:]
    checkpoint = ForeignCheckpoint(
        {key: tensor.detach() for key, tensor in module.state_dict().items()},
        f"timm:{name}",
        config={
            "model_type": "vit",
            "image_size": [height, width],
            "num_attention_heads": _heads(module),
            "layer_norm_eps": 1e-6,
        },
        preprocessor={"image_mean": config["mean"], "image_std": config["std"]},
    )
    return TimmModel(name, module, checkpoint, config, _plain(module))


def pretrained(name: str) -> tuple[Any, Any]:
    """Return timm's description of a model's weights, and where they are.

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
    """Return whether what leaves no trace in tensors is as in MAE's ViT.

    That is epsilon, activation, positions.
    """
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(model) is not VisionTransformer or model.no_embed_class or model.num_reg_tokens:
        return False
    return all(
        type(block) is Block
        and block.norm1.eps == block.norm2.eps == model.norm.eps == 1e-6
        and type(block.mlp.act) is nn.GELU
        and block.mlp.act.approximate == "none"
        for block in model.blocks
    )
