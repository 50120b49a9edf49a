"""The promises of decoders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, PartContext
from maekit.testing.modules import (
    BATCH,
    DEEP,
    ModuleTrial,
    at_each,
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
    shuffled,
    state_of_torch,
    with_queries,
)
from maekit.testing.names import check_names
from maekit.testing.options import check_recipe
from maekit.testing.promises import Promises
from maekit.tokens import Mask, gather

decoder_promises: Promises[DecoderTrial] = Promises()

_IMAGE, _CLIP = example(), example((4, 32, 48), (2, 8, 8), prefix_tokens=0)


@dataclass
class DecoderTrial(ModuleTrial[Decoder]):
    """A decoder behind encoders that return visible tokens, or all."""

    candidates: ClassVar[tuple[PartContext, ...]] = (
        _IMAGE,
        _CLIP,
        replace(_IMAGE, returns="all"),
        replace(_IMAGE, layer_widths=DEEP),
        replace(_CLIP, layer_widths=DEEP),
    )

    @cached_property
    def decoder(self) -> Decoder:
        """One in evaluation mode, for the first model."""
        return self.build(self.first).eval()

    @cached_property
    def mask(self) -> Mask:
        """A mask at its grid."""
        return draw_mask(self.first.grid, self.first.mask_unit)

    def predictions(self, module: nn.Module) -> Tensor:
        """Decode noise, in a module of this decoder's class."""
        like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(1))
        asked: Any = module
        encoded = encoded_noise(asked, self.first, self.mask, like.dtype)
        pred: Tensor = module(encoded, self.mask, self.first.grid)
        return pred


