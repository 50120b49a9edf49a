"""A model's tensors: what is saved of it, and how they are put back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from maekit import registry
from maekit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

OURS = ("backbone.", "decoder.")
TARGET = "target."  # before what a target fitted
SHOWN = 5  # names in an error


def model_tensors(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Encoder, decoder and what the target fitted; never a target's frozen network."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(OURS)}
    state = getattr(model.target, "state", None)
    if state is not None:
        tensors |= {f"{TARGET}{name}": tensor for name, tensor in state().items()}
    return tensors


def check_header(found: Header, asked: Header, where: str, *, foreign: bool = False) -> None:
    """Weights continue only the model that they are of: tensors may fit another one too.

    Args:
        foreign: somebody else wrote them: how they were initialised is not known.

    Raises:
        WeightsError: parts, channels or statistics differ; each is named with both values.
    """
    problems = []
    for key in ("backbone", "decoder", "target", "channels", "mean", "std"):
        ours, theirs = getattr(asked, key), getattr(found, key)
        if theirs is None:  # an encoder alone; or a decoder whose target is not known
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            ours, theirs = (_structure(key, part, asked.clip) for part in (ours, theirs))
            problems += [
                f"{key}.{option}: {theirs.get(option)!r} in the weights, {ours.get(option)!r} asked"
                for option in sorted(ours.keys() | theirs.keys())
                if ours.get(option) != theirs.get(option) and not (foreign and option == "init")
            ]
        elif ours != theirs:
            problems.append(f"{key}: {theirs!r} in the weights, {ours!r} asked")
    if problems:
        msg = "the recipe asks for another model: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="take these values into the recipe")


def _structure(key: str, part: dict[str, Any], clip: tuple[int, int, int]) -> dict[str, Any]:
    """A part's options where each structure has one spelling: a size is its width, depth, heads."""
    name = part["name"]
    options = registry.options_of(f"{key}s", name)
    chosen = options.model_validate({k: v for k, v in part.items() if k != "name"})
    plain = {"name": name} | chosen.model_dump(mode="json")
    shape = getattr(chosen, "shape", None)
    if shape is not None:
        plain.pop("size", None)
        plain |= asdict(shape)
    if key == "decoder" and plain.get("positions", "") is None:
        plain["positions"] = "sincos-2d" if clip[0] == 1 else "sincos-1d"
    return plain


def load_tensors(
    model: MaskedAutoencoder,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    fresh: Collection[str] = (),
) -> None:
    """Put tensors into a model; every one must fit.

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
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith(TARGET)}
    problems = mismatches(model, ours, fresh)
    load_state = getattr(model.target, "load_state", None)
    if fitted and load_state is None:
        problems += _listed("unexpected", {f"{TARGET}{name}" for name in fitted})
    if problems:
        msg = "the weights do not match the model: " + "; ".join(problems)
        raise WeightsError(msg, where=where, hint="use the recipe that these weights come from")
    model.load_state_dict(dict(ours), strict=False)
    if fitted and load_state is not None:
        load_state(fitted)


def mismatches(
    model: MaskedAutoencoder, tensors: Mapping[str, Tensor], fresh: Collection[str] = ()
) -> list[str]:
    """What keeps tensors from being the model's encoder and decoder, as text."""
    wanted = {name: t for name, t in model.state_dict().items() if name.startswith(OURS)}
    problems = _listed("missing", wanted.keys() - tensors.keys() - set(fresh))
    problems += _listed("unexpected", tensors.keys() - wanted.keys())
    for name in sorted(wanted.keys() & tensors.keys()):
        if wanted[name].shape != tensors[name].shape:
            problems.append(
                f"{name} is {list(tensors[name].shape)} in the file, "
                f"{list(wanted[name].shape)} in the model"
            )
    return problems


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"]
