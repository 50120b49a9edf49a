"""Weights for a model of another size: positions, cubes from patches, channels.

The old grid is always that of the weights' own header, never guessed from a number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from maekit.errors import WeightsError
from maekit.grid import Grid
from maekit.layers import FIXED, PatchEmbedding, Positions, resample_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maekit.contracts import Backbone, Decoder
    from maekit.model import MaskedAutoencoder

Inflate = Literal["average", "center"]


class Change(NamedTuple):
    """Description of how one part of the weights was changed."""

    name: str
    before: str
    after: str
    how: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} to {self.after}, {self.how}"


def resize(
    tensors: Mapping[str, Tensor],
    old: MaskedAutoencoder,
    new: MaskedAutoencoder,
    *,
    decoder_reset_reason: str | None,
    where: str,
) -> tuple[dict[str, Tensor], list[Change]]:
    """Make the tensors that ``new`` takes of those of ``old``.

    What keeps its size is untouched.

    Args:
        tensors: by maekit's names.
        old: the model that they are of; its own tensors are not looked at (meta device).
        new: the model that is to take them.
        decoder_reset_reason: why the decoder keeps its fresh initialization; None: it is
            taken from the weights.
        where: the weights' file, for errors.

    Raises:
        WeightsError: positions of one kind cannot become those of another.
    """
    ready, changes = dict(tensors), list[Change]()
    if decoder_reset_reason is not None:
        ready = {name: tensor for name, tensor in ready.items() if name.startswith("backbone.")}
        own = new.state_dict().items()
        ready |= {name: tensor for name, tensor in own if name.startswith("decoder.")}
        before = "the weights'" if old.decoder is not None else "none"
        changes.append(Change("decoder", before, "a fresh one", decoder_reset_reason))
    parts = ["backbone"] if decoder_reset_reason is not None or new.decoder is None else _PARTS
    modules = dict(old.named_modules())
    for name, module in new.named_modules():
        if name.partition(".")[0] not in parts:
            continue
        earlier = modules.get(name)
        if isinstance(module, Positions) and isinstance(earlier, Positions):
            changes += _place(name, earlier, module, ready, where)
        elif isinstance(module, PatchEmbedding) and isinstance(earlier, PatchEmbedding):
            how: Inflate = new.backbone.inflate
            changes += _embed(name, module, ready, how)
    if old.grid != new.grid:
        for part in parts:
            changes += _fit_the_rest(part, getattr(new, part), old.grid, new.grid, ready)
    return ready, changes


def _fit_the_rest(
    key: str, part: Backbone | Decoder, old: Grid, new: Grid, tensors: dict[str, Tensor]
) -> list[Change]:
    """Let a part fit in place what only it knows to depend on the grid."""
    prefix = f"{key}."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    fitted = part.resized(own, old, new)
    for name in own:
        del tensors[prefix + name]
    tensors |= {prefix + name: tensor for name, tensor in fitted.items()}
    how = f"fitted by {type(part).__name__}"
    none = torch.empty(0)
    return [
        Change(prefix + name, _size(before), _size(after), how)
        for name in sorted(own.keys() | fitted.keys())
        if (before := own.get(name, none)) is not (after := fitted.get(name, none))
        if not torch.equal(before, after)
    ]


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one value"


_PARTS = ["backbone", "decoder"]


def change_channels(weight: Tensor, channels: int) -> Tensor:
    """Give a patch embedding ``[D, C, pt, ph, pw]`` other channels, with the same sum over them.

    Each new channel gets the mean of the old ones times C / channels, so that a gray picture (all
    channels alike) is embedded as before.
    """
    if weight.shape[1] == channels:
        return weight
    share = weight.float().sum(dim=1, keepdim=True) / channels
    return share.expand(-1, channels, -1, -1, -1).to(weight.dtype)


def inflate(weight: Tensor, frames: int, how: Inflate) -> Tensor:
    """Make a patch embedding ``[D, C, 1, ph, pw]`` one of cubes: ``[D, C, frames, ph, pw]``.

    ``average`` gives each frame 1 / frames of it, so that a still clip is embedded as its picture;
    ``center`` gives all of it to frame ``frames // 2`` and zeros to the others (ViViT, arXiv
    2103.15691, section 3.4: filter inflation and central frame initialization).
    """
    if frames == 1:
        return weight
    if how == "average":
        return (weight.float() / frames).expand(-1, -1, frames, -1, -1).to(weight.dtype)
    cube = torch.zeros((*weight.shape[:2], frames, *weight.shape[3:]), dtype=weight.dtype)
    cube[:, :, frames // 2] = weight[:, :, 0]
    return cube


def _embed(
    name: str, new: PatchEmbedding, tensors: dict[str, Tensor], how: Inflate
) -> list[Change]:
    """Fit a patch embedding in place."""
    key = f"{name}.weight"
    weight = tensors.get(key)
    if weight is None or weight.ndim != new.weight.ndim:
        return []  # load_tensors names it
    changes = []
    channels, frames = new.weight.shape[1:3]
    if weight.shape[1] != channels:
        counts = (f"{weight.shape[1]} channels", str(channels))
        changes.append(Change(key, *counts, "the sum over channels kept"))
        weight = change_channels(weight, channels)
    if weight.shape[2] == 1 and frames > 1:
        what = {"average": "averaged over them", "center": f"in the one numbered {frames // 2}"}
        changes.append(Change(key, "1 frame", str(frames), what[how]))
        weight = inflate(weight, frames, how)
    tensors[key] = weight
    return changes


def _place(
    name: str, old: Positions, new: Positions, tensors: dict[str, Tensor], where: str
) -> list[Change]:
    """Fit positions in place."""
    if old.kind == new.kind and old.grid == new.grid:
        return []
    keys = [key for key in tensors if key.startswith(f"{name}.")]
    mine = {key.removeprefix(f"{name}."): tensors[key] for key in keys}
    if {key: rows.shape for key, rows in mine.items()} != _shapes(old):
        return []  # load_tensors names it
    for key in keys:
        del tensors[key]
    if old.kind != new.kind:
        rows = _of_another_kind(name, old, new, mine, where)
    elif new.kind == "learned-separable":
        rows = _separable(mine, old.grid, new.grid)
    elif new.kept and new.table is not None and new.kind in FIXED and new.made_for != old.made_for:
        rows = {"table": new.table.detach().clone()}  # made anew, not from the weights'
    elif new.kept:
        rows = {"table": _resampled(mine["table"], old, new)}
    else:
        rows = {}  # made again by the model, from the grid that its header keeps
    tensors |= {f"{name}.{key}": tensor for key, tensor in rows.items()}
    return [_change(name, old, new)]


def _of_another_kind(
    name: str, old: Positions, new: Positions, mine: dict[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Convert positions to another kind.

    Any can be trained on as a row per token; an image's also as space plus time.
    """
    if new.kind == "learned":
        return {"table": _resampled(_whole_table(old, mine), old, new)}
    if new.kind == "learned-separable" and old.grid.t == 1:
        table = _whole_table(old, mine)
        prefix, spatial = table.split([old.prefix_rows, old.grid.tokens], dim=1)
        width = table.shape[-1]
        parts = {"spatial": spatial, "temporal": torch.zeros(1, 1, width, dtype=table.dtype)}
        return _separable(
            parts | ({"prefix": prefix} if old.prefix_rows else {}), old.grid, new.grid
        )
    msg = f"{name} are {old.kind} in the weights, and {new.kind} ones cannot be made of them"
    kinds = " or ".join(dict.fromkeys((old.kind, "learned")))
    raise WeightsError(msg, where=where, hint=f"set model.{name} to {kinds}")


