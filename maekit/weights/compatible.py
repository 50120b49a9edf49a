"""Whether weights and the model that takes them agree, and what only the weights can say.

Tensors may fit another model too (other heads, another target), so it is headers that are compared.
What may differ is what changes when weights are loaded: the clip, the channels, where tokens stand,
and an image model's patch in a model of cubes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from maekit.errors import WeightsError
from maekit.layers import FIXED, Positions

if TYPE_CHECKING:
    from maekit.contracts import PartOptions
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import PartSpec, TargetSpec
    from maekit.weights.header import Header

_PATCH = frozenset({"patch"})  # compared by itself: it may grow from one frame to several
_PLACED = frozenset({"positions", "positions_grid"})
_PLACE = frozenset({"weights"})  # where a file lies that is known by its checksum


class Compatibility(NamedTuple):
    """The model to build, and why its decoder cannot be that of the weights (None: it is)."""

    header: Header
    decoder_reset_reason: str | None


def check_compatible(
    found: Header,
    asked: Header,
    old: MaskedAutoencoder,
    new: MaskedAutoencoder,
    where: str,
) -> Compatibility:
    """The asked model with what the weights alone know of it: what its fixed tables were made for.

    Args:
        found: what the weights say of themselves.
        asked: the model that is to take them.
        old: the model of ``found``; its tensors are not looked at (meta device).
        new: that of ``asked``, likewise.
        where: the weights' file, for errors.

    Raises:
        WeightsError: parts or statistics differ beyond what changes at load time; each is named
            with both values.
    """
    inflates = found.backbone.name in new.backbone.inflates
    fresh = _decoder_reset_reason(found, asked, old, new)
    target, pinned = _pinned(found.target, asked.target)
    problems = _other_patch(old, new)
    free = _PATCH | ({"name"} if inflates else set())
    problems += _differences("backbone", found.backbone, asked.backbone, free)
    if fresh is None:
        problems += _differences("decoder", found.decoder, asked.decoder)
        if found.target is not None:  # else nobody knows what it was
            problems += _differences("target", found.target, target, _PLACE if pinned else None)
    if found.channels == asked.channels:
        for key in ("mean", "std"):
            problems += _difference(key, getattr(found, key), getattr(asked, key))
    parts: dict[str, PartSpec | None] = {"backbone": asked.backbone, "decoder": asked.decoder}
    for key, part in parts.items():
        if part is None or (key == "decoder" and fresh is not None):
            continue
        before, after = (_positions(getattr(model, key)) for model in (old, new))
        # Only of parts that have both options: a table of another part's keeps its own ways.
        if (
            before is not None
            and after is not None
            and type(part.options).model_fields.keys() >= _PLACED
        ):
            placed, more = _placed(key, part, getattr(found, key), before, after)
            parts[key] = placed
            problems += more
    if problems:
        msg = "the recipe asks for another model: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="take these values into the recipe")
    return Compatibility(
        asked.model_copy(update={**parts, "target": target, "grid": new.grid}), fresh
    )


def _pinned(found: TargetSpec | None, asked: TargetSpec | None) -> tuple[TargetSpec | None, bool]:
    """The target asked for, held to the file of a frozen network that the weights were trained for.

    Such a file is known by its checksum, wherever it lies; the target refuses another when it
    reads it.
    """
    known = None if found is None else getattr(found.options, "sha256", None)
    if asked is None or known is None:
        return asked, False
    if getattr(asked.options, "sha256", known) not in (None, known):
        return asked, False
    return asked.with_options(asked.options.model_copy(update={"sha256": known})), True


def _decoder_reset_reason(
    found: Header, asked: Header, old: MaskedAutoencoder, new: MaskedAutoencoder
) -> str | None:
    """Why a decoder starts anew: there is none, or what it predicted were other patches."""
    if asked.decoder is None:
        return None
    if found.decoder is None:
        return "there are no decoder weights in this file"
    if found.channels != asked.channels:
        return f"it predicts {found.channels} channels, not {asked.channels}"
    if old.backbone.patch != new.backbone.patch or found.backbone.name != asked.backbone.name:
        return "it predicts an image's patches"
    return None


def _other_patch(old: MaskedAutoencoder, new: MaskedAutoencoder) -> list[str]:
    """The patch, which may only grow from one frame to several."""
    before, after = old.backbone.patch, new.backbone.patch
    if before == after or (before[0] == 1 and before[1:] == after[1:]):
        return []
    return [f"backbone.patch: {list(before)} in the weights, {list(after)} asked"]


def _differences(
    key: str, found: PartSpec | None, asked: PartSpec | None, free: AbstractSet[str] | None = None
) -> list[str]:
    if found is None or asked is None:
        written = (None if part is None else part.written for part in (found, asked))
        return _difference(key, *written)
    before, after = (_structure(part) for part in (found, asked))
    return [
        line
        for option in sorted((before.keys() | after.keys()) - (free or set()))
        for line in _difference(f"{key}.{option}", before.get(option), after.get(option))
    ]


def _structure(part: PartSpec) -> dict[str, Any]:
    options = cast("PartOptions", part.options)  # headers are completed before they are compared
    return {"name": part.name} | options.structure()


def _difference(key: str, found: object, asked: object) -> list[str]:
    return [] if found == asked else [f"{key}: {found!r} in the weights, {asked!r} asked"]


def _positions(part: object) -> Positions | None:
    positions = getattr(part, "positions", None)
    return positions if isinstance(positions, Positions) else None


def _placed(
    key: str, part: PartSpec, theirs: PartSpec, old: Positions, new: Positions
) -> tuple[PartSpec, list[str]]:
    """A part's options with its positions as the weights have them, and what contradicts them.

    A kind that follows from the grid would change with it, so it is written down; a fixed table
    keeps the grid that it was made for.
    """
    options: Any = part.options
    kind = options.positions or getattr(theirs.options, "positions", None) or old.kind
    placed: dict[str, Any] = {}
    if options.positions is None and kind != new.kind:
        placed["positions"] = kind
    if kind == old.kind and kind in FIXED:
        made_for, wanted = tuple(old.made_for), options.positions_grid
        if wanted is not None and tuple(wanted) != made_for:
            return part, _difference(f"{key}.positions_grid", list(made_for), list(wanted))
        placed["positions_grid"] = None if made_for == tuple(new.grid) else made_for
    return part.with_options(options.model_copy(update=placed)), []
