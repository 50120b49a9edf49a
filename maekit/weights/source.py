"""Opening weights wherever they come from: maekit's own files and runs, and everybody else's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from maekit.errors import RecipeError
from maekit.weights import foreign
from maekit.weights.adopt import Weights, read_foreign
from maekit.weights.file import KEY, find_weights, read_header, read_tensors
from maekit.weights.formats import Family
from maekit.weights.hints import Given
from maekit.weights.infer import check_values, target_part
from maekit.weights.report import Report
from maekit.weights.timm_source import open_timm, pretrained

__all__ = [
    "Given",
    "Weights",
    "check_there",
    "is_foreign",
    "local_path",
    "open_native",
    "open_weights",
]

HF, TIMM = "hf:", "timm:"


def open_weights(
    source: str | Path, *, given: Given | None = None, allow_missing: Sequence[str] = ()
) -> Weights:
    """Weights from a run folder, a maekit file, a foreign file, ``hf:FOLDER`` or ``timm:NAME``.

    Only ``timm:NAME`` may open a connection; it logs the address first.

    Args:
        given: what a file does not say of itself; of maekit's own, an unknown target.
        allow_missing: patterns of keys that may be missing from a foreign file, or dropped.

    Raises:
        RecipeError: nothing is there, or ``given`` cannot be.
        WeightsError: unreadable, not recognized, or not 100 % of what it should be.
    """
    found = open_native(source)
    if found is not None:
        return _told(found, given or Given(), allow_missing)
    text = str(source)
    if text.startswith(TIMM):
        return open_timm(text.removeprefix(TIMM), given or Given(), allow_missing)
    return read_foreign(foreign.read(_path(text)), given or Given(), allow_missing)


def _told(found: Weights, given: Given, allow_missing: Sequence[str]) -> Weights:
    """Own weights describe themselves, but for a target that was not known on conversion."""
    header = found.header
    if given == Given() and not allow_missing:
        return found
    if allow_missing or given != Given(target=given.target) or header.out_dim is None:
        msg = "maekit's own weights describe themselves"
        hint = "leave out what you say of them (--target, --heads, --clip, --allow-missing)"
        raise RecipeError(msg, where=found.origin, hint=hint)
    family: Family = "videomae" if header.backbone.name == "video-vit" else "mae"
    target = target_part(family, str(given.target))
    patch = found.tensors["backbone.patch_embed.weight"].shape[1:]
    check_values(header.out_dim, math.prod(patch), found.origin)
    described = header.model_copy(update={"target": target, "out_dim": None})
    return replace(found, header=described)


def local_path(source: str | Path) -> Path | None:
    """The file or folder that a source names; None for ``timm:NAME``."""
    return None if str(source).startswith(TIMM) else _path(str(source))


def check_there(source: str | Path) -> None:
    """Refuse, before anything is made, a source of which nothing is there.

    Raises:
        RecipeError: so it is, or timm knows no such weights. Whether they can be fetched is known
            only when that is tried.
    """
    path = local_path(source)
    if path is None:
        pretrained(str(source).removeprefix(TIMM))
    if path is not None and not path.exists():
        hint = "give a run folder, a weights file, hf:FOLDER or timm:NAME"
        raise RecipeError(f"no such run or weights file: {source}", where="--from", hint=hint)


def is_foreign(source: str | Path) -> bool:
    """Whether somebody else's weights are named; what is not there counts as maekit's."""
    return str(source).startswith((HF, TIMM)) or not _ours(Path(source))


def _path(source: str) -> Path:
    return Path(source.removeprefix(HF))


def open_native(source: str | Path) -> Weights | None:
    """Weights that maekit wrote; None where the source is somebody else's."""
    if is_foreign(source):
        return None
    path = find_weights(source)
    header, tensors = read_header(path), read_tensors(path)
    origin = f"{path} ({header.source or 'maekit'})"
    return Weights(header, tensors, origin, Report("maekit", len(tensors)))


def _ours(path: Path) -> bool:
    """Whether maekit is to read it: what is not there too, for one message about it."""
    if not path.is_file():
        return not (path / foreign.CONFIG).is_file()
    if not foreign.is_safetensors(path):
        return False
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):  # read_header says what is wrong, and what to try
        return True
