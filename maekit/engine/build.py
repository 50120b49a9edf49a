"""From a recipe, or a weights file's header, to a model: the only place that builds parts."""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import nn

from maekit import registry
from maekit.contracts import Backbone, Decoder, Grid, PartContext, Target
from maekit.data.masks import HIDES_NOTHING
from maekit.data.rng import generator, seeded
from maekit.errors import PartError, RecipeError, WeightsError
from maekit.layers import Statistics
from maekit.model import MaskedAutoencoder
from maekit.origin import Place, blamed, fault
from maekit.recipe.schema import PartSpec, Pretrain, Recipe
from maekit.weights.compatible import Compatibility, check_compatible
from maekit.weights.header import Header
from maekit.weights.importer import Weights, open_weights
from maekit.weights.resize import Change, resize
from maekit.weights.safetensors_io import (
    CLASSIFIER,
    TARGET,
    header_text,
    load_tensors,
    mismatches,
    own_tensors,
    shape_mismatches,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.contracts import Masker

_log = logging.getLogger(__name__)


def required_pretrain(recipe: Recipe) -> Pretrain:
    """Return the pretrain section; raise RecipeError where there is none."""
    if recipe.pretrain is None:
        msg = "the recipe has no pretrain section"
        raise RecipeError(msg, where="pretrain", hint="`maekit recipes show quickstart` has one")
    return recipe.pretrain


def header_of(recipe: Recipe, statistics: Statistics) -> Header:
    """Describe the model that a recipe's pre-training trains."""
    pretrain = required_pretrain(recipe)
    if recipe.model is None or recipe.model.decoder is None:
        msg = "pre-training needs a decoder"
        raise RecipeError(msg, where="model.decoder", hint="add decoder: {name: vit}")
    return Header(
        backbone=recipe.model.backbone,
        decoder=recipe.model.decoder,
        target=pretrain.target,
        masker=pretrain.masker,
        clip=(recipe.data.train.frames, *recipe.data.height_width),
        channels=recipe.data.channels,
        mean=statistics.mean,
        std=statistics.std,
        range=None if recipe.data.range_ == "auto" else recipe.data.range_,
    )


def build_model(header: Header, seed: int = 0) -> MaskedAutoencoder:
    """Build a freshly initialized model; the same seed gives the same weights.

    Raises:
        PartError: a part is unknown, or the parts do not fit together.
    """
    with seeded(seed, purpose="init"):
        backbone = registry.build(header.backbone, _first_context(header))
        _check_taken_names(backbone, Backbone)
        if header.masker is not None:
            _check_hides(backbone, header)
        context = context_of(backbone, header)
        target = None
        if header.target is not None:
            target = registry.build(header.target, context)
            _check_taken_names(target, Target)
            if not hasattr(target, "out_dim"):
                raise fault(target, "does not set out_dim, which maekit.contracts requires")
        out_dim = header.out_dim if target is None else target.out_dim
        decoder = None
        if header.decoder is not None and out_dim is not None:
            context = replace(context, out_dim=out_dim)
            decoder = registry.build(header.decoder, context)
            _check_taken_names(decoder, Decoder)
            _check_layers(decoder, len(context.layer_widths))
    statistics = Statistics(header.mean, header.std)
    return MaskedAutoencoder(backbone, decoder, target, header.clip, statistics)


def _check_taken_names(part: object, base: type) -> None:
    taken = taken_names(part, base)
    if taken:
        hint = "name it otherwise: maekit.contracts has a member of that name"
        raise fault(part, f"registers a tensor or a module as {taken[0]}, which hides it", hint)


def taken_names(part: object, base: type) -> list[str]:
    """List modules, parameters and buffers that a part cannot reach by the names they have.

    ``self.layers = nn.ModuleList(...)`` is registered, and ``self.layers`` still the base's own.
    """
    if not isinstance(part, nn.Module):
        return []
    kept = [name for name, _ in part.named_children()]
    kept += [name for name, _ in part.named_parameters(recurse=False)]
    kept += [name for name, _ in part.named_buffers(recurse=False)]
    return [name for name in kept if hasattr(base, name)]


def _first_context(header: Header) -> PartContext:
    return PartContext(header.clip, header.channels, header.mean, header.std)


def context_of(backbone: Backbone, header: Header) -> PartContext:
    """Return what targets know of the run; decoders know ``out_dim`` besides.

    Raises:
        PartError: the backbone does not say what it must.
    """
    for name in ("width", "patch"):
        if not hasattr(backbone, name):
            raise fault(backbone, f"does not set {name}, which maekit.contracts requires")
    return replace(
        _first_context(header),
        grid=backbone.grid(header.clip),
        patch=_three(backbone.patch),
        width=backbone.width,
        prefix_tokens=backbone.prefix_tokens,
        returns=backbone.returns,
        mask_unit=_three(backbone.mask_unit),
        layer_widths=_layer_widths(backbone),
    )


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    t, h, w = sizes
    return t, h, w


def _layer_widths(backbone: Backbone) -> tuple[int, ...]:
    """Return the widths of what blocks return.

    Raises:
        PartError: there are more or fewer of them than blocks.
    """
    blocks, widths = len(backbone.blocks()), tuple(backbone.layer_widths)
    if widths and len(widths) != blocks:
        raise fault(backbone, f"has {len(widths)} layer_widths for {blocks} blocks")
    return widths or (backbone.width,) * blocks


def _check_layers(decoder: Decoder, blocks: int) -> None:
    """Refuse layers that the encoder cannot give."""
    layers = list(decoder.layers)
    if layers != sorted(set(layers)) or not all(0 <= layer < blocks for layer in layers):
        hint = f"layers are numbered from 0 to {blocks - 1}, and increase"
        raise fault(decoder, f"asks for the layers {layers} of an encoder of {blocks} blocks", hint)


def _check_hides(backbone: Backbone, header: Header) -> None:
    """Refuse a backbone that cannot leave out what a masker hides."""
    if backbone.keeps_all is not None:
        msg = f"{header.backbone.name} cannot leave hidden tokens out: {backbone.keeps_all}"
        raise PartError(msg, where="model.backbone", hint="take a backbone that can: image-vit")


def compatible_header(found: Header, requested: Header, where: str) -> Compatibility:
    """Return the header of the requested model, completed by what the weights know of theirs.

    Raises:
        WeightsError: they differ beyond what changes at load time.
    """
    found, requested = with_typed_parts(found), with_typed_parts(requested)
    return check_compatible(found, requested, model_of(found), model_of(requested), where)


def model_of(header: Header) -> MaskedAutoencoder:
    """Build a header's model on the meta device, where tensors have shapes but no values.

    The last two are kept, as loading compares the weights' model with the requested one, which is
    mostly the same one; never change them.
    """
    # What does not decide on the model is left out, so that equal models are built once.
    header = with_typed_parts(header)
    text = header_text(header, exclude=("maekit", "source", "license", "grid", "plugins"))
    places = tuple((key, getattr(header, key).place) for key in PARTS if getattr(header, key))
    return _on_meta_device(text, places, tuple(sys.path))


PARTS = ("backbone", "decoder", "target", "masker")


@functools.lru_cache(maxsize=2)
def _on_meta_device(
    text: str,
    places: tuple[tuple[str, Place], ...],
    search_path: tuple[str, ...],  # noqa: ARG001 - decides which plugins are found
) -> MaskedAutoencoder:
    try:
        header = Header.model_validate_json(text)
        for key, place in places:
            getattr(header, key).stand_at(place)
        with torch.device("meta"):
            return build_model(header)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        known = blamed(error)
        if known is not None:
            raise known from error
        # Sizes that each fit alone, such as a finite ratio that makes an infinite width.
        reason = str(error).partition("\n")[0][:200]
        msg = f"no model can be built of this header: {reason}"
        raise WeightsError(msg, hint="give the file as it was written") from error


def with_typed_parts(header: Header) -> Header:
    """Return a header whose parts are typed: each is installed and knows its options."""
    parts = {"backbone": header.backbone, "decoder": header.decoder, "target": header.target}
    try:
        typed = {
            key: registry.typed(part, header.plugins)
            for key, part in parts.items()
            if part is not None
        }
    except (ValidationError, RecipeError) as error:
        what = error.what if isinstance(error, RecipeError) else error.errors()[0]["msg"]
        msg = f"the header cannot be understood: {what}"
        raise WeightsError(msg, hint="give the file as it was written") from error
    return header.model_copy(update=typed)


def load_into(
    model: MaskedAutoencoder, weights: Weights, decoder_reset_reason: str | None
) -> list[Change]:
    """Put weights into a model of their own or another size, and say what was changed.

    Raises:
        WeightsError: they do not match the model.
    """
    described, weights = weights.header.classifier, without_head(weights)
    old = model_of(weights.header)
    tensors, changes = resize(
        weights.tensors, old, model, decoder_reset_reason=decoder_reset_reason, where=weights.origin
    )
    load_tensors(model, tensors, weights.origin, fresh=weights.fresh)
    if described is not None and described.norm == "fresh":
        how = "as fine-tuning trained that one"
        changes.append(Change("last norm", "the encoder's own", "that behind the pooling", how))
    return changes


def without_head(weights: Weights) -> Weights:
    """Return the encoder of a classifier, or anything else as it is.

    Where a norm of its own stands behind the pooling, the encoder's last one was not used in
    training: that norm takes its place.
    """
    described = weights.header.classifier
    if described is None:
        return weights
    tensors = {n: tensor for n, tensor in weights.tensors.items() if not n.startswith(CLASSIFIER)}
    backbone = model_of(weights.header).backbone
    norm = backbone.last_norm()
    if described.norm == "fresh" and norm is not None:
        name = next(name for name, module in backbone.named_modules() if module is norm)
        for kind in norm.state_dict():
            tensors[f"backbone.{name}.{kind}"] = weights.tensors[f"{CLASSIFIER}fc_norm.{kind}"]
    header = weights.header.model_copy(update={"classifier": None})
    return replace(weights, header=header, tensors=tensors)


def load_model(
    source: str | Path | Weights,
    clip: tuple[int, int, int] | None = None,
    *,
    encodes: bool = False,
) -> tuple[MaskedAutoencoder, Header]:
    """Load any weights that maekit reads as a model in evaluation mode on the CPU.

    Args:
        source: a run folder, a file, ``hf:FOLDER``, ``timm:NAME``, or opened weights.
        clip: frames, height and width in pixels that it shall take, where not those that it was
            trained at; its positions are then resized, which is logged.
        encodes: only the encoder is needed: decoder and target are left out where the part of one
            is not installed.

    Raises:
        PartError: the clip does not divide into its patches.
        WeightsError: the file cannot be read, or does not match its own header.
    """
    weights = source if isinstance(source, Weights) else open_weights(source)
    for line in registry.other_versions(weights.header.plugins):
        _log.warning("%s: %s", weights.origin, line)
    if encodes:
        weights = _without_missing(weights)
    requested = weights.header.model_copy(update={"clip": clip or weights.header.clip})
    header, fresh = compatible_header(weights.header, requested, weights.origin)
    # Held against a model of no memory first: a header may ask for any size.
    check_own(weights)
    model = build_model(header)
    for change in load_into(model, weights, fresh):
        _log.info("%s", change)
    return model.eval(), header


def _without_missing(weights: Weights) -> Weights:
    """Leave out decoder and target where one of them is not installed."""
    header = weights.header
    try:
        for part in (header.decoder, header.target):
            if part is not None:
                registry.typed(part, header.plugins)
    except PartError as error:
        _log.info("the encoder alone is taken: %s", error.what)
        tensors = {
            name: each
            for name, each in weights.tensors.items()
            if not name.startswith(("decoder.", TARGET))
        }
        bare = header.model_copy(update=dict.fromkeys(("decoder", "target", "masker")))
        return replace(weights, header=bare, tensors=tensors)
    return weights


def require_whole(weights: Weights) -> Weights:
    """Check weights against the whole model; fill in what may start afresh.

    Raises:
        WeightsError: they do not fit the model that their header describes.
    """
    if weights.fresh:
        model, header = load_model(weights)
        own = model.state_dict()
        filled = weights.tensors | {name: own[name] for name in weights.fresh}
        return replace(weights, header=_with_grid(header, model), tensors=filled, fresh=frozenset())
    check_own(weights)
    return replace(weights, header=_with_grid(weights.header, model_of(weights.header)))


def check_own(weights: Weights) -> None:
    """Compare weights with the model that their header describes, without building it.

    What a target fitted is checked where it is used.

    Raises:
        WeightsError: they do not fit.
    """
    model, described = model_of(weights.header), weights.header.classifier
    problems = mismatches(model, own_tensors(weights.tensors), weights.fresh)
    if described is not None:
        shapes = described.shapes(model.backbone.width)
        problems += shape_mismatches(
            {f"{CLASSIFIER}{name}": shape for name, shape in shapes.items()},
            {n: tuple(t.shape) for n, t in weights.tensors.items() if n.startswith(CLASSIFIER)},
        )
    if problems:
        msg = "the weights do not match the model that they seem to be of: " + "; ".join(problems)
        raise WeightsError(msg, where=weights.origin, hint="give a whole and unchanged file")


def _with_grid(header: Header, model: MaskedAutoencoder) -> Header:
    return header.model_copy(update={"grid": model.grid})


def hidden_count(masker: Masker, grid: Grid, spec: PartSpec, where: str) -> int:
    """Count the maskable units of the grid that a masker hides; refuse 0 and all of them.

    Raises:
        PartError: nothing, or everything, would be hidden.
    """
    count = masker.count(grid)
    if count is not None:
        hidden = int(count)
    elif masker.needs_pixels:
        return -1  # only the reader has pixels; it holds every sample to the first one's count
    else:
        hidden = int(masker(grid, generator(0, purpose="mask")).sum())
    if 0 < hidden < grid.tokens:
        return hidden
    settings = ", ".join(f"{key} {value}" for key, value in spec.options)
    what = "nothing" if hidden <= 0 else "everything"
    msg = f"{spec.name} ({settings}) hides {what} of a grid of {grid} = {grid.tokens} tokens"
    raise PartError(msg, where=where, hint="change the ratio, data.size or the patch size")


@dataclass(frozen=True)
class Description:
    """A model's size, from the meta device: nothing is allocated."""

    name: str
    clip: tuple[int, int, int]
    channels: int
    grid: Grid
    hidden: int
    encoder_parameters: int
    decoder_parameters: int

    @property
    def parameters(self) -> int:
        """Of the whole pre-training model, fixed position tables included (as MAE counts)."""
        return self.encoder_parameters + self.decoder_parameters

    def lines(self) -> list[str]:
        """Return the sizes in words."""
        t, h, w = self.clip
        hidden = "drawn from pixels" if self.hidden < 0 else f"{self.hidden}"
        return [
            (
                f"{self.name}: {self.parameters:,} parameters "
                f"(encoder {self.encoder_parameters:,}, decoder {self.decoder_parameters:,})"
            ),
            (
                f"clip {t}x{h}x{w}, {self.channels} channels; grid {self.grid} = "
                f"{self.grid.tokens} tokens, hidden {hidden}"
            ),
        ]


def check_fit(recipe: Recipe) -> None:
    """Refuse a model that its clips and masks do not fit, before any data is read or drawn.

    Raises:
        PartError: says what does not fit.
    """
    _, model = _on_meta(recipe)
    units = mask_grid(model)
    if recipe.pretrain is None:
        return
    spec = recipe.pretrain.masker
    masker = registry.build(spec)
    if not masker.needs_hidden and masker.count(units) is not None:  # others are drawn first
        hidden_count(masker, units, spec, "pretrain.masker")


def _on_meta(recipe: Recipe) -> tuple[Header, MaskedAutoencoder]:
    channels = recipe.data.channels
    blank = Statistics((0.0,) * channels, (1.0,) * channels)
    header = header_of(recipe, blank)
    with torch.device("meta"):
        return header, build_model(header)


def describe(recipe: Recipe) -> Description:
    """Build the model of a resolved recipe on the meta device and count.

    Raises:
        PartError: the parts do not fit together.
    """
    header, model = _on_meta(recipe)
    hidden = _masked_tokens(recipe, model)
    sizes = {
        part: sum(parameter.numel() for parameter in module.parameters())
        for part, module in model.named_children()
    }
    return Description(
        recipe.name,
        header.clip,
        recipe.data.channels,
        model.grid,
        hidden,
        sizes["backbone"],
        sizes["decoder"],
    )


def _masked_tokens(recipe: Recipe, model: MaskedAutoencoder) -> int:
    """Count the hidden tokens of a sample, and check both maskers."""
    pretrain = recipe.pretrain
    if pretrain is None:
        return 0
    units = mask_grid(model)
    unit_tokens = model.grid.tokens // units.tokens
    masker = registry.build(pretrain.masker)
    if masker.needs_hidden:
        raise fault(masker, *HIDES_NOTHING)
    hidden = hidden_count(masker, units, pretrain.masker, "pretrain.masker")
    if pretrain.decoder_masker is not None:
        other = registry.build(pretrain.decoder_masker)
        if not other.needs_hidden:  # the reader counts what such a one asks for
            hidden_count(other, units, pretrain.decoder_masker, "pretrain.decoder_masker")
    return hidden * unit_tokens if hidden > 0 else hidden


def mask_grid(model: MaskedAutoencoder) -> Grid:
    """Return the grid of maskable units.

    Raises:
        PartError: the token grid does not divide into the backbone's mask units.
    """
    try:
        return model.grid.over(model.backbone.mask_unit)
    except ValueError as error:
        raise PartError(str(error), where="model.backbone", hint="change data.size") from error
