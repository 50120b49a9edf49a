"""What checks of backbones, decoders and targets share: contexts, masks, pixels, gradients."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from maekit.contracts import Grid, PartContext, PartError, PartOptions
from maekit.engine.build import taken_names
from maekit.registry import takes_context
from maekit.testing.options import resolved, unread, watched
from maekit.tokens import Mask, patchify, unpatchify

if TYPE_CHECKING:
    from maekit.contracts import Backbone, Decoder, Target

BATCH = 2
DEEP = (32,) * 12  # layers of an encoder, for parts that ask for one of many
TOLERANCE = 1e-4  # of float32 sums in another order, relative to the largest value
_STEP = 1e-4  # of every parameter, for differences: the longest that is tried
_LOST = 0.05  # share of a gradient that may be missing: half-precision islands round as much
_STEPS = 3  # updates in which every parameter must have moved: gates may start at zero

Part = TypeVar("Part", bound="Backbone | Decoder | Target")


def example(
    shape: tuple[int, int, int] = (1, 32, 48),
    patch: tuple[int, int, int] = (1, 8, 8),
    *,
    channels: int = 3,
    **known: Any,  # noqa: ANN401 - fields of PartContext
) -> PartContext:
    """Return a context whose fields agree: that of a small model of clips of ``(T, H, W)`` pixels.

    Args:
        shape: frames, height and width in pixels.
        patch: pixels per token, along t, h, w.
        channels: of the pixels.
        known: other fields of PartContext, in place of those of an encoder of width 32 with two
            blocks and one prefix token.
    """
    fields: dict[str, Any] = {
        "mean": (0.4, 0.5, 0.6, 0.5)[:channels] if channels <= 4 else (0.5,) * channels,
        "std": (0.2, 0.3, 0.25, 0.2)[:channels] if channels <= 4 else (0.25,) * channels,
        "grid": Grid(*(size // step for size, step in zip(shape, patch, strict=True))),
        "width": 32,
        "prefix_tokens": 1,
        "layer_widths": (32, 32),
        "out_dim": patch[0] * patch[1] * patch[2] * channels,
    }
    return PartContext(shape, channels, patch=patch, **(fields | known))


@dataclass
class ModuleTrial(Generic[Part]):
    """A part that is built for models, anew each time."""

    part: type[Part]
    options: PartOptions
    contexts: Sequence[PartContext] | None = None

    candidates: ClassVar[Sequence[PartContext]] = ()

    def build(
        self, context: PartContext, *, seed: int = 0, options: PartOptions | None = None
    ) -> Part:
        """Build it as the core does, from a seed of its own."""
        torch.manual_seed(seed)
        kind: Any = self.part
        options = self.options if options is None else options
        built: Part = kind(options, context) if takes_context(kind) else kind(options)
        return built

    @cached_property
    def taken(self) -> tuple[PartContext, ...]:
        """The contexts that it does not refuse: the first image, and the first clip."""
        found: list[PartContext] = []
        for context in self.candidates if self.contexts is None else self.contexts:
            moving = context.shape[0] > 1
            kind = (moving, context.returns)
            if self.contexts is None and any((c.shape[0] > 1, c.returns) == kind for c in found):
                continue
            if self.refusal(context) is None:
                found.append(context)
        return tuple(found)

    def refusal(self, context: PartContext) -> PartError | None:
        """Return why it does not take a context; None: it does."""
        try:
            with torch.device("meta"):
                self.fits(self.build(context), context)
        except PartError as error:
            return error
        except Exception:  # noqa: BLE001 - no refusal, but a fault, which a promise is about
            return None
        return None

    def fits(self, built: Part, context: PartContext) -> None:
        """Raise PartError where a built part does not take a clip after all."""

    @cached_property
    def first(self) -> PartContext:
        """The context that suffices where all are alike."""
        return self.taken[0]


Trial = TypeVar("Trial", bound=ModuleTrial[Any])


def at_each(check: Callable[[Trial, PartContext], None]) -> Callable[[Trial], None]:
    """Let a check look at each context that is taken, and tell of which it is not the first."""

    @wraps(check)
    def checked(trial: Trial) -> None:
        for context in trial.taken:
            try:
                check(trial, context)
            except AssertionError as error:
                if context is trial.first:
                    raise
                t, h, w = context.shape
                what = f"{error} (of {t}x{h}x{w} pixels, {len(context.layer_widths)} blocks)"
                raise AssertionError(what) from error

    return checked


def check_taken(trial: ModuleTrial[Any], base: type) -> None:
    """Check that some context is taken, and what is built."""
    if not trial.taken:
        tried = list(trial.candidates if trial.contexts is None else trial.contexts)
        reasons = [trial.refusal(context) for context in tried]
        said = "; ".join(sorted({each.what for each in reasons if each is not None}))
        what = f"refuses every clip that was tried: {said}; options, or contexts=, may help"
        raise AssertionError(what)
    for context in trial.taken:
        built = trial.build(context)
        assert isinstance(built, base), f"does not inherit from maekit.contracts.{base.__name__}"
        taken = taken_names(built, base)
        what = f"registers {', '.join(taken)}, and {base.__name__} has members of these names"
        assert not taken, f"{what}: self.{taken[0]} gives the member; name it otherwise"


def draw_mask(
    grid: Grid,
    unit: tuple[int, int, int] = (1, 1, 1),
    ratio: float = 0.75,
    queries: str = "hidden",
    seed: int = 0,
    batch: int = BATCH,
) -> Mask:
    """Draw a mask of whole units, of which a share is hidden: at least one, not all.

    Args:
        grid: of tokens.
        unit: tokens per maskable unit.
        ratio: the share of units that is hidden.
        queries: hidden, all, or some (a third of the hidden and a third of the visible tokens).
        seed: of the draw.
        batch: B.
    """
    units = grid.over(unit)
    count = min(max(1, round(units.tokens * ratio)), units.tokens - 1)
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(batch):
        drawn = (rng.permutation(units.tokens) < count).reshape(units)
        for axis, times in enumerate(unit):
            drawn = drawn.repeat(times, axis=axis)
        maps.append(drawn.reshape(-1))
    hidden = np.stack(maps)
    if queries != "some":
        loss_on = "all" if queries == "all" else "hidden"
        return Mask.build(torch.from_numpy(hidden), loss_on=loss_on)  # type: ignore[arg-type]
    requested = np.zeros_like(hidden)
    for row, asked in zip(hidden, requested, strict=True):
        for part in (np.flatnonzero(row), np.flatnonzero(~row)):
            asked[rng.permutation(part)[: max(1, len(part) // 3)]] = True
    return Mask.build(torch.from_numpy(hidden), requested=torch.from_numpy(requested))


def with_queries(mask: Mask, queries: Tensor) -> Mask:
    """Return a mask with other queries ``[B, Q]``, all of weight 1."""
    weight = torch.ones(queries.shape)
    return Mask(mask.visible, queries, weight, mask.tokens)


def shuffled(mask: Mask, seed: int = 0) -> tuple[Mask, Tensor]:
    """Return a mask whose queries stand in another order, and that order ``[B, Q]``."""
    order = torch.randperm(
        mask.queries.shape[1], generator=torch.Generator().manual_seed(seed)
    ).expand_as(mask.queries)
    other = Mask(
        mask.visible, mask.queries.gather(1, order), mask.weight.gather(1, order), mask.tokens
    )
    return other, order


def noise(context: PartContext, *, seed: int = 0, batch: int = BATCH) -> Tensor:
    """Draw normalized pixels ``[B, C, T, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, context.channels, *context.shape, generator=generator)


