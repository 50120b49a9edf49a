"""Check the promises of backbones, decoders and targets."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from maekit.contracts import Backbone, Decoder, Encoded, PixelTarget, Target
from maekit.testing.names import check_names
from maekit.tokens import Mask, gather, patchify, unpatchify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from maekit.contracts import PartContext

BATCH = 2
TOLERANCE = 1e-5


def make_mask(tokens: int, unit_tokens: int = 1, seed: int = 0) -> Mask:
    """Draw a random mask that hides three quarters (at least one token, not all)."""
    units = tokens // unit_tokens
    count = min(max(1, units * 3 // 4), units - 1)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(BATCH, units, generator=generator).argsort(1) < count
    return Mask.build(hidden.repeat_interleave(unit_tokens, dim=1))


@torch.no_grad()
def check_backbone(backbone: Backbone, context: PartContext) -> None:
    """Check shapes, blindness to what is hidden, and the names that fine-tuning needs.

    A backbone that cannot leave tokens out (``keeps_all``) is checked with nothing hidden.
    """
    check_names(backbone, Backbone)
    grid = backbone.grid(context.shape)
    mask = make_mask(grid.tokens)
    if backbone.keeps_all is not None:
        mask = Mask.nothing_hidden(BATCH, grid.tokens)
    torch.manual_seed(0)
    pixels = torch.randn(BATCH, context.channels, *context.shape)
    module = backbone.eval()
    encoded = backbone(pixels, mask)
    seen = grid.tokens if backbone.returns == "all" else mask.visible.shape[1]
    shape = (BATCH, backbone.prefix_tokens + seen, backbone.width)
    assert encoded.tokens.shape == shape, f"tokens {tuple(encoded.tokens.shape)}, not {shape}"
    patches = patchify(pixels, backbone.patch)
    noise = torch.randn_like(patches) * mask.hidden()[..., None]
    other = unpatchify(patches + noise, grid, backbone.patch)
    changed = backbone(other, mask).tokens
    assert torch.equal(encoded.tokens, changed), "hidden pixels reach the encoder"
    blocks = backbone.blocks()
    taken = backbone(pixels, mask, layers=(0, len(blocks) - 1)).layers
    assert len(taken) == len({0, len(blocks) - 1}), f"requested two layers, got {len(taken)}"
    layers = {backbone.layer_of(name) for name, _ in module.named_parameters()}
    assert layers <= set(range(len(blocks) + 2)), f"layer_of gives {sorted(layers)}"
    assert {0, 1} <= layers, "layer_of gives no parameter to the embedding or the first block"


@torch.no_grad()
def check_target(target: Target, context: PartContext) -> None:
    """Check shapes, float32 losses, and that a painting target looks at nothing hidden.

    A target that is fitted is fitted to noise first, and must come back from its own state; one
    whose ``fit`` only looks keeps nothing, and encodes as before.
    """
    check_names(target, PixelTarget)
    mask = make_mask(context.grid.tokens)
    torch.manual_seed(0)
    pixels = torch.rand(BATCH, context.channels, *context.shape)
    views: Sequence[Tensor] = [pixels, *(_view(target, index, context) for index in _more(target))]
    _fit(target, views, mask)
    truth = target.encode(views, mask)
    queries = tuple(mask.queries.shape)
    assert tuple(truth.shape[:2]) == queries, f"encode gives {tuple(truth.shape)}, not [B, Q, ...]"
    pred = torch.randn(*queries, target.out_dim)
    loss = target.loss(pred, truth)
    assert tuple(loss.shape) == queries, f"loss is {tuple(loss.shape)}, not {queries}"
    assert loss.dtype == torch.float32, f"loss is {loss.dtype}, not float32"
    assert bool(loss.isfinite().all()), "loss is not finite"
    if isinstance(target, PixelTarget):
        _check_painting(target, pred, pixels, mask, context)


def _fit(target: Target, views: Sequence[Tensor], mask: Mask) -> None:
    unfitted = copy.deepcopy(target)
    target.fit([views, views])
    kept = target.state()
    if type(target).fit is not Target.fit and not kept:
        try:
            same = torch.equal(unfitted.encode(views, mask), target.encode(views, mask))
        except Exception:  # noqa: BLE001 - any part's: it cannot encode before it is fitted
            same = False
        assert same, "fit leaves no state to keep with the weights"
    target.load_state({name: tensor.clone() for name, tensor in kept.items()})
    again = target.state()
    same = kept.keys() == again.keys() and all(torch.equal(kept[n], again[n]) for n in kept)
    assert same, "load_state does not bring back what state gave"


def _more(target: Target) -> range:
    return range(len(target.views))


def _view(target: Target, index: int, context: PartContext) -> Tensor:
    view = target.views[index]
    return torch.rand(BATCH, context.channels, view.frames or context.shape[0], *view.size)


def _check_painting(
    target: PixelTarget, pred: Tensor, pixels: Tensor, mask: Mask, context: PartContext
) -> None:
    painted = target.decode(pred, pixels, mask)
    pt, ph, pw = context.patch
    shape = (*mask.queries.shape, pt * ph * pw * context.channels)
    assert tuple(painted.shape) == shape, f"decode gives {tuple(painted.shape)}, not {shape}"
    patches = patchify(pixels, context.patch)
    noise = torch.rand_like(patches) * mask.hidden()[..., None]
    other = unpatchify(patches + noise, context.grid, context.patch)
    leak_free = torch.equal(painted, target.decode(pred, other, mask))
    assert leak_free, "decode with visible statistics looks at hidden pixels"


@torch.no_grad()
def check_decoder(decoder: Decoder, context: PartContext) -> None:
    """Check that there is one prediction per query, in the order of the queries."""
    check_names(decoder, Decoder)
    grid = context.grid
    mask = make_mask(grid.tokens)
    seen = grid.tokens if context.returns == "all" else mask.visible.shape[1]
    torch.manual_seed(0)
    tokens = torch.randn(BATCH, context.prefix_tokens + seen, context.width)
    encoded = Encoded(tokens)
    decoder.eval()
    pred = decoder(encoded, mask, grid)
    shape = (*mask.queries.shape, context.out_dim)
    assert tuple(pred.shape) == shape, f"predictions {tuple(pred.shape)}, not {shape}"
    order = torch.randperm(mask.queries.shape[1]).expand_as(mask.queries)
    shuffled = Mask(
        mask.visible, mask.queries.gather(1, order), mask.weight.gather(1, order), mask.tokens
    )
    again = decoder(encoded, shuffled, grid)
    same = torch.allclose(again, gather(pred, order), atol=TOLERANCE)
    assert same, "predictions do not follow the order of mask.queries"