def _whole_table(old: Positions, mine: Mapping[str, Tensor]) -> Tensor:
    """Return all rows ``[1, prefix + N, D]``, made again where the table is fixed."""
    made_for = None if old.made_for == old.grid else old.made_for
    module = Positions(old.kind, old.grid, old.width, old.prefix_rows, made_for)
    module.load_state_dict(dict(mine))
    with torch.no_grad():
        rows: Tensor = module()
        return rows[None].clone()


def _resampled(table: Tensor, old: Positions, new: Positions) -> Tensor:
    """Resample ``[1, prefix + N, D]`` to the new grid; prefix rows are kept."""
    prefix, rows = table[0].split([old.prefix_rows, old.grid.tokens])
    return torch.cat([prefix, resample_rows(rows, old.grid, new.grid)])[None].contiguous()


def _separable(mine: Mapping[str, Tensor], old: Grid, new: Grid) -> dict[str, Tensor]:
    """Resample ``spatial [1, h*w, D]`` and ``temporal [1, t, D]``, each by itself."""
    axes = {
        "spatial": (Grid(1, old.h, old.w), Grid(1, new.h, new.w)),
        "temporal": (Grid(old.t, 1, 1), Grid(new.t, 1, 1)),
    }
    resampled = {
        key: resample_rows(mine[key][0], *grids)[None].contiguous() for key, grids in axes.items()
    }
    return dict(mine) | resampled


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


def _change(name: str, old: Positions, new: Positions) -> Change:
    before, after = (
        f"{each.kind} at {each.grid}" if old.kind != new.kind else str(each.grid)
        for each in (old, new)
    )
    how = []
    if old.grid[1:] != new.grid[1:]:
        how.append("bicubic in space")
    if old.grid.t != new.grid.t:
        how.append("linear in time" if old.grid.t > 1 else "one slot for all times")
    if new.kind in FIXED and old.kind == new.kind and new.made_for != old.made_for:
        how = [f"a table made anew for {new.made_for}"]
    elif not new.kept:
        how.append(f"from the table made for {new.made_for}")
    return Change(name, before, after, ", ".join(how) or "trained from now on")