def encoded_noise(
    decoder: Decoder,
    context: PartContext,
    mask: Mask,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Encoded:
    """Draw what an encoder would hand on, with the layers that a decoder asks for."""
    seen = context.grid.tokens if context.returns == "all" else mask.visible.shape[1]
    generator = torch.Generator().manual_seed(seed)
    batch = mask.visible.shape[0]
    widths = [context.width, *(context.layer_widths[index] for index in decoder.layers)]
    tokens, *layers = (
        torch.randn(batch, context.prefix_tokens + seen, width, generator=generator).to(dtype)
        for width in widths
    )
    return Encoded(tokens, tuple(layers))


def mapped(encoded: Encoded, change: Callable[[Tensor], Tensor]) -> Encoded:
    """Change tokens and layers alike."""
    return Encoded(change(encoded.tokens), tuple(change(layer) for layer in encoded.layers))


def decode(decoder: Decoder, encoded: Encoded, mask: Mask, context: PartContext) -> Tensor:
    """Predict from copies of tokens, without gradients."""
    with torch.no_grad():
        pred: Tensor = decoder(mapped(encoded, torch.clone), mask, context.grid)
    return pred


def _masks(context: PartContext) -> dict[str, Mask]:
    """Draw masks with queries of every kind; of an encoder that returns all, too."""
    grid, unit = context.grid, context.mask_unit
    usual = draw_mask(grid, unit)
    return {
        "the hidden tokens are the queries": usual,
        "every token is a query": draw_mask(grid, unit, queries="all"),
        "some hidden and some visible tokens are the queries": draw_mask(
            grid, unit, queries="some"
        ),
        "a single token is the query": with_queries(usual, usual.queries[:, -1:]),
    }


@decoder_promises()
def options_survive_a_recipe(trial: DecoderTrial) -> None:
    """Options are written into recipes and headers as JSON, and come back the same."""
    check_recipe(trial.options)


@decoder_promises()
def is_built_for_a_model(trial: DecoderTrial) -> None:
    """It is built for some encoder; those that it cannot follow it refuses with PartError."""
    check_taken(trial, Decoder)


@decoder_promises()
@at_each
def is_built_on_the_meta_device(trial: DecoderTrial, context: PartContext) -> None:
    """Its constructor also runs on the meta device, as every load does it."""
    check_meta_build(trial, context)


@decoder_promises("is_built_for_a_model")
def members_are_spelled_as_the_contract_spells_them(trial: DecoderTrial) -> None:
    """No attribute looks like a misspelled member, which would never be called."""
    check_names(trial.decoder, Decoder)


@decoder_promises("is_built_for_a_model")
@at_each
def asks_for_layers_that_there_are(trial: DecoderTrial, context: PartContext) -> None:
    """``layers`` are blocks of the encoder, from 0 and increasing."""
    decoder = trial.build(context)
    asked = list(decoder.layers)
    blocks = len(context.layer_widths)
    right = asked == sorted(set(asked)) and all(0 <= each < blocks for each in asked)
    assert right, f"asks for layers {asked} of an encoder of {blocks} blocks"


@decoder_promises("asks_for_layers_that_there_are")
@at_each
def predicts_every_hidden_token(trial: DecoderTrial, context: PartContext) -> None:
    """Predictions are ``[B, Q, out_dim]``, finite float32."""
    decoder = trial.build(context)
    mask = draw_mask(context.grid, context.mask_unit)
    _check_shape(decoder.eval(), mask, context, "the hidden tokens are the queries")


def _check_shape(decoder: Decoder, mask: Mask, context: PartContext, when: str) -> Tensor:
    try:
        pred = decode(decoder, encoded_noise(decoder, context, mask), mask, context)
    except Exception as error:
        what = f"fails where {when}: {type(error).__name__}: {error}"
        raise AssertionError(what) from error
    shape = (*mask.queries.shape, context.out_dim)
    assert pred.shape == shape, f"predictions {tuple(pred.shape)}, not {shape}, where {when}"
    assert pred.dtype == torch.float32, f"predictions are {pred.dtype} of float32 tokens"
    assert bool(pred.isfinite().all()), f"predictions are not finite where {when}"
    return pred


@decoder_promises("predicts_every_hidden_token")
@at_each
def predicts_whatever_is_queried(trial: DecoderTrial, context: PartContext) -> None:
    """Queries may be all tokens, some of them, visible ones, or one alone."""
    decoder = trial.build(context)
    for when, mask in _masks(context).items():
        _check_shape(decoder.eval(), mask, context, when)


@decoder_promises("predicts_every_hidden_token")
def predicts_the_same_each_time(trial: DecoderTrial) -> None:
    """In evaluation mode nothing is drawn, and nothing is remembered."""
    encoded, before = encoded_noise(trial.decoder, trial.first, trial.mask), state_of_torch()
    first = decode(trial.decoder, encoded, trial.mask, trial.first)
    assert state_of_torch() == before, "draws random numbers in evaluation mode"
    other = encoded_noise(trial.decoder, trial.first, trial.mask, seed=5)
    decode(trial.decoder, other, trial.mask, trial.first)
    again = decode(trial.decoder, encoded, trial.mask, trial.first)
    assert torch.equal(first, again), "predicts something else the second time"


@decoder_promises("predicts_every_hidden_token")
def leaves_tokens_as_they_are(trial: DecoderTrial) -> None:
    """It does not change its input in place."""
    encoded = encoded_noise(trial.decoder, trial.first, trial.mask)
    before = mapped(encoded, torch.clone)
    with torch.no_grad():
        trial.build(trial.first).eval()(encoded, trial.mask, trial.first.grid)
    pairs = zip((encoded.tokens, *encoded.layers), (before.tokens, *before.layers), strict=True)
    same = all(torch.equal(one, other) for one, other in pairs)
    assert same, "changes the encoder's tokens in place"


@decoder_promises("predicts_the_same_each_time", "predicts_whatever_is_queried")
@at_each
def follows_the_order_of_the_queries(trial: DecoderTrial, context: PartContext) -> None:
    """Predictions stand in the order of ``mask.queries``, whatever it is."""
    decoder = trial.build(context)
    for when, mask in _masks(context).items():
        encoded = encoded_noise(decoder, context, mask)
        other, order = shuffled(mask)
        pred = decode(decoder.eval(), encoded, mask, context)
        again = decode(decoder, encoded, other, context)
        same = close(again, gather(pred, order))
        assert same, f"predictions do not follow the order of mask.queries, where {when}"


@decoder_promises("follows_the_order_of_the_queries")
@at_each
def depends_on_which_tokens_are_queried(trial: DecoderTrial, context: PartContext) -> None:
    """Other queries give other predictions."""
    decoder = trial.build(context)
    mask = draw_mask(context.grid, context.mask_unit, ratio=0.5)
    count = mask.queries.shape[1] // 2
    one = with_queries(mask, mask.queries[:, :count])
    two = with_queries(mask, mask.queries[:, count : 2 * count])
    encoded = encoded_noise(decoder, context, mask)
    first, second = (decode(decoder.eval(), encoded, each, context) for each in (one, two))
    assert not close(first, second), "whatever is queried, it predicts the same"


@decoder_promises("predicts_the_same_each_time")
def depends_on_what_was_encoded(trial: DecoderTrial) -> None:
    """Other tokens give other predictions."""
    several = (encoded_noise(trial.decoder, trial.first, trial.mask, seed=seed) for seed in (0, 1))
    first, second = (decode(trial.decoder, each, trial.mask, trial.first) for each in several)
    assert not close(first, second), "whatever was encoded, it predicts the same"


@decoder_promises("predicts_the_same_each_time")
def keeps_samples_apart(trial: DecoderTrial) -> None:
    """In evaluation mode a prediction does not depend on the other samples of its batch."""
    mask, encoded = trial.mask, encoded_noise(trial.decoder, trial.first, trial.mask)
    together = decode(trial.decoder, encoded, mask, trial.first)
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone = Mask(mask.visible[one], mask.queries[one], mask.weight[one], mask.tokens)
        given = mapped(encoded, itemgetter(one))
        pred = decode(trial.decoder, given, alone, trial.first)
        assert close(pred, together[one]), "a prediction depends on the other samples of its batch"


@decoder_promises("predicts_the_same_each_time")
def gradients_are_those_of_what_it_computes(trial: DecoderTrial) -> None:
    """Nothing is detached on the way from parameters to predictions."""
    check_gradients(trial.decoder, trial.predictions)


@decoder_promises("gradients_are_those_of_what_it_computes", "leaves_tokens_as_they_are")
def gradients_reach_the_encoder(trial: DecoderTrial) -> None:
    """Every prediction trains the encoder: nothing detaches its tokens, in whole or in part."""
    encoded = encoded_noise(trial.decoder, trial.first, trial.mask, torch.float64)
    # All that the encoder hands over: a decoder may look at layers alone.
    given = [each.requires_grad_() for each in (encoded.tokens, *encoded.layers)]
    module = copy.deepcopy(trial.decoder).double()
    generator = torch.Generator().manual_seed(4)
    weights = [torch.randn(each.shape, generator=generator).double() for each in given]

    def total(step: float) -> Tensor:
        tokens, *layers = (
            each + step * weight for each, weight in zip(given, weights, strict=True)
        )
        pred: Tensor = module(Encoded(tokens, tuple(layers)), trial.mask, trial.first.grid)
        return (pred.double() ** 2).sum()

    found = torch.autograd.grad(total(0.0), given, allow_unused=True)
    gradients = [
        torch.zeros_like(each) if gradient is None else gradient
        for each, gradient in zip(given, found, strict=True)
    ]
    with torch.no_grad():
        measured = float((total(1e-4) - total(-1e-4)) / 2e-4)
    computed = sum(
        float((gradient * weight).sum())
        for gradient, weight in zip(gradients, weights, strict=True)
    )
    length = sum(float(gradient.norm()) for gradient in gradients)
    apart = abs(measured - computed)
    what = "the encoder gets another gradient than that of the predictions; is something detached?"
    assert apart <= 0.05 * max(length, abs(measured), 1e-9), what


@decoder_promises("gradients_are_those_of_what_it_computes", "depends_on_what_was_encoded")
def every_parameter_is_trained(trial: DecoderTrial) -> None:
    """A few updates move every parameter that wants a gradient."""
    check_trained(trial.decoder, trial.predictions)


@decoder_promises("every_parameter_is_trained")
def resumes_as_if_never_stopped(trial: DecoderTrial) -> None:
    """Two updates equal one, its parameters and buffers loaded, and another."""
    check_resumed(lambda seed: trial.build(trial.first, seed=seed), trial.predictions)


@decoder_promises("is_built_for_a_model")
def no_decay_names_its_parameters(trial: DecoderTrial) -> None:
    """``no_decay`` gives names that ``named_parameters`` has."""
    own = {name for name, _ in trial.decoder.named_parameters()}
    unknown = sorted(set(trial.decoder.no_decay()) - own)
    assert not unknown, f"no_decay names {', '.join(unknown)}: no parameter is called so"


@decoder_promises("predicts_every_hidden_token")
def computes_under_autocast(trial: DecoderTrial) -> None:
    """In bfloat16, as ``pretrain.precision`` has it, predictions are finite."""
    for dtype in (torch.float32, torch.bfloat16):  # last norms give float32, last layers bfloat16
        encoded = encoded_noise(trial.decoder, trial.first, trial.mask, dtype)
        with torch.autocast("cpu", torch.bfloat16):
            pred = decode(trial.decoder, encoded, trial.mask, trial.first)
        assert pred.dtype in (torch.bfloat16, torch.float32), f"under autocast {pred.dtype}"
        assert bool(pred.isfinite().all()), "under autocast predictions are not finite"


@decoder_promises("predicts_every_hidden_token", "is_built_on_the_meta_device")
def computes_where_its_input_is(trial: DecoderTrial) -> None:
    """No constant stays on the CPU when the model is moved."""

    def call(device: torch.device) -> object:
        module = copy.deepcopy(trial.decoder).to(device)
        noise = encoded_noise(trial.decoder, trial.first, trial.mask)
        encoded = mapped(noise, lambda each: each.to(device))
        return decode(module, encoded, trial.mask.to(device), trial.first)

    check_device(call)


@decoder_promises("predicts_the_same_each_time")
def computes_the_same_compiled(trial: DecoderTrial) -> None:
    """``pretrain.compile`` changes nothing."""
    check_compiled(trial.decoder, trial.predictions)


@decoder_promises("predicts_every_hidden_token")
def every_option_is_read(trial: DecoderTrial) -> None:
    """No option is there without being looked at."""

    def use(decoder: Decoder, context: PartContext) -> object:
        mask = draw_mask(context.grid, context.mask_unit)
        decode(decoder.eval(), encoded_noise(decoder, context, mask), mask, context)
        return list(decoder.no_decay())

    check_options_read(trial, use)


@decoder_promises("is_built_for_a_model", "options_survive_a_recipe")
@at_each
def is_the_same_from_a_resolved_recipe(trial: DecoderTrial, context: PartContext) -> None:
    """Built from the options that a header holds, with the same seed, it starts the same."""
    check_resolved(trial, context)
