"""How ranks train one model: each with all of it (DDP), or each with its share of it (FSDP2).

Either way the module that is wrapped is a ``Root``, whose ``forward`` is the loss of a step. With
FSDP2 parameters, gradients and moments are cut along their first axis, a slice for each rank;
blocks are put together one by one as they are needed. What is measured, drawn or saved between two
updates is of ``whole`` parameters, so that it may call any method, on some ranks alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from maekit.engine import distributed
from maekit.errors import RankError

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    from maekit.engine.loop import TrainState

# By module: its dictionaries of hooks, and which of these FSDP2 put there.
_hooks: WeakKeyDictionary[nn.Module, list[tuple[dict[int, Any], dict[int, Any]]]] = (
    WeakKeyDictionary()
)
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
)


@dataclass(frozen=True)
class Sharding:
    """That ranks share a model's parameters out, and how.

    Attributes:
        units: blocks, whose parameters are put together one block at a time.
        compute: number format that blocks are put together in; None: float32. What is outside of
            them (embeddings, tokens, last norms) stays float32, and so does what blocks add to.
    """

    units: Sequence[nn.Module] = ()
    compute: torch.dtype | None = None


class Root(nn.Module):
    """What ranks synchronize: a model, whose ``forward`` is the loss of a step.

    Only the forward pass of the wrapped module makes gradients meet; calling another method of the
    model would train each rank by itself, without a word.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, weighed: Any) -> Tensor:  # noqa: ANN401 - the step knows
        """Return the weighted sum of a micro-batch's loss."""
        return self.loss(weighed)


class Synchronized:
    """The loss of a step, whose gradients are averaged over ranks in the backward pass.

    Args:
        state: with a sharding its parameters, moments and averages are cut: the state's optimizer
            gets those that this rank has.
        loss: of a micro-batch.
    """

    def __init__(self, state: TrainState, loss: Callable[[Any], Tensor]) -> None:
        self._loss = loss
        self._replica: DistributedDataParallel | None = None
        self._shard: FSDPModule | None = None
        if distributed.size() == 1:
            return
        root = Root(state.model, loss)
        if state.sharding is not None:
            self._shard = _shard(root, state, state.sharding)
            self._loss = root
            return
        from torch.nn.parallel import DistributedDataParallel

        # Buffers (mean and deviation of pixels) are the same everywhere, and stay so. The option
        # has another name in newer versions of torch.
        names = inspect.signature(DistributedDataParallel).parameters
        buffers = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in names)
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        self._replica = DistributedDataParallel(root, **options)
        self._loss = self._replica

    def loss(self, weighed: Any) -> Tensor:  # noqa: ANN401 - the step knows
        """Return the loss of a micro-batch."""
        return self._loss(weighed)

    def collecting(self, *, last: bool) -> AbstractContextManager[object]:
        """Return a context for forward and backward pass of a micro-batch.

        Args:
            last: of the update: only then do gradients meet, those of all its micro-batches.
        """
        if self._shard is not None:
            self._shard.set_requires_gradient_sync(last)
        if self._replica is None or last:
            return nullcontext()
        return self._replica.no_sync()


def _shard(root: Root, state: TrainState, sharding: Sharding) -> FSDPModule:
    """Leave each rank its slice of parameters, moments and averages, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    device = next(root.parameters()).device
    mesh = init_device_mesh(device.type, (distributed.size(),))
    # What is frozen (a target's network, lower blocks) is computed with as it is, on every rank.
    ignored = {each for each in root.parameters() if not each.requires_grad}
    names = {parameter: name for name, parameter in root.model.named_parameters()}
    for parameter in names:
        parameter.data = parameter.data.contiguous()  # FSDP2 takes no channels-last ones
    units = [each for each in sharding.units if any(p not in ignored for p in each.parameters())]
    for module in (*units, root):
        before = [dict(getattr(module, kind)) for kind in _HOOKS]
        policy = _policy(None if module is root else sharding.compute, device)
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=ignored)
        _hooks[module] = [
            (own, {key: hook for key, hook in own.items() if key not in there})
            for own, there in zip((getattr(module, k) for k in _HOOKS), before, strict=True)
        ]
    sharded = dict(root.model.named_parameters())
    moved = {old: sharded[name] for old, name in names.items()}
    _follow(state.optimizer, moved)
    for average in state.averages:
        for (_, parent, name, old), new in zip(_places(average), sharded.values(), strict=True):
            parent._parameters[name] = nn.Parameter(_cut_as(new, old), requires_grad=False)  # noqa: SLF001
    assert isinstance(root, FSDPModule)  # noqa: S101 - fully_shard made it one
    return root


def _policy(compute: torch.dtype | None, device: torch.device) -> Any:  # noqa: ANN401 - torch's
    """Return the number formats of a unit: matrices as autocast takes them, all else float32."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # Autocast converts inputs, as without FSDP2. Unset, reduce_dtype means another number format in
    # each version of torch.
    options: dict[str, Any] = {"reduce_dtype": torch.float32, "cast_forward_inputs": False}
    if "param_dtype_override_fn" in inspect.signature(MixedPrecisionPolicy).parameters:
        options["param_dtype_override_fn"] = _stays_float32
    elif device.type == "cpu":  # whose norms take no weights in another format than their input's
        compute = None
    return MixedPrecisionPolicy(param_dtype=compute, **options)


