"""What a run does with its own weights later, done once before it trains: save, describe, load."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from maekit import registry
from maekit.data.rng import seeded
from maekit.engine.build import PARTS, compatible_header, context_of, model_of
from maekit.engine.step import eval_mode
from maekit.origin import fault, origin_of
from maekit.tokens import Mask, patchify, unpatchify
from maekit.weights.safetensors_io import (
    TARGET,
    header_text,
    mismatches,
    model_tensors,
    own_tensors,
    parsed_header,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from maekit.data.order import Key
    from maekit.data.reader import SampleReader
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header


def check_own_weights(model: MaskedAutoencoder, header: Header) -> None:
    """Do what resuming and loading will do with a model's weights, before anything is trained.

    The header is written and read back, its model is built on the meta device, and the tensors are
    held against it; a target's state is taken back by a new target.

    Args:
        model: as it is trained.
        header: as it will be saved.

    Raises:
        PartError: a part's weights could not be loaded again.
    """
    read_back: Header = parsed_header(header_text(header))
    for key in PARTS:
        before, after = getattr(header, key), getattr(read_back, key)
        if before is not None and before.written != after.written:
            what = "has options that a weights file does not give back as they were"
            hint = "make them of numbers, text, lists and mappings, as JSON has them"
            raise registry.origin_of_spec(before).error(what, hint)
        if before is not None:
            after.stand_at(before.place)
    read_back = compatible_header(read_back, read_back, "the run's own weights").header
    tensors = model_tensors(model)
    problems = mismatches(model_of(read_back), own_tensors(tensors))
    if problems:
        several = {"backbone": model.backbone, "decoder": model.decoder}
        for key, part in several.items():
            if any(f"{key}." in problem for problem in problems):
                what = f"is not built the same from its options again: {'; '.join(problems)}"
                raise fault(part, what, "let its tensors follow from options and context alone")
    _check_target_state(model, header, tensors)


def check_reads_twice(reader: SampleReader, key: Key) -> None:
    """Read one sample twice, where a plugin's data set reads it.

    Raises:
        PartError: the two differ, so that no run over it could be repeated or resumed.
    """
    if reader.origin is None or reader.origin.ours:
        return
    first, again = reader.read(key), reader.read(key)
    if first.bad is not None or again.bad is not None:
        return  # recorded where it is met
    if not all(map(np.array_equal, first.views, again.views)):
        what = f"returns other pixels of {reader.dataset.name(key.index)} when it is read again"
        hint = "draw nothing at random, and hand out no array that is written into later"
        raise reader.origin.error(what, hint)


@torch.no_grad()
def check_blind(model: MaskedAutoencoder, hidden: np.ndarray) -> None:
    """Change what is hidden, where a plugin's encoder sees the rest, and compare what it makes.

    Args:
        model: as it is trained.
        hidden: of one sample, bool ``[N]``.

    Raises:
        PartError: hidden pixels reach the encoder: it would learn to copy them.
    """
    backbone = model.backbone
    origin = origin_of(backbone)
    if origin is None or origin.ours:
        return
    draws = torch.Generator().manual_seed(0)
    shape = (1, len(model.statistics.mean), *model.clip)
    pixels = torch.randn(shape, generator=draws)
    noise = patchify(torch.randn(shape, generator=draws), backbone.patch)
    where = torch.from_numpy(hidden)[None]
    other = pixels + unpatchify(noise * where[..., None], model.grid, backbone.patch)
    mask = Mask.build(where).to(model.device)
    with eval_mode(model), torch.random.fork_rng():
        seen, changed = (
            model.encode_visible(each.to(model.device), mask).tokens for each in (pixels, other)
        )
    if backbone.returns == "visible" and not torch.allclose(seen, changed, rtol=1e-3, atol=1e-4):
        what = "lets hidden pixels reach what it returns: it would learn to copy them"
        raise fault(backbone, what, "embed, mix and normalize visible tokens only")


def _check_target_state(
    model: MaskedAutoencoder, header: Header, tensors: Mapping[str, Tensor]
) -> None:
    target, spec = model.required_target(), header.target
    state = {n.removeprefix(TARGET): t for n, t in tensors.items() if n.startswith(TARGET)}
    if isinstance(target, nn.Module):
        trained = {name for name, each in target.named_parameters() if each.requires_grad}
        if trained - state.keys():
            names = ", ".join(sorted(trained - state.keys()))
            what = f"has parameters that would be trained and not be kept: {names}"
            hint = "requires_grad_(False), or return them from state(), or let the decoder have it"
            raise fault(target, what, hint)
    if not state or spec is None:
        return
    with seeded(0, purpose="init"):
        other = registry.build(spec, context_of(model.backbone, header))
    other.open()  # as a run does: open, load_state, attach
    try:
        other.load_state({name: tensor.detach().cpu().clone() for name, tensor in state.items()})
    except Exception as error:
        what = f"cannot load_state what its state gave: {type(error).__name__}: {error}"
        raise fault(target, what) from error
    if _lost(state, other.state()):
        # What a target copies of the encoder it may have only then; not what is loaded.
        encoder = copy.deepcopy(model.backbone)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(1.0)
        other.attach(encoder)
        forgotten = _lost(state, other.state())
        if forgotten:
            what = f"does not give back by state what load_state took: {', '.join(forgotten)}"
            raise fault(target, what, "keep in load_state all that state returns")
    if isinstance(target, nn.Module):
        own = dict(other.named_parameters())
        lost = [n for n in sorted(trained) if n in own and not own[n].cpu().equal(state[n].cpu())]
        if lost:
            raise fault(
                target, f"does not load {', '.join(lost)} by load_state into its parameters"
            )


def _lost(state: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> list[str]:
    """Name what another target does not have, or has with other values, or has besides."""
    return sorted(
        name
        for name in state.keys() | again.keys()
        if name not in state or name not in again or not _same(state[name], again[name])
    )


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach().cpu(), other.detach().cpu()
    if one.is_floating_point() and other.is_floating_point():
        return one.shape == other.shape and one.allclose(other, rtol=0, atol=0, equal_nan=True)
    return one.equal(other)
