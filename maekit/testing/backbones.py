"""The promises of backbones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartError
from maekit.testing.modules import (
    BATCH,
    ModuleTrial,
    at_each,
    changed_at,
    check_compiled,
    check_device,
    check_gradients,
    check_meta_build,
    check_options_read,
    check_resolved,
    check_resumed,
    check_taken,
    check_trained,
    close,
    draw_mask,
    example,
    noise,
    state_of_torch,
)
from maekit.testing.names import check_names
from maekit.testing.options import check_recipe
from maekit.testing.promises import NotApplicableError, Promises
from maekit.tokens import Mask

# Sizes that small patches, then units of many pixels, then timm's models divide.
_IMAGES = ((1, 32, 48), (1, 64, 96), (1, 128, 192), (1, 224, 224))
_CLIPS = ((4, 32, 48), (4, 64, 96), (8, 128, 192), (16, 224, 224))

# A backbone is built first: what its context says of one is empty.
_UNKNOWN: dict[str, Any] = {"grid": Grid(0, 0, 0), "width": 0, "layer_widths": (), "out_dim": 0}

backbone_promises: Promises[BackboneTrial] = Promises()


@dataclass
class BackboneTrial(ModuleTrial[Backbone]):
    """A backbone at a clip that it takes."""

    candidates: ClassVar[tuple[PartContext, ...]] = tuple(
        example(shape, (1, 1, 1), **_UNKNOWN) for shape in (*_IMAGES, *_CLIPS)
    )

    def fits(self, built: Backbone, context: PartContext) -> None:
        """Raise PartError where the clip, or its mask units, do not fit."""
        try:
            built.grid(context.shape).over(built.mask_unit)
        except ValueError as error:
            raise PartError(str(error)) from error

    @cached_property
    def backbone(self) -> Backbone:
        """One in evaluation mode, for the first clip that it takes."""
        return self.build(self.first).eval()

    @cached_property
    def mask(self) -> Mask:
        """A mask of whole units; of a backbone that keeps all tokens nothing is hidden."""
        return self.mask_of(self.backbone, self.first)

    def mask_of(self, backbone: Backbone, context: PartContext, batch: int = BATCH) -> Mask:
        """Draw a mask for one of its clips."""
        grid = backbone.grid(context.shape)
        if backbone.keeps_all is not None:
            return Mask.nothing_hidden(batch, grid.tokens)
        return draw_mask(grid, backbone.mask_unit, batch=batch)

    def tokens(self, module: nn.Module) -> Tensor:
        """Encode noise that is masked, in a module of this backbone's class."""
        pixels = noise(self.first)
        like = next((p for p in module.parameters() if p.is_floating_point()), pixels)
        encoded: Encoded = module(pixels.to(like.dtype), self.mask)
        return encoded.tokens


def encode(backbone: Backbone, pixels: Tensor, mask: Mask, **more: Any) -> Encoded:  # noqa: ANN401
    """Encode copies of pixels, without gradients."""
    with torch.no_grad():
        encoded: Encoded = backbone(pixels.clone(), mask, **more)
    return encoded


@backbone_promises()
def options_survive_a_recipe(trial: BackboneTrial) -> None:
    """Options are written into recipes and headers as JSON, and come back the same."""
    check_recipe(trial.options)


@backbone_promises()
def is_built_for_a_clip(trial: BackboneTrial) -> None:
    """It is built for some clip; those that it cannot take it refuses with PartError."""
    check_taken(trial, Backbone)


@backbone_promises()
@at_each
def is_built_on_the_meta_device(trial: BackboneTrial, context: PartContext) -> None:
    """Its constructor also runs on the meta device, as every load does it."""
    check_meta_build(trial, context)


@backbone_promises("is_built_for_a_clip")
def members_are_spelled_as_the_contract_spells_them(trial: BackboneTrial) -> None:
    """No attribute looks like a misspelled member, which would never be called."""
    check_names(trial.backbone, Backbone)


@backbone_promises("is_built_for_a_clip")
@at_each
def patches_make_up_its_grid(trial: BackboneTrial, context: PartContext) -> None:
    """``grid`` times ``patch`` is the clip, and the grid divides into mask units."""
    backbone = trial.build(context)
    grid, patch = backbone.grid(context.shape), tuple(backbone.patch)
    clip = tuple(count * step for count, step in zip(grid, patch, strict=True))
    said = f"a grid of {grid} with patches of {patch} is {clip}, not {context.shape}"
    assert clip == tuple(context.shape), said
    grid.over(backbone.mask_unit)


