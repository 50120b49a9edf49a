"""Weights that no format of maekit's own fits: a plugin's backbone may know them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maekit import registry
from maekit.data.statistics import imagenet
from maekit.errors import PartError, RecipeError
from maekit.installed import OURS
from maekit.origin import naming
from maekit.recipe.schema import BackboneSpec
from maekit.weights.header import Header

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Foreign
    from maekit.weights.foreign import ForeignCheckpoint


def claimed(found: ForeignCheckpoint) -> tuple[Header, dict[str, Tensor], Foreign] | None:
    """Return what a plugin's backbone makes of a file: header, and tensors by maekit's names.

    None: none knows it.

    Raises:
        RecipeError: several do.
        PartError: one fails at it.
    """
    claims: list[tuple[registry.Entry, Foreign]] = []
    for each in registry.listed("backbones"):
        if each.distribution == OURS:  # these are known by their formats
            continue
        try:
            part = registry.find("backbones", each.full_name)
        except PartError:  # a plugin that is broken is so for those who name it
            continue
        with naming(registry.origin_of_entry(each)):
            seen = part.foreign(found.tensors)
        if seen is not None:
            claims.append((each, seen))
    if not claims:
        return None
    if len(claims) > 1:
        names = " and ".join(each.full_name for each, _ in claims)
        hint = "uninstall the distributions that you do not mean"
        raise RecipeError(f"{names} both take it for theirs", where=found.where, hint=hint)
    each, seen = claims[0]
    spec = registry.spec_of(BackboneSpec, {"name": each.full_name, **seen.options})
    header = Header(
        backbone=spec,
        clip=seen.shape,
        channels=seen.channels,
        mean=seen.mean or imagenet(seen.channels).mean,
        std=seen.std or imagenet(seen.channels).std,
        source=f"{seen.title}, {Path(found.where).name}",
    )
    return header, {f"backbone.{name}": tensor for name, tensor in seen.tensors.items()}, seen
