"""Names of timm's ConvNeXt V2, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from maekit.contracts import Foreign

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")
_SHRINK = re.compile(r"stages\.(\d+)\.downsample\.([01])\.(.+)")
_INNER = {
    "conv_dw": "conv", "norm": "norm", "mlp.fc1": "fc1", "mlp.grn": "response", "mlp.fc2": "fc2",
}  # fmt: skip
_OUTER = {"stem.0": "stem", "stem.1": "stem_norm", "head.norm": "norm"}


def ours(tensors: Mapping[str, Tensor]) -> Foreign | None:
    """Recognize timm's ConvNeXt V2; None: this is none (ConvNeXt has no response norm)."""
    stem = tensors.get("stem.0.weight")
    if stem is None or stem.ndim != 4 or "stages.0.blocks.0.mlp.grn.weight" not in tensors:
        return None
    depths: list[int] = []
    while f"stages.{len(depths)}.blocks.0.norm.weight" in tensors:
        place = f"stages.{len(depths)}.blocks."
        depths.append(len({name.split(".")[3] for name in tensors if name.startswith(place)}))
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        mine = _renamed(name, depths)
        if mine is None:
            return None
        if mine:
            # Pointwise convolutions, where timm has such, are linear layers here.
            plain = tensor.flatten(1) if ".fc" in mine and tensor.ndim == 4 else tensor
            renamed[mine] = plain.flatten() if ".response." in mine else plain
    left_out = len(tensors) - len(renamed)
    stride, side = int(stem.shape[-1]), int(stem.shape[-1]) * 2 ** (len(depths) - 1)
    return Foreign(
        options={"width": int(stem.shape[0]), "stages": tuple(depths), "stride": stride},
        tensors=renamed,
        title="timm's ConvNeXt V2",
        shape=(1, 7 * side, 7 * side),
        channels=int(stem.shape[1]),
        left_out={"of the head": left_out} if left_out else {},
    )


def _renamed(name: str, depths: list[int]) -> str | None:
    """Return our name of a tensor; empty: it is left out; None: it is of something else."""
    if name.startswith("head.fc."):
        return ""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    found = _SHRINK.fullmatch(name)
    if found:
        part = ("norm", "conv")[int(found[2])]
        return f"main.{sum(depths[: int(found[1])])}.shrink.{part}.{found[3]}"
    found = _BLOCK.fullmatch(name)
    inner, _, kind = ("", "", "") if found is None else found[3].rpartition(".")
    if found is None or inner not in _INNER:
        return None
    index = sum(depths[: int(found[1])]) + int(found[2])
    return f"main.{index}.{_INNER[inner]}.{kind}"
