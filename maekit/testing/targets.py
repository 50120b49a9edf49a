"""The promises of targets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from maekit.backbones.vit import VisionTransformer, ViTOptions
from maekit.contracts import Backbone, Encoded, Grid, PartContext, PixelTarget, Target
from maekit.errors import MaekitError
from maekit.testing.modules import (
    BATCH,
    DEEP,
    ModuleTrial,
    at_each,
    changed_at,
    check_device,
    check_meta_build,
    check_options_read,
    check_resolved,
    check_taken,
    close,
    draw_mask,
    example,
    shuffled,
    state_of_torch,
    with_queries,
)
from maekit.testing.names import check_names
from maekit.testing.options import check_recipe, resolved
from maekit.testing.promises import NotApplicableError, Promises
from maekit.tokens import Mask, coordinates, gather

_UPDATES = 4  # of a run
_FEW = 40  # codes that change: of fewer nothing can be said
_ASIDE = 0.35  # tokens: untrained dVAEs stay within 0.26, of the next token it is about 0.5
_PICTURES = 4  # in which codes are looked at
_Statistics = Literal["visible", "truth"]

target_promises: Promises[TargetTrial] = Promises()


@dataclass
class TargetTrial(ModuleTrial[Target]):
    """A target of a small model."""

    candidates: ClassVar[tuple[PartContext, ...]] = (
        example(),
        example((1, 64, 96), (1, 16, 16)),
        example((1, 224, 224), (1, 16, 16)),
        example((4, 32, 48), (2, 8, 8), prefix_tokens=0),
        example((4, 64, 96), (2, 16, 16), prefix_tokens=0),
        example(layer_widths=DEEP),
        example((4, 32, 48), (2, 8, 8), prefix_tokens=0, layer_widths=DEEP),
    )

    @cached_property
    def taken(self) -> tuple[PartContext, ...]:
        """The contexts that it does not refuse, nor the file of its frozen network."""
        found = tuple(each for each in super().taken if self._opens(each))
        return found or super().taken

    def _opens(self, context: PartContext) -> bool:
        try:
            self.build(context).open()
        except MaekitError:
            return False
        except Exception:  # noqa: BLE001 - no refusal, but a fault, which a promise is about
            return True
        return True

    def ready(self, context: PartContext, seed: int = 0) -> Target:
        """Build it, open its frozen network, fit it to noise, and let it follow one update."""
        target = self.build(context, seed=seed)
        target.open()
        target.fit([self.views(target, context, seed=s) for s in (3, 4)])
        encoder = small_encoder(context)
        target.attach(encoder)
        update(encoder, target, 1)
        return target

    @cached_property
    def target(self) -> Target:
        """One that is ready, for the first model."""
        return self.ready(self.first)

    def views(
        self, target: Target, context: PartContext, *, seed: int = 0, batch: int = BATCH
    ) -> list[Tensor]:
        """Draw the views that it asks for, the model's own first, in [0, 1]."""
        shapes = [context.shape]
        shapes += [(view.frames or context.shape[0], *view.size) for view in target.views]
        generator = torch.Generator().manual_seed(seed)
        return [torch.rand(batch, context.channels, *s, generator=generator) for s in shapes]

    def mask(self, target: Target, context: PartContext, **choice: Any) -> Mask:  # noqa: ANN401
        """Draw a mask whose queries are among the tokens that it wants."""
        mask = draw_mask(context.grid, context.mask_unit, **choice)
        wants = target.wants(context.grid)
        if wants is None:
            return mask
        return _some_wanted(mask, torch.from_numpy(np.ascontiguousarray(wants)).reshape(-1))


def _some_wanted(mask: Mask, wanted: Tensor) -> Mask:
    """Return a mask whose queries are the hidden tokens among those that are wanted."""
    rows = [torch.nonzero(row & wanted).flatten() for row in mask.hidden()]
    fewest = max(1, min(len(row) for row in rows))
    spare = torch.nonzero(wanted).flatten()
    queries = torch.stack([(row if len(row) else spare)[:fewest] for row in rows])
    return with_queries(mask, queries)


def small_encoder(context: PartContext) -> Backbone:
    """Build the encoder that a context is of."""
    torch.manual_seed(0)
    options = ViTOptions(
        width=context.width,
        depth=len(context.layer_widths),
        heads=2,
        class_token=context.prefix_tokens > 0,
    )
    kind = _Prefixed if context.prefix_tokens > 1 else VisionTransformer
    return kind(options, context, context.patch)