def _stays_float32(parameter: nn.Parameter) -> torch.dtype | None:
    """Return the format of a norm's weights and of biases, which autocast leaves alone."""
    return torch.float32 if parameter.ndim < 2 else None


def _follow(optimizer: torch.optim.Optimizer, moved: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Let an optimizer train the parameters that others became, with this rank's moments."""
    for group in optimizer.param_groups:
        group["params"] = [moved[each] for each in group["params"]]
    for old, new in moved.items():
        moments = optimizer.state.pop(old, None)
        if moments is not None:
            optimizer.state[new] = {
                name: _cut_as(new, value) if value.ndim else value
                for name, value in moments.items()
            }


def _cut_as(parameter: Tensor, whole: Tensor) -> Tensor:
    """Cut a tensor as a parameter is, if it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return whole.detach()
    placements = parameter.placements
    cut: Tensor = distribute_tensor(
        whole.detach().contiguous(), parameter.device_mesh, placements, src_data_rank=None
    )
    return cut


def _places(*modules: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str, nn.Parameter]]:
    """Yield each parameter: the module it belongs to, that which holds it, and its name there."""
    seen: set[nn.Parameter] = set()
    for module in modules:
        for parent in module.modules():
            for name, parameter in parent._parameters.items():  # noqa: SLF001 - no hook is to run
                if parameter is not None and parameter not in seen:
                    seen.add(parameter)
                    yield module, parent, name, parameter


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank has a slice of a tensor only."""
    return hasattr(tensor, "full_tensor")


def full(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every rank must ask for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather tensors one by one to rank 0, in its host's memory; other ranks get none of them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = full(tensor.detach())
        if distributed.is_first():
            found[name] = whole.cpu() if is_sharded(tensor) else tensor
    return found


@contextmanager
def whole(*modules: nn.Module) -> Iterator[None]:
    """Give modules all of their parameters, in float32, while the context lasts.

    Every rank must enter it; within it each may do with them what it likes, by itself.
    """
    places = [
        (parent, name, parameter)
        for module in modules
        for _, parent, name, parameter in _places(module)
        if is_sharded(parameter)
    ]
    hooks = [
        (dictionary, own)
        for module in modules
        for each in module.modules()
        for dictionary, own in _hooks.get(each, ())
    ]
    for parent, name, parameter in places:
        with torch.no_grad():
            value = nn.Parameter(full(parameter.detach()), parameter.requires_grad)
        parent._parameters[name] = value  # noqa: SLF001
    before = [dict(dictionary) for dictionary, _ in hooks]
    for dictionary, own in hooks:
        for key in own:
            dictionary.pop(key, None)
    try:
        yield
    finally:
        for (dictionary, own), there in zip(hooks, before, strict=True):
            now = dict(dictionary)
            dictionary.clear()  # their order counts: FSDP2's come first
            dictionary.update({key: there[key] for key in there if key in own or key in now} | now)
        for parent, name, parameter in places:
            parent._parameters[name] = parameter  # noqa: SLF001


def check_equal(model: nn.Module, step: int) -> None:
    """Compare the parameters of all ranks that each of them has whole.

    Those that are cut (FSDP2) cannot differ: each number is on one rank alone, and it is that one
    which all gather, train with and save. A part that changes one in passing changes a copy, which
    is dropped.

    Raises:
        RankError: they differ, so that gradients did not meet.
    """
    if distributed.size() == 1:
        return
    held = [each.detach() for each in model.parameters() if not is_sharded(each)]
    sums = [each.double().sum() for each in held]
    sums_here = torch.stack(sums).cpu().nan_to_num() if sums else torch.zeros(0)
    found = distributed.gather(sums_here)
    if any(not torch.equal(each, found[0]) for each in found):
        what = f"the ranks' parameters differ after step {step}"
        hint = "report this; does a part train parameters outside of the loss?"
        raise RankError(what, where="ranks", hint=hint)