@backbone_promises("is_built_for_a_clip")
def refuses_a_clip_that_does_not_divide(trial: BackboneTrial) -> None:
    """``grid`` raises PartError for a clip that does not divide into patches."""
    backbone = trial.backbone
    for axis, step in enumerate(backbone.patch):
        if step == 1:
            continue
        shape = list(trial.first.shape)
        shape[axis] += 1
        try:
            grid = backbone.grid((shape[0], shape[1], shape[2]))
        except PartError:
            continue
        what = f"takes a clip of {tuple(shape)} pixels for a grid of {grid} patches"
        raise AssertionError(what)


@backbone_promises("is_built_for_a_clip")
@at_each
def returns_the_tokens_that_it_declares(trial: BackboneTrial, context: PartContext) -> None:
    """Tokens are ``[B, prefix + K (N where it returns all), width]``, finite float32."""
    backbone = trial.build(context)
    backbone.eval()
    grid, pixels = backbone.grid(context.shape), noise(context)
    whole = Mask.nothing_hidden(BATCH, grid.tokens)
    for mask in (trial.mask_of(backbone, context), whole):
        tokens = encode(backbone, pixels, mask).tokens
        seen = grid.tokens if backbone.returns == "all" else mask.visible.shape[1]
        shape = (BATCH, backbone.prefix_tokens + seen, backbone.width)
        declared = f"{backbone.prefix_tokens} prefix + {seen} tokens of width {backbone.width}"
        assert tokens.shape == shape, f"tokens {tuple(tokens.shape)}, not {shape}: {declared}"
        assert tokens.dtype == torch.float32, f"tokens are {tokens.dtype} of float32 pixels"
        assert bool(tokens.isfinite().all()), "tokens are not finite"


@backbone_promises("returns_the_tokens_that_it_declares")
def encodes_the_same_each_time(trial: BackboneTrial) -> None:
    """In evaluation mode nothing is drawn, and nothing is remembered."""
    pixels, before = noise(trial.first), state_of_torch()
    first = encode(trial.backbone, pixels, trial.mask).tokens
    assert state_of_torch() == before, "draws random numbers in evaluation mode"
    encode(trial.backbone, noise(trial.first, seed=5), trial.mask)
    again = encode(trial.backbone, pixels, trial.mask).tokens
    assert torch.equal(first, again), "encodes the same pixels to other tokens the second time"


@backbone_promises("returns_the_tokens_that_it_declares")
def leaves_pixels_as_they_are(trial: BackboneTrial) -> None:
    """It does not change its input in place."""
    pixels = noise(trial.first)
    before = pixels.clone()
    with torch.no_grad():
        trial.build(trial.first).eval()(pixels, trial.mask)
    assert torch.equal(pixels, before), "changes the pixels that it is given in place"


@backbone_promises(
    "encodes_the_same_each_time", "leaves_pixels_as_they_are", "patches_make_up_its_grid"
)
def sees_nothing_that_is_hidden(trial: BackboneTrial) -> None:
    """What is hidden changes no token."""
    _check_blind(trial, trial.build(trial.first).eval())


@backbone_promises("sees_nothing_that_is_hidden")
def sees_nothing_that_is_hidden_while_training(trial: BackboneTrial) -> None:
    """Nor in training mode, where batch norms look at everything that they get."""
    _check_blind(trial, trial.build(trial.first).train())


def _check_blind(trial: BackboneTrial, backbone: Backbone) -> None:
    if backbone.keeps_all is not None:
        raise NotApplicableError(backbone.keeps_all)
    pixels = noise(trial.first)
    grid = backbone.grid(trial.first.shape)
    other = changed_at(pixels, trial.mask.hidden(), grid, backbone.patch)
    found = []
    for each in (pixels, other):
        torch.manual_seed(7)
        found.append(encode(copy.deepcopy(backbone), each, trial.mask).tokens)
    assert torch.equal(*found), "hidden pixels reach the encoder"


@backbone_promises("encodes_the_same_each_time")
def keeps_samples_apart(trial: BackboneTrial) -> None:
    """In evaluation mode a sample's tokens do not depend on the others of its batch."""
    pixels, mask = noise(trial.first), trial.mask
    together = encode(trial.backbone, pixels, mask).tokens
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone = Mask(mask.visible[one], mask.queries[one], mask.weight[one], mask.tokens)
        tokens = encode(trial.backbone, pixels[one], alone).tokens
        assert close(tokens, together[one]), "a sample's tokens depend on the others of its batch"