class _Prefixed(VisionTransformer):
    """Returns its class token as often as a context has prefix tokens."""

    def __init__(
        self, options: ViTOptions, context: PartContext, patch: tuple[int, int, int]
    ) -> None:
        super().__init__(options, context, patch)
        self.prefix_tokens = self._prefix = context.prefix_tokens

    def forward(self, *given: Any, **more: Any) -> Encoded:  # noqa: ANN401 - the base's
        """Encode as the base does, with more prefix tokens."""
        self.prefix_tokens = 1  # those of the base, while it computes
        encoded = super().forward(*given, **more)
        self.prefix_tokens = self._prefix
        return Encoded(
            self._prefixed(encoded.tokens), tuple(self._prefixed(each) for each in encoded.layers)
        )

    def _prefixed(self, tokens: Tensor) -> Tensor:
        first = tokens[:, :1].expand(-1, self._prefix, -1)
        return torch.cat([first, tokens[:, 1:]], dim=1)


@torch.no_grad()
def update(encoder: Backbone, target: Target, step: int) -> None:
    """Change an encoder as an update does, and let a target follow."""
    generator = torch.Generator().manual_seed(step)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    target.after_update(step, _UPDATES)


def encode(target: Target, views: Sequence[Tensor], mask: Mask) -> Tensor:
    """Encode copies of views, without gradients."""
    with torch.no_grad():
        return target.encode([view.clone() for view in views], mask)


@target_promises()
def options_survive_a_recipe(trial: TargetTrial) -> None:
    """Options are written into recipes and headers as JSON, and come back the same."""
    check_recipe(trial.options)


@target_promises()
def is_built_for_a_model(trial: TargetTrial) -> None:
    """It is built for some model; those that it cannot serve it refuses with PartError."""
    check_taken(trial, Target)


@target_promises()
@at_each
def is_built_on_the_meta_device(trial: TargetTrial, context: PartContext) -> None:
    """Its constructor also runs on the meta device, as every load does it."""
    check_meta_build(trial, context)


@target_promises("is_built_for_a_model")
def members_are_spelled_as_the_contract_spells_them(trial: TargetTrial) -> None:
    """No attribute looks like a misspelled member, which would never be called."""
    check_names(trial.build(trial.first), PixelTarget)


@target_promises("is_built_for_a_model")
@at_each
def opens_fits_and_follows(trial: TargetTrial, context: PartContext) -> None:
    """It opens its network, fits to batches of views, and follows the encoder, or does none."""
    trial.ready(context)


@target_promises("is_built_for_a_model")
@at_each
def wants_are_tokens(trial: TargetTrial, context: PartContext) -> None:
    """``wants`` is a bool array of the grid, with a token at least."""
    wants: object = trial.build(context).wants(context.grid)
    if wants is None:
        return
    assert isinstance(wants, np.ndarray), f"wants gives {type(wants).__name__}, no array"
    assert wants.dtype == np.bool_, f"wants gives {wants.dtype}, not bool"
    assert wants.shape == tuple(context.grid), f"wants gives {wants.shape} of {context.grid}"
    assert wants.any(), "wants no token"


@target_promises("opens_fits_and_follows", "wants_are_tokens")
@at_each
def encodes_the_queries(trial: TargetTrial, context: PartContext) -> None:
    """The truth is ``[B, Q, ...]``, finite, whatever is queried."""
    target = trial.ready(context)
    views = trial.views(target, context)
    for ratio in (0.75, 0.5):
        mask = trial.mask(target, context, ratio=ratio)
        truth: object = encode(target, views, mask)
        assert isinstance(truth, Tensor), f"encode gives {type(truth).__name__}, no tensor"
        said = f"encode gives {tuple(truth.shape)}, not [B, Q, ...] = {list(mask.queries.shape)}"
        assert truth.shape[:2] == mask.queries.shape, said
        finite = not truth.is_floating_point() or bool(truth.isfinite().all())
        assert finite, "the truth of noise is not finite"


