"""A classifier: an encoder, its tokens pooled, a norm, a head; and which of it is trained.

B samples, C channels, T frames, H x W pixels; D is the encoder's width, K the number of outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from maekit.engine import distributed
from maekit.engine.build import load_model, without_head
from maekit.errors import PartError, WeightsError
from maekit.evaluate.features import pool_then_norm, pool_tokens, required_norm
from maekit.layers import LAYER_NORM_EPS, Normalizer, Statistics
from maekit.model import MaskedAutoencoder
from maekit.tokens import Mask, require_clips
from maekit.weights.importer import UserHints, Weights, open_weights
from maekit.weights.safetensors_io import CLASSIFIER, load_exactly

if TYPE_CHECKING:
    import numpy as np

    from maekit.contracts import Backbone, Grid
    from maekit.weights.header import ClassifierHeader, Header, Norm, Pool

ENCODER = "backbone."  # before the encoder's tensors, as in every weights file
HEAD_STD = 2e-5  # of MAE's fine-tuning (main_finetune.py:257)
LINEAR_STD = 0.02  # of VideoMAE's, before init_scale (modeling_finetune.py:232)
BATCH_NORM_EPS = 1e-6  # of MAE's linear probe (main_linprobe.py:222)
_WHERE = "finetune.blocks"
_HALF = ("norm2", "mlp")  # what the second half of a block is called, here and in timm


class Headed(nn.Module):
    """Base of what fine-tuning trains: an encoder, a norm, a head; and pixels' statistics.

    Raises:
        PartError: the encoder has no norm of its own, where it is needed.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        norm: Norm,
        clip: tuple[int, int, int],
        statistics: Statistics,
        norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        if norm == "pretrained":
            required_norm(backbone)
        self.backbone = backbone
        self.norm_kind: Norm = norm
        self.fc_norm = nn.LayerNorm(backbone.width, eps=norm_eps) if norm == "fresh" else None
        self.head = head
        self.frozen: list[nn.Module] = []  # of the encoder: always in evaluation mode
        self.clip = clip
        self.grid: Grid = backbone.grid(clip)
        self.statistics = statistics
        self.normalizer = Normalizer(statistics)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave frozen modules in evaluation mode, so that they drop no paths."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def device(self) -> torch.device:
        """The device that its tensors are on."""
        return self.normalizer.mean.device

    def normalize(self, pixels: Tensor) -> Tensor:
        """Take pixels in [0, 1] to the space that the encoder works in."""
        normalized: Tensor = self.normalizer(pixels)
        return normalized


class Classifier(Headed):
    """Encodes whole clips and predicts their classes, labels or values.

    ``norm="fresh"`` puts a new LayerNorm behind the pooling, and the encoder's own is not used (MAE
    and VideoMAE, ``fc_norm``); ``"pretrained"`` puts the encoder's own there (mae_st; with
    ``pool="cls"`` that is MAE's linear probe, where the order makes no difference); with
    ``"tokens"`` it stands before the pooling, as in a probe of cached features.

    Raises:
        PartError: the encoder has no class token, or no norm of its own, where one is needed.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        pool: Pool,
        norm: Norm,
        clip: tuple[int, int, int],
        statistics: Statistics,
        norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        if pool == "cls" and not backbone.prefix_tokens:
            msg = f"{type(backbone).__name__} has no class token to pool"
            raise PartError(msg, where="pool: cls", hint="take pool: mean")
        super().__init__(
            backbone, head, norm=norm, clip=clip, statistics=statistics, norm_eps=norm_eps
        )
        self.pool: Pool = pool

    @classmethod
    def of(
        cls,
        model: MaskedAutoencoder,
        head: nn.Module,
        *,
        pool: Pool,
        norm: Norm,
        norm_eps: float = LAYER_NORM_EPS,
    ) -> Self:
        """Build a classifier on the encoder of a masked autoencoder, which it shares."""
        return cls(
            model.backbone,
            head,
            pool=pool,
            norm=norm,
            clip=model.clip,
            statistics=model.statistics,
            norm_eps=norm_eps,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute outputs ``[B, K]`` of normalized pixels ``[B, C, T, H, W]``."""
        logits: Tensor = self.head(self.features(pixels))
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """Compute what the head gets, ``[B, D]``, of normalized pixels."""
        if self.norm_kind == "tokens":
            count = require_clips(pixels).shape[0]  # len() would fix it where it is traced
            mask = Mask.nothing_hidden(count, self.grid.tokens, pixels.device)
            encoded = self.backbone(pixels, mask)
            return pool_tokens(encoded.tokens, self.pool, self.backbone.prefix_tokens)
        norm = required_norm(self.backbone) if self.fc_norm is None else self.fc_norm
        return pool_then_norm(self.backbone, pixels, self.grid, self.pool, norm)


class HeadFeatures:
    """Turns pixels in [0, 1] into what a classifier's head gets, float32 ``[B, D]``."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.eval()

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Compute the features of pixels ``[B, C, T, H, W]``."""
        return self.classifier.features(self.classifier.normalize(pixels)).float()