@backbone_promises("keeps_samples_apart", "patches_make_up_its_grid")
def tokens_stand_in_the_order_of_the_mask(trial: BackboneTrial) -> None:
    """Token k is that of ``mask.visible[k]``: it changes most where its own patch changes."""
    backbone, context = trial.backbone, trial.first
    grid, patch = backbone.grid(context.shape), backbone.patch
    pixels = noise(context, batch=1)
    mask = trial.mask_of(backbone, context, batch=1)
    visible = mask.visible[0]
    places = visible[torch.linspace(0, len(visible) - 1, min(len(visible), 24)).long()]
    n = len(places)
    # One picture for each place, changed there.
    at = torch.zeros(n, grid.tokens, dtype=torch.bool)
    at[torch.arange(n), places] = True
    many = Mask(mask.visible.expand(n, -1), mask.queries.expand(n, -1), mask.weight, mask.tokens)
    changed = changed_at(pixels.expand(n, *pixels.shape[1:]), at, grid, patch)
    before = encode(backbone, pixels, mask).tokens
    moved = (encode(backbone, changed, many).tokens - before)[:, backbone.prefix_tokens :]
    most = moved.square().sum(-1).argmax(1)
    found = most if backbone.returns == "all" else visible[most]
    right = int((found == places).sum())
    what = f"only {right} of {n} tokens change most where their own patch is changed"
    assert 2 * right > n, f"{what}: they stand in another order than mask.visible"


@contextmanager
def _outputs_of(backbone: Backbone) -> Iterator[list[tuple[int, Tensor]]]:
    found: list[tuple[int, Tensor]] = []

    def hook(index: int) -> Callable[..., None]:
        def take(module: nn.Module, inputs: object, output: object) -> None:  # noqa: ARG001
            first = output[0] if isinstance(output, tuple) else output
            found.append((index, first))  # type: ignore[arg-type]

        return take

    handles = [each.register_forward_hook(hook(i)) for i, each in enumerate(backbone.blocks())]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@backbone_promises("returns_the_tokens_that_it_declares")
def blocks_are_called_in_their_order(trial: BackboneTrial) -> None:
    """``blocks()`` are modules that the forward pass calls, first to last, each once."""
    backbone = trial.backbone
    blocks = list(backbone.blocks())
    assert blocks, "has no blocks"
    own = {id(module) for module in backbone.modules()}
    assert all(id(block) in own for block in blocks), "blocks() are not submodules of its own"
    with _outputs_of(backbone) as outputs:
        encode(backbone, noise(trial.first), trial.mask)
    called = [index for index, _ in outputs]
    what = f"calls its blocks in the order {called}, of {len(blocks)}"
    assert called == list(range(len(blocks))), what