@target_promises("encodes_the_queries")
def encodes_the_same_each_time(trial: TargetTrial) -> None:
    """Nothing is drawn in ``encode``, and nothing is remembered, also in training mode."""
    target = trial.ready(trial.first)
    if isinstance(target, nn.Module):
        target.train()
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    before = state_of_torch()
    first = encode(target, views, mask)
    assert state_of_torch() == before, "draws random numbers in encode"
    encode(target, trial.views(target, trial.first, seed=5), mask)
    again = encode(target, views, mask)
    assert torch.equal(first, again), "encodes the same views to another truth the second time"


@target_promises("encodes_the_queries")
def leaves_views_as_they_are(trial: TargetTrial) -> None:
    """It does not change views in place: the encoder gets them too."""
    target = trial.ready(trial.first)
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    before = [view.clone() for view in views]
    with torch.no_grad():
        target.encode(views, mask)
    same = all(torch.equal(one, other) for one, other in zip(views, before, strict=True))
    assert same, "changes the views that it is given in place"


@target_promises("encodes_the_same_each_time", "leaves_views_as_they_are")
def follows_the_order_of_the_queries(trial: TargetTrial) -> None:
    """The truth stands in the order of ``mask.queries``, whatever it is."""
    target = trial.target
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    other, order = shuffled(mask)
    truth = encode(target, views, mask)
    flat = truth.flatten(2) if truth.ndim > 2 else truth[..., None]
    again = encode(target, views, other)
    again = again.flatten(2) if again.ndim > 2 else again[..., None]
    same = close(again, gather(flat, order))
    assert same, "the truth does not follow the order of mask.queries"


@target_promises("follows_the_order_of_the_queries")
def encodes_what_is_at_the_queries(trial: TargetTrial) -> None:
    """The truth of a query is that of its own place: it changes most where that one changes."""
    moved, places, queries, codes = _moved(trial)
    some = moved.amax(1) > 0
    if codes:
        _check_codes(moved, places, queries, trial.first.grid)
        return
    assert bool(some.any()), "nothing that changes at the queries changes their truth"
    own = moved.gather(1, (queries[None] == places[:, None]).long().argmax(1)[:, None])[:, 0]
    right = int((own[some] >= moved.amax(1)[some]).sum())
    what = f"only {right} of {int(some.sum())} truths change most where their own patch is changed"
    assert 2 * right > int(some.sum()), f"{what}: they are of other tokens than mask.queries"


def _check_codes(moved: Tensor, places: Tensor, queries: Tensor, grid: Grid) -> None:
    """Check that codes change around a changed place, on all its sides alike.

    A network of a wide view may change its neighbors' codes more often than that of the place.
    """
    where = coordinates(grid).float()
    away = where[queries][None] - where[places][:, None]  # [places, Q, 3]
    across = (where[queries][None, None] == (where[places][:, None] - away)[:, :, None]).all(-1)
    near = moved * (away.abs().amax(-1) <= 1) * across.any(-1)  # what could as well on its far side
    if float(near.sum()) < _FEW:
        left = "its codes hardly change with the pixels"
        raise NotApplicableError(left)
    center = (near[..., None] * away).sum((0, 1)) / near.sum()
    said = ", ".join(f"{float(each):.1f}" for each in center)
    what = f"where a patch is changed, codes change around a place {said} tokens (t, h, w) from it"
    assert float(center.abs().max()) < _ASIDE, f"{what}: they are of other tokens than mask.queries"


