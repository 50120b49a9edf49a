"""What of a classifier is trained: all of it, the last blocks, half a block, or the head alone.

MAE's partial fine-tuning (figure 9): 0 blocks is a linear head on frozen features, half a block is
the MLP of the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

from maekit.errors import PartError

if TYPE_CHECKING:
    from maekit.evaluate.classifier import Classifier

_WHERE = "finetune.blocks"
_HALF = ("norm2", "mlp")  # what the second half of a block is called, here and in timm


def freeze(classifier: Classifier, blocks: int | Literal["all", "half"]) -> list[nn.Module]:
    """Leave only the last blocks, and what is behind them, to be trained.

    The encoder's own last norm is not trained where it is not used, nor with 0 blocks.

    Returns:
        The modules that are frozen whole: they are to stay in evaluation mode, so that no path of
        theirs is dropped.

    Raises:
        PartError: there are not so many blocks, or the last one has no MLP of its own.
    """
    backbone = classifier.backbone
    norm = backbone.last_norm()
    if classifier.fc_norm is not None and norm is not None:
        norm.requires_grad_(requires_grad=False)
    if blocks == "all":
        return []
    every = list(backbone.blocks())
    count = 1 if blocks == "half" else blocks
    if count > len(every):
        msg = f"{count} blocks are to be trained, and the encoder has {len(every)}"
        raise PartError(msg, where=_WHERE, hint=f"at most {len(every)}, or all")
    trained_norm = classifier.fc_norm is None and count > 0
    backbone.requires_grad_(requires_grad=False)
    if trained_norm and norm is not None:
        norm.requires_grad_(requires_grad=True)
    first = len(every) - count
    for block in every[first:]:
        _train(block, half=blocks == "half")
    return every[:first]


def _train(block: nn.Module, *, half: bool) -> None:
    if not half:
        block.requires_grad_(requires_grad=True)
        return
    parts = [getattr(block, name, None) for name in _HALF]
    if not all(isinstance(part, nn.Module) for part in parts):
        msg = f"a {type(block).__name__} has no {' and '.join(_HALF)}: it has no half"
        raise PartError(msg, where=_WHERE, hint="give a number of blocks")
    for part in parts:
        part.requires_grad_(requires_grad=True)  # type: ignore[union-attr]
