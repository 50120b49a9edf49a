"""Whether weights and the model that takes them agree, and what only the weights can say.

Tensors may fit another model too (other heads, another target), so it is headers that are compared.
What may differ is what changes when weights are loaded: the clip, the channels, where tokens stand,
and an image model's patch in a model of cubes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit import registry
from maekit.errors import WeightsError
from maekit.layers import FIXED, Positions

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

# Options of backbones and decoders that no tensor of the weights depends on, or that are resized.
LOAD_TIME = frozenset({"drop_path", "inflate", "init", "positions", "positions_grid"})

_PLACE = frozenset({"weights"})  # where a file lies that is known by its checksum


class Agreed(NamedTuple):
    """The model to build, and why its decoder cannot be that of the weights (None: it is)."""

    header: Header
    fresh_decoder: str | None


def agree(
    found: Header,
    asked: Header,
    old: MaskedAutoencoder,
    new: MaskedAutoencoder,
    where: str,
) -> Agreed:
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
    inflates = found.backbone["name"] in getattr(new.backbone, "inflates", ())
    fresh = _why_fresh(found, asked, old, new)
    target, pinned = _pinned(found.target, asked.target)
    problems = _other_patch(old, new)
    free = LOAD_TIME | {"patch"} | ({"name"} if inflates else set())
    problems += _differences("backbone", found.backbone, asked.backbone, free)
    if fresh is None:
        problems += _differences("decoder", found.decoder, asked.decoder, LOAD_TIME)
        if found.target is not None:  # else nobody knows what it was
            free = _PLACE if pinned else frozenset()
            problems += _differences("target", found.target, target, free)
    if found.channels == asked.channels:
        for key in ("mean", "std"):
            problems += _difference(key, getattr(found, key), getattr(asked, key))
    parts = {"backbone": asked.backbone, "decoder": asked.decoder}
    for key, options in parts.items():
        if options is None or (key == "decoder" and fresh is not None):
            continue
        before, after = (_positions(getattr(model, key)) for model in (old, new))
        if before is not None and after is not None:
            theirs = getattr(found, key).get("positions")
            parts[key], more = _placed(key, options, theirs, before, after)
            problems += more
    if problems:
        msg = "the recipe asks for another model: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="take these values into the recipe")
    return Agreed(asked.model_copy(update={**parts, "target": target, "grid": new.grid}), fresh)


def _pinned(
    found: dict[str, Any] | None, asked: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, bool]:
    """The target asked for, held to the file of a frozen network that the weights were trained for.

    Such a file is known by its checksum, wherever it lies; the target refuses another when it
    reads it.
    """
    known = None if found is None else found.get("sha256")
    if asked is None or known is None or asked.get("sha256") not in (None, known):
        return asked, False
    return asked | {"sha256": known}, True


def _why_fresh(
    found: Header, asked: Header, old: MaskedAutoencoder, new: MaskedAutoencoder
) -> str | None:
    """Why a decoder starts anew: there is none, or what it predicted were other patches."""
    if asked.decoder is None:
        return None
    if found.decoder is None:
        return "there are no decoder weights in this file"
    if found.channels != asked.channels:
        return f"it predicts {found.channels} channels, not {asked.channels}"
    if old.backbone.patch != new.backbone.patch or found.backbone["name"] != asked.backbone["name"]:
        return "it predicts an image's patches"
    return None


def _other_patch(old: MaskedAutoencoder, new: MaskedAutoencoder) -> list[str]:
    """The patch, which may only grow from one frame to several."""
    before, after = old.backbone.patch, new.backbone.patch
    if before == after or (before[0] == 1 and before[1:] == after[1:]):
        return []
    return [f"backbone.patch: {list(before)} in the weights, {list(after)} asked"]


def _differences(
    key: str, found: dict[str, Any] | None, asked: dict[str, Any] | None, free: frozenset[str]
) -> list[str]:
    if found is None or asked is None:
        return _difference(key, found, asked)
    found, asked = (_spelled_out(key, part) for part in (found, asked))
    return [
        line
        for option in sorted((found.keys() | asked.keys()) - free)
        for line in _difference(f"{key}.{option}", found.get(option), asked.get(option))
    ]


def _spelled_out(key: str, part: dict[str, Any]) -> dict[str, Any]:
    """A part's options where each structure has one spelling: a size is its width, depth, heads."""
    options = registry.options_of(f"{key}s", part["name"])
    chosen = options.model_validate({k: v for k, v in part.items() if k != "name"})
    plain = {"name": part["name"]} | chosen.model_dump(mode="json")
    shape = getattr(chosen, "shape", None)
    if shape is None:
        return plain
    return {k: v for k, v in plain.items() if k != "size"} | asdict(shape)


def _difference(key: str, found: object, asked: object) -> list[str]:
    return [] if found == asked else [f"{key}: {found!r} in the weights, {asked!r} asked"]


def _positions(part: object) -> Positions | None:
    positions = getattr(part, "positions", None)
    return positions if isinstance(positions, Positions) else None


def _placed(
    key: str, options: dict[str, Any], theirs: str | None, old: Positions, new: Positions
) -> tuple[dict[str, Any], list[str]]:
    """A part's options with its positions as the weights have them, and what contradicts them.

    A kind that follows from the grid would change with it, so it is written down; a fixed table
    keeps the grid that it was made for.
    """
    kind = options.get("positions") or theirs or old.kind
    placed = dict(options)
    if options.get("positions") is None and kind != new.kind:
        placed["positions"] = kind
    if kind != old.kind or kind not in FIXED:
        return placed, []
    made_for, wanted = tuple(old.made_for), options.get("positions_grid")
    if wanted is not None and tuple(wanted) != made_for:
        return placed, _difference(f"{key}.positions_grid", list(made_for), list(wanted))
    placed["positions_grid"] = None if made_for == tuple(new.grid) else list(made_for)
    return placed, []