def _moved(trial: TargetTrial) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Change pictures at one query each.

    Returns:
        How much each truth moves ``[places, Q]``, the places, the queries, and whether the truth
        is made of codes, which may not move at all: these are of several pictures.
    """
    target, context = trial.target, trial.first
    mask = trial.mask(target, context, ratio=0.5, queries="all")
    queries = mask.queries[0]
    places = queries[torch.linspace(0, len(queries) - 1, min(len(queries), 24)).long()]
    n = len(places)
    at = torch.zeros(n, context.grid.tokens, dtype=torch.bool)
    at[torch.arange(n), places] = True
    one = Mask(mask.visible[:1], mask.queries[:1], mask.weight[:1], mask.tokens)
    many = Mask(
        one.visible.expand(n, -1), one.queries.expand(n, -1), one.weight.expand(n, -1), mask.tokens
    )
    found: list[Tensor] = []
    codes = False
    while len(found) < (_PICTURES if codes else 1):
        views = trial.views(target, context, batch=1, seed=len(found))
        changed = [_changed(view.expand(n, *view.shape[1:]), at, context) for view in views]
        before, after = encode(target, views, one), encode(target, changed, many)
        codes = not before.is_floating_point()
        moved = (after != before).float() if codes else (after - before).square()
        found.append(moved.flatten(2).sum(-1) if moved.ndim > 2 else moved)
    return torch.cat(found), places.repeat(len(found)), queries, codes


def _changed(view: Tensor, at: Tensor, context: PartContext) -> Tensor:
    """Change a view where tokens stand, whatever its size."""
    b, _, frames, height, width = view.shape
    grid = context.grid
    if frames % grid.t or height % grid.h or width % grid.w:
        maps = at.reshape(b, 1, *grid).float()
        there = nn.functional.interpolate(maps, (frames, height, width))
        noise = torch.randn(view.shape, generator=torch.Generator().manual_seed(1))
        return view + noise * there
    return changed_at(view, at, grid, (frames // grid.t, height // grid.h, width // grid.w))


@target_promises("encodes_the_same_each_time")
def keeps_samples_apart(trial: TargetTrial) -> None:
    """The truth of a sample does not depend on the others of its batch."""
    target = trial.target
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    together = encode(target, views, mask)
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone = Mask(mask.visible[one], mask.queries[one], mask.weight[one], mask.tokens)
        truth = encode(target, [view[one] for view in views], alone)
        assert close(truth, together[one]), "a truth depends on the other samples of its batch"


@target_promises("encodes_the_queries")
def is_finite_on_flat_pictures(trial: TargetTrial) -> None:
    """Black, gray and white pictures have a finite truth and a finite loss."""
    target, context = trial.target, trial.first
    mask = trial.mask(target, context)
    for value in (0.0, 0.5, 1.0):
        views = [torch.full_like(view, value) for view in trial.views(target, context)]
        truth = encode(target, views, mask)
        said = f"of a picture that is {value:g} everywhere"
        finite = not truth.is_floating_point() or bool(truth.isfinite().all())
        assert finite, f"the truth {said} is not finite"
        loss = target.loss(torch.zeros(*mask.queries.shape, target.out_dim), truth)
        assert bool(loss.isfinite().all()), f"the loss {said} is not finite"


def _pred_and_truth(trial: TargetTrial, target: Target, context: PartContext) -> tuple[Any, ...]:
    mask = trial.mask(target, context)
    truth = encode(target, trial.views(target, context), mask)
    generator = torch.Generator().manual_seed(6)
    pred = torch.randn(*mask.queries.shape, target.out_dim, generator=generator)
    return pred, truth, mask


@target_promises("encodes_the_queries")
@at_each
def loss_is_one_number_for_each_query(trial: TargetTrial, context: PartContext) -> None:
    """``loss`` compares ``[B, Q, out_dim]`` with the truth: finite float32 ``[B, Q]``."""
    target = trial.ready(context)
    pred, truth, mask = _pred_and_truth(trial, target, context)
    loss = target.loss(pred, truth)
    shape = tuple(mask.queries.shape)
    assert loss.shape == shape, f"loss is {tuple(loss.shape)}, not {shape}"
    assert bool(loss.isfinite().all()), "loss is not finite"
    spread = float(loss.detach().amax() - loss.detach().amin())
    assert shape[1] < 2 or spread > 0, "loss is one number, repeated for every query"


@target_promises("encodes_the_queries")
def loss_is_float32(trial: TargetTrial) -> None:
    """The loss is float32, also of bfloat16 predictions under autocast."""
    target = trial.target
    pred, truth, _ = _pred_and_truth(trial, target, trial.first)
    loss = target.loss(pred, truth)
    assert loss.dtype == torch.float32, f"loss is {loss.dtype}, not float32"
    with torch.autocast("cpu", torch.bfloat16):
        loss = target.loss(pred.bfloat16(), truth)
    assert loss.dtype == torch.float32, f"loss of bfloat16 predictions is {loss.dtype}"


@target_promises("encodes_the_queries")
def truth_is_as_wide_as_predictions(trial: TargetTrial) -> None:
    """Neither the truth nor a prediction is stretched to the width of the other."""
    target = trial.target
    _, truth, _ = _pred_and_truth(trial, target, trial.first)
    if truth.ndim != 3 or not truth.is_floating_point():
        left = "its truth is no row of values"
        raise NotApplicableError(left)
    width, out = truth.shape[-1], target.out_dim
    what = f"the truth has {width} values a token, predictions have out_dim = {out}"
    assert width == out or 1 not in (width, out), f"{what}: one is stretched to the other"


@target_promises(
    "loss_is_one_number_for_each_query", "loss_is_float32", "truth_is_as_wide_as_predictions"
)
def loss_trains_every_prediction(trial: TargetTrial) -> None:
    """Its gradient is that of the loss, and reaches all ``out_dim`` values."""
    target = trial.target
    pred, truth, _ = _pred_and_truth(trial, target, trial.first)
    pred.requires_grad_()
    loss = target.loss(pred, truth)
    assert loss.requires_grad, "no gradient leads from the loss to the predictions"
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    assert bool(gradient.isfinite().all()), "the gradient of the loss is not finite"
    reached = gradient.abs().sum((0, 1)) > 0
    what = f"{int((~reached).sum())} of {target.out_dim} predicted values never count in the loss"
    assert bool(reached.all()), what
    length = float(gradient.norm())
    direction = gradient / length
    step = 1e-2 * float(pred.detach().norm()) / 10
    with torch.no_grad():
        up, down = (target.loss(pred + sign * step * direction, truth) for sign in (1, -1))
    measured = float((up - down).double().sum()) / (2 * step)
    what = f"the gradient of the loss is {length:.4g} where differences give {measured:.4g}"
    assert abs(measured - length) <= 0.1 * max(length, abs(measured)), f"{what}: detached?"


@target_promises("encodes_the_same_each_time")
@at_each
def comes_back_from_its_state(trial: TargetTrial, context: PartContext) -> None:
    """What was fitted comes back: a new one with the same state has the same truth."""
    target = trial.build(context)
    target.open()
    target.fit([trial.views(target, context, seed=s) for s in (3, 4)])
    encoder = small_encoder(context)
    target.attach(encoder)
    update(encoder, target, 1)
    state = {name: tensor.clone() for name, tensor in target.state().items()}
    fresh = trial.build(context, seed=1)
    fresh.open()
    fresh.load_state(state)
    beside = copy.deepcopy(encoder)  # of the resumed run
    fresh.attach(beside)
    views, mask = trial.views(target, context), trial.mask(target, context)
    truth = encode(target, views, mask)
    try:
        again = encode(fresh, views, mask)
    except Exception as error:
        what = f"with the state of one that is fitted, a new one fails: {error}"
        raise AssertionError(what) from error
    what = "a new one with the same options and state has another truth"
    assert close(truth, again), f"{what}: state() must hold all that it draws or fits"
    kept = fresh.state()
    same = kept.keys() == state.keys() and all(torch.equal(kept[n], state[n]) for n in kept)
    assert same, "load_state does not bring back what state gave"
    update(encoder, target, 2)
    update(beside, fresh, 2)
    same = close(encode(target, views, mask), encode(fresh, views, mask))
    assert same, "resumed, it follows the encoder's next update in another way"


@target_promises("encodes_the_same_each_time")
def opens_the_same_network_each_time(trial: TargetTrial) -> None:
    """``open`` reads the same network, and pins it by options that it has."""
    one, other = trial.build(trial.first), trial.build(trial.first, seed=1)
    torch.manual_seed(11)
    first = dict(one.open())
    torch.manual_seed(12)
    second = dict(other.open())
    assert first == second, f"open gives {first}, then {second}"
    unknown = sorted(first.keys() - type(trial.options).model_fields.keys())
    assert not unknown, f"open pins {', '.join(unknown)}, which it has no option for"
    for target in (one, other):
        target.fit([trial.views(target, trial.first, seed=s) for s in (3, 4)])
        target.attach(small_encoder(trial.first))
    views, mask = trial.views(one, trial.first), trial.mask(one, trial.first)
    same = close(encode(one, views, mask), encode(other, views, mask))
    assert same, "opened a second time it encodes the same views to another truth"


@target_promises("is_built_for_a_model")
def trains_nothing_that_is_not_kept(trial: TargetTrial) -> None:
    """Parameters that a run would train are in ``state``, which is what is kept of a target."""
    target = trial.ready(trial.first)
    if not isinstance(target, nn.Module):
        left = "it has no parameters"
        raise NotApplicableError(left)
    trained = {name for name, p in target.named_parameters() if p.requires_grad}
    lost = sorted(trained - set(target.state()))
    what = f"its parameters {', '.join(lost[:3])} would be trained, and are not in state()"
    assert not lost, f"{what}: requires_grad_(False), or give and take them there"


def _paints(trial: TargetTrial, context: PartContext) -> tuple[PixelTarget, Any, Tensor, Mask]:
    target = trial.ready(context)
    if not isinstance(target, PixelTarget):
        left = "it predicts no pixels"
        raise NotApplicableError(left)
    pred, _, mask = _pred_and_truth(trial, target, context)
    return target, pred, trial.views(target, context)[0], mask


@target_promises("truth_is_as_wide_as_predictions")
@at_each
def paints_whole_patches(trial: TargetTrial, context: PartContext) -> None:
    """``decode`` gives finite patches ``[B, Q, pt*ph*pw*C]``, with either statistics."""
    target, pred, pixels, mask = _paints(trial, context)
    pt, ph, pw = context.patch
    shape = (*mask.queries.shape, pt * ph * pw * context.channels)
    for statistics in get_args(_Statistics):
        painted = target.decode(pred, pixels, mask, statistics)
        assert painted.shape == shape, f"decode gives {tuple(painted.shape)}, not {shape}"
        assert bool(painted.isfinite().all()), "decode gives patches that are not finite"


@target_promises("paints_whole_patches")
def paints_from_what_is_visible(trial: TargetTrial) -> None:
    """With visible statistics ``decode`` looks at nothing that is hidden."""
    target, pred, pixels, mask = _paints(trial, trial.first)
    other = changed_at(pixels, mask.hidden(), trial.first.grid, trial.first.patch)
    same = torch.equal(target.decode(pred, pixels, mask), target.decode(pred, other, mask))
    assert same, "decode with visible statistics looks at hidden pixels"


@target_promises("encodes_the_queries")
def computes_under_autocast(trial: TargetTrial) -> None:
    """In bfloat16, as ``pretrain.precision`` has it, truth and loss are finite."""
    target = trial.target
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    with torch.autocast("cpu", torch.bfloat16):
        truth = encode(target, views, mask)
        pred = torch.zeros(*mask.queries.shape, target.out_dim, dtype=torch.bfloat16)
        loss = target.loss(pred, truth)
    assert truth.shape[:2] == mask.queries.shape, "under autocast the truth has another shape"
    assert bool(loss.isfinite().all()), "under autocast the loss is not finite"


@target_promises("encodes_the_queries", "is_built_on_the_meta_device")
def computes_where_its_input_is(trial: TargetTrial) -> None:
    """No constant stays on the CPU when the model is moved."""
    target = trial.ready(trial.first)
    views, mask = trial.views(target, trial.first), trial.mask(target, trial.first)
    truth = encode(target, views, mask)

    def call(device: torch.device) -> object:
        moved = copy.deepcopy(target)
        if isinstance(moved, nn.Module):
            moved.to(device)
        moved.attach(small_encoder(trial.first).to(device))
        there = moved.encode([view.to(device) for view in views], mask.to(device))
        pred = torch.zeros(*mask.queries.shape, target.out_dim, device=device)
        return there, moved.loss(pred, truth.to(device))

    check_device(call)


@target_promises("encodes_the_queries")
def every_option_is_read(trial: TargetTrial) -> None:
    """No option is there without being looked at."""

    def use(target: Target, context: PartContext) -> object:
        target.open()
        target.fit([trial.views(target, context)])
        encoder = small_encoder(context)
        target.attach(encoder)
        update(encoder, target, 1)
        pred, truth, mask = _pred_and_truth(trial, target, context)
        target.loss(pred, truth)
        return mask

    check_options_read(trial, use)


@target_promises("encodes_the_same_each_time", "options_survive_a_recipe")
@at_each
def is_the_same_from_a_resolved_recipe(trial: TargetTrial, context: PartContext) -> None:
    """Built from the options that a header holds it is the same, and has the same truth."""
    check_resolved(trial, context)
    again = replace(trial, options=resolved(trial.options))
    one, other = trial.ready(context), again.ready(context)
    views, mask = trial.views(one, context), trial.mask(one, context)
    same = close(encode(one, views, mask), encode(other, views, mask))
    assert same, "built from its options as a header holds them it has another truth"
