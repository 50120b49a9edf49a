"""Find what files say of their models: training arguments, configs of timm and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from maekit.errors import WeightsError
from maekit.weights.hints import FileHints
from maekit.weights.stated import (
    as_channels_and_size,
    as_count,
    as_deviations,
    as_floats,
    as_share,
    as_size,
    stated,
)
from maekit.weights.transformers_config import hints_of_config

if TYPE_CHECKING:
    from maekit.weights.foreign import ForeignCheckpoint


def read_file_hints(
    found: ForeignCheckpoint, kind: str, family: str, *, classifier: bool
) -> FileHints:
    """Return what a file says of its model.

    Args:
        found: the file, or folder.
        kind: the format that its keys are of: transformers' has nothing but its config to say what
            no tensor shows.
        family: whose conventions it follows.
        classifier: whether it has a head.

    Raises:
        WeightsError: the config is missing where there must be one, is of another model, or of one
            that maekit cannot compute.
    """
    if "architecture" in found.config and "model_type" not in found.config:
        return _hints_of_timm(found, family)
    if found.config:
        return hints_of_config(found, family, classifier=classifier)
    if kind == "hf":
        msg = "no config.json beside transformers' tensors: heads and epsilon stand only there"
        raise WeightsError(msg, where=found.where, hint="put both into a folder: hf:FOLDER")
    args = found.args
    normalized = args.get("norm_pix_loss", args.get("normlize_target"))
    target = None
    # VideoMAE's flag is type=bool: whatever was typed, it is a bool here.
    if isinstance(normalized, bool):
        target = "norm-pixel" if normalized else "pixel"
    return FileHints(
        target=target,
        frames=as_count(args.get("num_frames")),
        size=as_size(args.get("input_size")),
        dropout=next(filter(None, (as_share(args.get(key)) for key in _DROPOUTS)), None),
    )


# Of VideoMAE, VideoMAEv2 and mae_st.
_DROPOUTS = ("fc_drop_rate", "head_drop_rate", "dropout")


def _hints_of_timm(found: ForeignCheckpoint, family: str) -> FileHints:
    """Read timm's hub folders: {"architecture": ..., "pretrained_cfg": {...}}."""
    if family != "mae":
        msg = f"config.json is of timm's {found.config['architecture']}, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json next to them")
    said = found.config.get("pretrained_cfg")
    config = said if isinstance(said, Mapping) else {}
    size = stated(config, "input_size", as_channels_and_size, found.where)
    return FileHints(
        size=None if size is None else size[1:],
        mean=stated(config, "mean", as_floats, found.where),
        std=stated(config, "std", as_deviations, found.where),
    )
