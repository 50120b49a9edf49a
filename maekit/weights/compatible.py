"""Check that weights are of the requested model, and complete it by what only the weights know.

Headers are compared, not tensors, as tensors may fit another model too: one with another number of
heads, or another target. What may differ is what changes when weights are loaded: the clip, the
channels, the positions of tokens, and an image model's patch in a model of cubes.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from maekit.errors import WeightsError
from maekit.layers import FIXED, Positions

if TYPE_CHECKING:
    from torch import nn

    from maekit.contracts import PartOptions
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import PartSpec, TargetSpec
    from maekit.weights.header import Header


class Compatibility(NamedTuple):
    """The model to build, and why its decoder cannot be that of the weights (None: it is)."""

    header: Header
    decoder_reset_reason: str | None


def check_compatible(
    found: Header,
    requested: Header,
    old: MaskedAutoencoder,
    new: MaskedAutoencoder,
    where: str,
) -> Compatibility:
    """Return the requested model, completed by what the weights alone know of it.

    That is the grid that their fixed tables of positions were made for.

    Args:
        found: what the weights say of themselves.
        requested: the model that is to take them.
        old: the model of ``found``; its tensors are not looked at (meta device).
        new: that of ``requested``, likewise.
        where: the weights' file, for errors.

    Raises:
        WeightsError: parts or statistics differ beyond what changes at load time; each is named
            with both values.
    """
    requested = _inherited(found, requested)
    inflates = _takes(requested.backbone.name, found.backbone.name, new.backbone.inflates)
    fresh = _decoder_reset_reason(found, requested, old, new)
    target, pinned = _pinned(found.target, requested.target)
    problems = _other_patch(old, new)
    free = {"name"} if inflates else set()
    problems += _differences("backbone", found.backbone, requested.backbone, free)
    if fresh is None:
        problems += _differences("decoder", found.decoder, requested.decoder)
        if found.target is not None:  # else nobody knows what it was
            problems += _differences("target", found.target, target, pinned)
    if found.channels == requested.channels:
        for key in ("mean", "std"):
            problems += _difference(key, getattr(found, key), getattr(requested, key))
    parts: dict[str, PartSpec | None] = {
        "backbone": requested.backbone,
        "decoder": requested.decoder,
    }
    for key, part in parts.items():
        if part is None or (key == "decoder" and fresh is not None):
            continue
        if not options_of(part).positioned:
            continue  # how a fixed table was made is the part's own business
        before, after = (_positions(getattr(model, key)) for model in (old, new))
        if before is not None and after is not None:
            placed, more = _placed(key, part, getattr(found, key), before, after)
            parts[key] = placed
            problems += more
    if problems:
        msg = "the recipe's model differs: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="take these values into the recipe")
    return Compatibility(
        requested.model_copy(update={**parts, "target": target, "grid": new.grid}), fresh
    )


def _takes(name: str, other: str, inflates: Sequence[str]) -> bool:
    """Return whether a backbone takes another's weights, by its bare name in one distribution."""
    distribution = name.rpartition("/")[0]
    own = {f"{distribution}/{each}" if distribution and "/" not in each else each
           for each in inflates}  # fmt: skip
    return other in {*own, *inflates}


def _inherited(found: Header, requested: Header) -> Header:
    """Complete requested parts by options that are the weights' where nobody sets them."""
    parts: dict[str, PartSpec] = {}
    for key in ("backbone", "decoder"):
        theirs, ours = getattr(found, key), getattr(requested, key)
        if theirs is None or ours is None:
            continue
        options = options_of(ours)
        known = {
            name: getattr(theirs.options, name, None)
            for name in options.inherited
            if getattr(options, name) is None
        }
        parts[key] = ours.with_options(options.model_copy(update=known))
    return requested.model_copy(update=parts)


def _pinned(
    found: TargetSpec | None, requested: TargetSpec | None
) -> tuple[TargetSpec | None, set[str]]:
    """Pin the requested target to the frozen network that the weights were trained for.

    A target like dvae-token reads a frozen network from a file. The header keeps the file's
    checksum, as its path may differ on another machine; the target checks it when it opens the
    file. So the path may differ where the checksum is pinned.

    Returns:
        The target, and its options that may differ.
    """
    free: set[str] = set()
    if found is None or requested is None or found.name != requested.name:
        return requested, free
    theirs, options = options_of(found), options_of(requested)
    for place, pin in options.pinned.items():
        known = getattr(theirs, pin)
        if known is not None and getattr(options, pin) in (None, known):
            options = options.model_copy(update={pin: known})
            free.add(place)
    return requested.with_options(options), free