@backbone_promises("blocks_are_called_in_their_order", "encodes_the_same_each_time")
def layers_are_what_its_blocks_return(trial: BackboneTrial) -> None:
    """``layers`` gives the outputs of the blocks that are asked for, first to last."""
    backbone, pixels = trial.backbone, noise(trial.first)
    count = len(backbone.blocks())
    asked = tuple(sorted({0, count // 2, count - 1}))
    with _outputs_of(backbone) as outputs:
        layers = encode(backbone, pixels, trial.mask, layers=asked).layers
    assert len(layers) == len(asked), f"asked for blocks {asked}, got {len(layers)} layers"
    for index, layer in zip(asked, layers, strict=True):
        own = outputs[index][1]
        if own.numel() != layer.numel():
            continue  # padded, or windows: what it hands out is its own affair
        same = close(own.flatten().sort().values, layer.flatten().sort().values)
        assert same, f"layer {index} is not what block {index} returns"
    plain = encode(backbone, pixels, trial.mask).tokens
    with_layers = encode(backbone, pixels, trial.mask, layers=asked).tokens
    assert torch.equal(plain, with_layers), "asking for layers changes its tokens"


@backbone_promises("blocks_are_called_in_their_order")
def attention_is_that_of_its_blocks(trial: BackboneTrial) -> None:
    """``attention=True`` gives rows that sum to one, for each block, or nothing at all."""
    backbone = trial.backbone
    maps = encode(backbone, noise(trial.first), trial.mask, attention=True).attention
    if not maps:
        left = "it shows no attention"
        raise NotApplicableError(left)
    assert len(maps) == len(backbone.blocks()), f"{len(maps)} maps of {len(backbone.blocks())}"
    for each in maps:
        assert each.ndim == 4, f"attention is {tuple(each.shape)}, not [B, heads, S, S]"
        sums = each.float().sum(-1)
        assert close(sums, torch.ones_like(sums)), "rows of its attention do not sum to 1"


@backbone_promises("is_built_for_a_clip")
def layer_of_follows_its_blocks(trial: BackboneTrial) -> None:
    """``layer_of`` is i + 1 in block i, and 0 before or len(blocks) + 1 after them elsewhere."""
    backbone = trial.backbone
    blocks = list(backbone.blocks())
    inside = {id(p): i + 1 for i, block in enumerate(blocks) for p in block.parameters()}
    found = set()
    for name, parameter in backbone.named_parameters():
        layer, own = backbone.layer_of(name), inside.get(id(parameter))
        found.add(layer)
        if own is not None:
            assert layer == own, f"layer_of({name!r}) is {layer}, it is in block {own - 1}"
        else:
            ends = range(len(blocks) + 2)  # merging layers may count with a block
            assert layer in ends, f"layer_of({name!r}) is {layer}, of {len(blocks)} blocks"
    assert 0 in found, "layer_of gives no parameter to the embedding"


@backbone_promises("is_built_for_a_clip")
def no_decay_names_its_parameters(trial: BackboneTrial) -> None:
    """``no_decay`` gives names that ``named_parameters`` has."""
    own = {name for name, _ in trial.backbone.named_parameters()}
    unknown = sorted(set(trial.backbone.no_decay()) - own)
    assert not unknown, f"no_decay names {', '.join(unknown)}: no parameter is called so"


@backbone_promises("layers_are_what_its_blocks_return")
def last_norm_follows_the_last_block(trial: BackboneTrial) -> None:
    """``last_norm`` is what is applied to the last block's output."""
    backbone = trial.backbone
    norm = backbone.last_norm()
    if norm is None:
        left = "it has no last norm"
        raise NotApplicableError(left)
    assert any(norm is each for each in backbone.modules()), "last_norm() is no module of its own"
    last = len(backbone.blocks()) - 1
    encoded = encode(backbone, noise(trial.first), trial.mask, layers=(last,))
    layer = encoded.layers[0]
    if layer.shape != encoded.tokens.shape:
        return
    with torch.no_grad():
        same = close(norm(layer), encoded.tokens)
    assert same, "its tokens are not last_norm() of the last layer"


@backbone_promises("encodes_the_same_each_time")
def gradients_are_those_of_what_it_computes(trial: BackboneTrial) -> None:
    """Nothing is detached on the way from parameters to tokens."""
    check_gradients(trial.backbone, trial.tokens)


@backbone_promises("returns_the_tokens_that_it_declares", "gradients_are_those_of_what_it_computes")
def every_parameter_is_trained(trial: BackboneTrial) -> None:
    """A few updates move every parameter that wants a gradient."""
    check_trained(trial.backbone, trial.tokens)


@backbone_promises("every_parameter_is_trained")
def resumes_as_if_never_stopped(trial: BackboneTrial) -> None:
    """Two updates equal one, its parameters and buffers loaded, and another."""
    check_resumed(lambda seed: trial.build(trial.first, seed=seed), trial.tokens)


@backbone_promises("returns_the_tokens_that_it_declares")
def computes_under_autocast(trial: BackboneTrial) -> None:
    """In bfloat16, as ``pretrain.precision`` has it, tokens are finite and of the same shape."""
    with torch.autocast("cpu", torch.bfloat16):
        tokens = encode(trial.backbone, noise(trial.first), trial.mask).tokens
    plain = encode(trial.backbone, noise(trial.first), trial.mask).tokens
    assert tokens.shape == plain.shape, "under autocast tokens have another shape"
    assert tokens.dtype in (torch.bfloat16, torch.float32), f"under autocast {tokens.dtype}"
    assert bool(tokens.isfinite().all()), "under autocast tokens are not finite"


@backbone_promises("encodes_the_same_each_time", "is_built_on_the_meta_device")
def computes_where_its_input_is(trial: BackboneTrial) -> None:
    """No constant stays on the CPU when the model is moved."""

    def call(device: torch.device) -> object:
        module = copy.deepcopy(trial.backbone).to(device)
        return encode(module, noise(trial.first).to(device), trial.mask.to(device))

    check_device(call)


@backbone_promises("encodes_the_same_each_time")
def computes_the_same_compiled(trial: BackboneTrial) -> None:
    """``pretrain.compile`` changes nothing."""
    check_compiled(trial.backbone, trial.tokens)


@backbone_promises("returns_the_tokens_that_it_declares")
def every_option_is_read(trial: BackboneTrial) -> None:
    """No option is there without being looked at."""

    def use(backbone: Backbone, context: PartContext) -> object:
        encode(backbone.eval(), noise(context), trial.mask_of(backbone, context))
        return list(backbone.no_decay()), backbone.last_norm()

    check_options_read(trial, use)


@backbone_promises("is_built_for_a_clip", "options_survive_a_recipe")
@at_each
def is_the_same_from_a_resolved_recipe(trial: BackboneTrial, context: PartContext) -> None:
    """Built from the options that a header holds, with the same seed, it starts the same."""
    check_resolved(trial, context)