def changed_at(
    pixels: Tensor, tokens: Tensor, grid: Grid, patch: tuple[int, int, int], seed: int = 1
) -> Tensor:
    """Return pixels with noise added where ``tokens``, bool ``[B, N]``, is True."""
    patches = patchify(pixels, patch)
    generator = torch.Generator().manual_seed(seed)
    added = torch.randn(patches.shape, generator=generator) * tokens[..., None]
    return unpatchify(patches + added, grid, patch)


def close(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors differ by no more than sums in another order do."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    scale = float(other.detach().abs().max()) if other.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * max(scale, 1e-6)))


def state_of_torch() -> str:
    """Return torch's global CPU generator as a digest."""
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()


Values = Callable[[nn.Module], Tensor]  # of a module, what its loss is made of


def scalar(values: Tensor) -> Tensor:
    """Weigh values by fixed noise and sum them: what every one of them counts in."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(values.shape, generator=generator)
    return (values * weight.to(values)).sum()


def check_trained(module: nn.Module, values: Values) -> None:
    """Check that a few updates move every parameter that wants a gradient."""
    module = copy.deepcopy(module).train()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.0)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        total = scalar(values(module))
        assert total.requires_grad, "no gradient leads from what it returns to its parameters"
        total.backward()
        optimizer.step()
    still = [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]
    shown = ", ".join(still[:4]) + (" ..." if len(still) > 4 else "")
    what = f"{_STEPS} updates do not move {len(still)} of {len(trained)} parameters: {shown}"
    assert not still, what


def check_gradients(module: nn.Module, values: Values) -> None:
    """Check that the gradient is that of what is computed, by differences.

    In float64 where the part can; a constant of its own in float32 is allowed for.
    """
    module = copy.deepcopy(module).eval().double()
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    total = scalar(values(module))
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    computed = sum(
        float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None
    )
    length = sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5

    @torch.no_grad()
    def moved(step: float) -> float:
        for parameter, each in zip(parameters, direction, strict=True):
            parameter.add_(each, alpha=step)
        found = float(scalar(values(module)))
        for parameter, each in zip(parameters, direction, strict=True):
            parameter.sub_(each, alpha=step)
        return found

    # Of a large model a step of every parameter is a long one: a shorter one has the last word.
    for step in (_STEP, _STEP / 10, _STEP / 100):
        measured = (moved(step) - moved(-step)) / (2 * step)
        apart = abs(measured - computed)
        if apart <= _LOST * max(length, 1e-9):
            return
    what = (
        f"the gradient is not that of what it computes: {computed:.4g} along a direction in which "
        f"differences give {measured:.4g}; is something detached?"
    )
    raise AssertionError(what)


def check_resumed(build: Callable[[int], nn.Module], values: Values) -> None:
    """Check that two updates are the same in one go, and from the state after the first.

    What is resumed starts from another seed, so that anything that its state does not hold shows.
    """

    def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=1e-3)

    def update(module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        torch.manual_seed(step)
        optimizer.zero_grad()
        scalar(values(module)).backward()
        optimizer.step()

    whole = build(0).train()
    optimizer = optimizer_of(whole)
    update(whole, optimizer, 1)
    kept = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    moments = copy.deepcopy(optimizer.state_dict())
    update(whole, optimizer, 2)
    resumed = build(1).train()
    resumed.load_state_dict(kept)
    again = optimizer_of(resumed)
    again.load_state_dict(moments)
    update(resumed, again, 2)
    other = resumed.state_dict()
    differ = [n for n, tensor in whole.state_dict().items() if not torch.equal(tensor, other[n])]
    shown = ", ".join(differ[:3])
    what = f"resumed after the first of two updates, {len(differ)} tensors differ: {shown}"
    assert not differ, f"{what}; what it computes with must be in its parameters and buffers"
    whole.eval(), resumed.eval()
    with torch.no_grad():
        same = torch.equal(values(whole), values(resumed))
    assert same, "with the same parameters and buffers it computes something else"


def check_meta_build(trial: ModuleTrial[Any], context: PartContext) -> None:
    """Check that a part is built on the meta device with the shapes that it has elsewhere."""
    module = trial.build(context)
    try:
        with torch.device("meta"):
            built = trial.build(context)
    except Exception as error:
        what = f"its constructor fails on the meta device: {type(error).__name__}: {error}"
        raise AssertionError(f"{what}; no .item(), no float(tensor) there") from error
    if not isinstance(module, nn.Module):
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    real = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert shapes == real, "on the meta device it has other tensors"


_DEVICES = ("same device", "two devices", "on device", "different devices", "device type")


def check_device(call: Callable[[torch.device], object]) -> None:
    """Check that a part computes where its inputs are, with inputs on the meta device."""
    try:
        call(torch.device("meta"))
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if any(word in text for word in _DEVICES):
            what = f"a constant stays on the CPU: {text.partition(chr(10))[0][:200]}"
            raise AssertionError(f"{what}; register_buffer, or .to(x.device)") from error
        # Anything else has no meaning on a device without values.


def check_compiled(module: nn.Module, values: Values) -> None:
    """Check that a compiled part computes the same; graph breaks are allowed."""
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        plain = values(module)
        torch._dynamo.reset()  # noqa: SLF001 - its public name is torch.compiler.reset
        compiled: Any = torch.compile(values, backend="eager")
        same = close(compiled(module), plain)
    assert same, "compiled (pretrain.compile) it computes something else"


def check_options_read(trial: ModuleTrial[Any], use: Callable[[Any, PartContext], object]) -> None:
    """Check that every option is looked at while a part is built and used."""
    options, read = watched(trial.options)
    for context in trial.taken:
        use(trial.build(context, options=options), context)
    dead = unread(trial.part, options, read)
    assert not dead, f"nothing ever reads {', '.join(dead)}"


def check_resolved(trial: ModuleTrial[Any], context: PartContext) -> None:
    """Check that the options that a header holds build the same part."""
    one = trial.build(context)
    other = trial.build(context, options=resolved(trial.options))
    if isinstance(one, nn.Module):
        mine, theirs = one.state_dict(), other.state_dict()
        assert mine.keys() == theirs.keys(), "has other tensors"
        differ = [name for name in mine if not torch.equal(mine[name], theirs[name])]
        assert not differ, f"starts from other values in {', '.join(differ[:3])}"