def load_classifier(
    source: str | Path | Weights,
    classes: Sequence[str] | None = None,
    clip: tuple[int, int, int] | None = None,
) -> tuple[Classifier, Header]:
    """Load the classifier of a run, or of a file of maekit or of others, in evaluation mode.

    Args:
        source: where the weights are, as ``open_weights`` takes it; or opened ones.
        classes: names of its outputs, where the file has none.
        clip: frames, height and width in pixels that it shall take, where not its own.

    Raises:
        WeightsError: the file has no head, or does not match its own header.
        RecipeError: the names are more or fewer than its outputs.
    """
    hints = UserHints(classes=None if classes is None else tuple(classes))
    weights = source if isinstance(source, Weights) else open_weights(source, user_hints=hints)
    if weights.header.classifier is None:
        msg = "these weights hold no classifier: they come from pre-training"
        hint = "give a run of maekit finetune, or a file with a head"
        raise WeightsError(msg, where=weights.origin, hint=hint)
    described = weights.header.classifier
    refuse_detector(described, weights.origin)
    model, header = load_model(without_head(weights), clip)
    head = make_head(
        model.backbone.width,
        len(described.outputs),
        dropout=described.dropout,
        batch_norm=described.batch_norm,
    )
    classifier = Classifier.of(
        model, head, pool=described.pool, norm=described.norm, norm_eps=described.norm_eps
    )
    put_head(classifier, weights)
    return classifier.eval(), header.model_copy(update={"classifier": described})


def refuse_detector(described: ClassifierHeader, where: str) -> None:
    """Refuse a head that scores boxes where whole samples are to be scored.

    Raises:
        WeightsError: it is one.
    """
    if described.roi is not None:
        msg = "these weights hold a detector, which scores boxes in clips and no whole samples"
        raise WeightsError(
            msg, where=where, hint="`maekit detect` asks it, `maekit evaluate` judges it"
        )


def put_head(model: Headed, weights: Weights) -> None:
    """Load what weights hold besides the encoder, which is there already.

    Raises:
        WeightsError: they hold something else.
    """
    own = {name: tensor for name, tensor in weights.tensors.items() if name.startswith(CLASSIFIER)}
    encoder = {
        name: tensor for name, tensor in model.state_dict().items() if name.startswith(ENCODER)
    }
    load_classifier_tensors(model, encoder | own, weights.origin)


def classifier_tensors(classifier: Headed) -> dict[str, Tensor]:
    """Name tensors as they are saved: the encoder's as ever, the others under ``classifier.``."""
    return {
        name if name.startswith(ENCODER) else f"{CLASSIFIER}{name}": tensor
        for name, tensor in classifier.state_dict().items()
    }


def load_classifier_tensors(classifier: Headed, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load what ``classifier_tensors`` returned.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; all are named.
    """
    own = {name.removeprefix(CLASSIFIER): tensor for name, tensor in tensors.items()}
    load_exactly(classifier, own, where)


class FeatureNorm(nn.BatchNorm1d):
    """A batch norm of frozen features, by the statistics of the batches of all ranks.

    torch's own for several ranks needs a GPU, and a gradient that frozen features do not have.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalize ``[B, D]``."""
        if not self.training or distributed.size() == 1:
            return super().forward(features)
        (count,) = distributed.sums(len(features))
        mean = distributed.add_up(features.sum(dim=0)) / count
        squares = distributed.add_up((features - mean).square().sum(dim=0))
        running_mean, running_var = self.running_mean, self.running_var
        assert running_mean is not None  # noqa: S101 - it tracks them
        assert running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        momentum = float(self.momentum or 0.0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(squares / max(1.0, count - 1), momentum)
        self.num_batches_tracked += 1
        return (features - mean) * torch.rsqrt(squares / count + self.eps)


def make_head(
    width: int,
    outputs: int,
    *,
    dropout: float = 0.0,
    init_std: float = HEAD_STD,
    init_scale: float | None = None,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Make a head: features ``[B, width]`` to logits or values ``[B, outputs]``; its bias is 0.

    Args:
        width: of the features.
        outputs: K.
        dropout: of the features, before the linear layer.
        init_std: of the truncated normal that the weights are drawn from.
        init_scale: instead, 0.02 times this (VideoMAE's --init_scale).
        batch_norm: normalize features first, without scale and shift (MAE's linear probe).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if batch_norm:
        parts["batch_norm"] = FeatureNorm(width, affine=False, eps=BATCH_NORM_EPS)
    parts["dropout"] = nn.Dropout(dropout)
    linear = nn.Linear(width, outputs)
    std = init_std if init_scale is None else LINEAR_STD * init_scale
    # Cut at +-2, not at two deviations, as timm's is: in effect not cut at all.
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    parts["linear"] = linear
    return nn.Sequential(parts)


def linear_head(weights: np.ndarray, biases: np.ndarray) -> nn.Sequential:
    """Make a head of fitted weights ``[K, D]`` and biases ``[K]``."""
    head = make_head(weights.shape[1], len(weights))
    layer = {"linear.weight": torch.from_numpy(weights), "linear.bias": torch.from_numpy(biases)}
    head.load_state_dict(layer)
    return head


def freeze(classifier: Headed, blocks: int | Literal["all", "half"]) -> list[nn.Module]:
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
        msg = f"{type(block).__name__} cannot be trained by half: it has no {' and '.join(_HALF)}"
        raise PartError(msg, where=_WHERE, hint="give a number of blocks")
    for part in parts:
        part.requires_grad_(requires_grad=True)  # type: ignore[union-attr]
