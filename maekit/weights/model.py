"""A model's tensors: what is saved of it, and how they are put back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from maekit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maekit.model import MaskedAutoencoder

OURS = ("backbone.", "decoder.")
TARGET = "target."  # before what a target fitted
CLASSIFIER = "classifier."  # before what fine-tuning put on the encoder
SHOWN = 5  # names in an error


def model_tensors(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Encoder, decoder and what the target fitted; never a target's frozen network."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(OURS)}
    if model.target is not None:
        state = model.target.state()
        tensors |= {f"{TARGET}{name}": tensor for name, tensor in state.items()}
    return tensors


def load_tensors(
    model: MaskedAutoencoder,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    fresh: Collection[str] = (),
) -> None:
    """Put tensors into a model; every one must fit, but for a classifier's norm and head.

    Args:
        fresh: names that may be missing, and stay as they are.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; all are named.
    """
    fitted = {
        name.removeprefix(TARGET): tensor
        for name, tensor in tensors.items()
        if name.startswith(TARGET)
    }
    elsewhere = (TARGET, CLASSIFIER)
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith(elsewhere)}
    problems = mismatches(model, ours, fresh)
    if fitted and model.target is None:
        problems += _listed("unexpected", {f"{TARGET}{name}" for name in fitted})
    _refuse(problems, where)
    model.load_state_dict(dict(ours), strict=False)
    if fitted and model.target is not None:
        model.target.load_state(fitted)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put a module's whole state in place.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; all are named.
    """
    _refuse(_misfits(module.state_dict(), tensors), where)
    module.load_state_dict(dict(tensors))


def mismatches(
    model: MaskedAutoencoder, tensors: Mapping[str, Tensor], fresh: Collection[str] = ()
) -> list[str]:
    """What keeps tensors from being the model's encoder and decoder, as text."""
    wanted = {name: t for name, t in model.state_dict().items() if name.startswith(OURS)}
    there = {n: t for n, t in wanted.items() if n in tensors or n not in fresh}
    return _misfits(there, tensors)


def _misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """In what two sets of tensors differ but for their values."""
    problems = _listed("missing", wanted.keys() - found.keys())
    problems += _listed("unexpected", found.keys() - wanted.keys())
    return problems + [
        f"{name} is {list(found[name].shape)} in the file, {list(wanted[name].shape)} in the model"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name].shape != found[name].shape
    ]


def _refuse(problems: Iterable[str], where: str) -> None:
    if problems:
        msg = "the weights do not match the model: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="use the recipe that these weights come from")


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"]