def _decoder_reset_reason(
    found: Header, requested: Header, old: MaskedAutoencoder, new: MaskedAutoencoder
) -> str | None:
    """Say why a decoder starts anew: there is none, or it predicted other patches."""
    if requested.decoder is None:
        return None
    if found.decoder is None:
        return "there are no decoder weights in this file"
    # A decoder's last layer has one row per value of a patch: other channels or another patch make
    # other predictions, which resizing could not turn into each other.
    if found.channels != requested.channels:
        return f"it predicts {found.channels} channels, not {requested.channels}"
    if old.backbone.patch != new.backbone.patch or found.backbone.name != requested.backbone.name:
        if new.backbone.free_patch:
            return f"it predicts patches of {old.backbone.patch}, not {new.backbone.patch}"
        return "it predicts an image's patches"
    return None


def _other_patch(old: MaskedAutoencoder, new: MaskedAutoencoder) -> list[str]:
    """Compare the patch, which may only grow from one frame to several."""
    before, after = old.backbone.patch, new.backbone.patch
    if new.backbone.free_patch and type(old.backbone) is type(new.backbone):
        return []
    if before == after or (before[0] == 1 and before[1:] == after[1:]):
        return []
    return [f"backbone.patch: {list(before)} in the weights, {list(after)} requested"]


def _differences(
    key: str,
    found: PartSpec | None,
    requested: PartSpec | None,
    free: AbstractSet[str] | None = None,
) -> list[str]:
    if found is None or requested is None:
        written = (None if part is None else part.written for part in (found, requested))
        return _difference(key, *written)
    before, after = (_structure(part) for part in (found, requested))
    return [
        line
        for option in sorted((before.keys() | after.keys()) - (free or set()))
        for line in _difference(f"{key}.{option}", before.get(option), after.get(option))
    ]


def _structure(part: PartSpec) -> dict[str, Any]:
    return {"name": part.name} | options_of(part).structure()


def options_of(part: PartSpec) -> PartOptions:
    """Return a part's typed options: headers are completed before they are compared."""
    return cast("PartOptions", part.options)


def _difference(key: str, found: object, requested: object) -> list[str]:
    return (
        [] if found == requested else [f"{key}: {found!r} in the weights, {requested!r} requested"]
    )


def _positions(part: nn.Module | None) -> Positions | None:
    """Return a part's one module of positions, whatever its name."""
    found = [] if part is None else [p for p in part.modules() if isinstance(p, Positions)]
    return found[0] if len(found) == 1 else None


def _placed(
    key: str, part: PartSpec, theirs: PartSpec, old: Positions, new: Positions
) -> tuple[PartSpec, list[str]]:
    """Give a part the positions that the weights have, and name what contradicts them.

    Returns:
        The part with its positions written out, and problems in words.
    """
    options: Any = part.options
    kind = options.positions or getattr(theirs.options, "positions", None) or old.kind
    placed: dict[str, Any] = {}
    # An unset kind follows from the grid: at another grid it would silently become another one.
    if options.positions is None and kind != new.kind:
        placed["positions"] = kind
    # A fixed table is not among the tensors. At another grid it is resampled from the one that the
    # weights were trained with, so the header has to remember which grid that was.
    anew = options.resize_positions == "rebuild" and old.grid != new.grid
    if anew and (kind not in FIXED or kind != old.kind):
        what = f"{key}.resize_positions: {old.kind} positions cannot be rebuilt"
        return part, [f"{what} as {kind}" if kind in FIXED else f"{what}, as they are trained"]
    if anew and options.positions_grid is not None:
        said = f"resize_positions rebuild and positions_grid {list(options.positions_grid)}"
        return part, [f"{key}: {said} contradict each other"]
    if anew:
        placed["positions_grid"] = None
    elif kind == old.kind and kind in FIXED:
        made_for, wanted = tuple(old.made_for), options.positions_grid
        if wanted is not None and tuple(wanted) != made_for:
            return part, _difference(f"{key}.positions_grid", list(made_for), list(wanted))
        placed["positions_grid"] = None if made_for == tuple(new.grid) else made_for
    return part.with_options(options.model_copy(update=placed)), []
