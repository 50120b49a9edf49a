"""Which models another project's format can hold; what it cannot is refused, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from maekit.errors import WeightsError
from maekit.weights.formats import Family
from maekit.weights.header import Header

Allowed = Mapping[str, tuple[object, ...]]

_TABLES = ("sincos-2d", "learned")  # both are saved
_BACKBONES: Mapping[str, tuple[str, Allowed]] = {
    "mae": (
        "image-vit",
        {
            "class_token": (True,),
            "qkv_bias": ("all",),
            "mask_token": (False,),
            "positions": _TABLES,
        },
    ),
    "videomae": (
        "video-vit",
        {
            "class_token": (False,),
            "qkv_bias": ("qv",),
            "mask_token": (False,),
            "positions": ("sincos-1d",),
            "positions_grid": (None,),  # its code makes the table for the grid that it runs at
        },
    ),
}
_DECODERS: Mapping[str, Allowed] = {
    "mae": {
        "qkv_bias": ("all",),
        "embed_bias": (True,),
        "class_token": (False,),
        "positions": _TABLES,
    },
    "videomae": {
        "qkv_bias": ("qv",),
        "embed_bias": (False,),
        "class_token": (False,),
        "positions": ("sincos-1d",),
        "positions_grid": (None,),
    },
}


class Structure(NamedTuple):
    """A model's options, as far as formats differ in them."""

    backbone: Any  # ViTOptions of a backbone
    decoder: Any  # the decoder's options, or None

    @property
    def depths(self) -> tuple[int, int | None]:
        """Blocks of the encoder and of the decoder."""
        return self.backbone.shape.depth, None if self.decoder is None else self.decoder.depth


def structure_of(header: Header, family: Family, title: str, *, encoder: bool = False) -> Structure:
    """The options of a model that a format can hold.

    Args:
        encoder: the format holds encoders only: whatever the decoder is, it stays behind.

    Raises:
        WeightsError: it cannot hold this model; every reason is named.
    """
    name, wanted = _BACKBONES[family]
    problems = []
    if header.backbone.name != name:
        msg = f"{title} holds the backbone {name}, this is {header.backbone.name}"
        raise WeightsError(msg, where="--to", hint=_OTHERS)
    backbone: Any = header.backbone.options
    problems += _misfits("backbone", backbone, wanted)
    decoder = None
    if header.decoder is not None and not encoder:
        if header.decoder.name != "vit":
            problems.append(f"decoder {header.decoder.name} (vit)")
        else:
            decoder = header.decoder.options
            default = {"positions": "sincos-2d" if header.clip[0] == 1 else "sincos-1d"}
            problems += _misfits("decoder", decoder, _DECODERS[family], default)
    if problems:
        msg = f"{title} cannot hold this model: " + "; ".join(problems)
        raise WeightsError(msg, where="--to", hint=_OTHERS)
    return Structure(backbone, decoder)


_OTHERS = "use --to maekit, which holds every model"


def _misfits(
    part: str, options: BaseModel, wanted: Allowed, default: Mapping[str, object] | None = None
) -> list[str]:
    """Options that a format has no place for, with what it could hold."""
    found = []
    for key, allowed in wanted.items():
        value = getattr(options, key)
        value = (default or {}).get(key) if value is None else value
        if value not in allowed:
            held = " or ".join("unset" if each is None else str(each) for each in allowed)
            found.append(f"{part}.{key} {value} ({held})")
    return found
