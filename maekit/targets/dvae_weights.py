"""The encoder of a discrete VAE from a file: maekit's own, or a state dict with DALL-E's keys."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor

from maekit.errors import WeightsError
from maekit.recipe.tokenizer import DVAESizes
from maekit.targets.dvae_networks import Encoder
from maekit.weights.checks import check_numbers
from maekit.weights.header import DVAEHeader
from maekit.weights.safetensors_io import (
    check_fit,
    load_exactly,
    raw_header,
    read_header_as,
    read_tensors,
)

if TYPE_CHECKING:
    from pathlib import Path

OURS = "encoder."  # before the encoder's keys, where a file holds both networks
FIRST = "blocks.input.w"
LAST = "blocks.output.conv.w"
# OpenAI publishes encoder.pkl, a pickled module: reading one runs whatever code it names.
TO_STATE_DICT = """\
turn it into a state dict, in an environment with the package that wrote it (pip install DALL-E),
  and only if you trust where it comes from:
    import torch
    torch.save(torch.load({name!r}, "cpu", weights_only=False).state_dict(), "encoder.pth")"""


def read_encoder(path: Path) -> tuple[Encoder, DVAESizes, int]:
    """Read a dVAE's encoder.

    Returns:
        The encoder on the CPU, its sizes, and how many channels it reads.

    Raises:
        WeightsError: the file does not hold a dVAE, is a pickled module, or cannot be read.
    """
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
        if raw_header(path) is not None:
            header = read_header_as(DVAEHeader, path)
            return _filled(_checked(header.dvae, path), header.channels, tensors, path)
    else:
        tensors = _unpickled(path)
    encoder = _encoder_of(tensors)
    return _filled(_checked(_sizes(encoder, path), path), _channels(encoder), encoder, path)


def _filled(
    sizes: DVAESizes, channels: int, tensors: Mapping[str, Tensor], path: Path
) -> tuple[Encoder, DVAESizes, int]:
    tensors = _encoder_of(tensors)
    check_numbers(tensors, str(path))
    if sizes.groups * sizes.blocks > len(tensors):
        msg = f"no dVAE of {sizes.groups} groups of {sizes.blocks} blocks: {len(tensors)} tensors"
        raise WeightsError(msg, where=str(path), hint="give the file as it was written")
    with torch.device("meta"):
        encoder = Encoder(sizes, channels)
    check_fit(encoder, tensors, str(path))  # before memory is taken
    encoder.to_empty(device="cpu")
    load_exactly(encoder, tensors, str(path))
    return encoder, sizes, channels


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Read a state dict that torch.save wrote; nothing but tensors is unpickled."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        if _pickled(path):
            # Not PyTorch's own words: they advise to run the code.
            msg = "a pickled object, which runs code when it is read, or a file that is cut short"
            hint = TO_STATE_DICT.format(name=path.name)
        else:
            msg = "neither a .safetensors file nor one that torch.save wrote"
            hint = "give a run of `maekit tokenizer`, or the state dict of DALL-E's encoder"
        raise WeightsError(msg, where=str(path), hint=hint) from error
    tensors = isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    )
    if not tensors:
        msg = f"holds a {type(found).__name__}, not a dict of tensors by name"
        raise WeightsError(msg, where=str(path), hint="save the encoder's state_dict()")
    return dict(found)


def _pickled(path: Path) -> bool:
    """Return whether a file begins as torch.save's do.

    That is as a zip archive, or before PyTorch 1.6 as a pickle.
    """
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _encoder_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors by DALL-E's names, with or without a decoder among them."""
    if any(name.startswith(OURS) for name in tensors):
        chosen = {name: value for name, value in tensors.items() if name.startswith(OURS)}
        return {name.removeprefix(OURS): value for name, value in chosen.items()}
    return dict(tensors)


def _sizes(tensors: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """Read the sizes of an encoder from its tensors' names and shapes."""
    first, last = tensors.get(FIRST), tensors.get(LAST)
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        msg = f"no dVAE encoder: it needs {FIRST} [width, C, 7, 7] and {LAST} [vocabulary, ., 1, 1]"
        raise WeightsError(msg, where=str(path), hint="give the state dict of DALL-E's encoder")
    names = [name.split(".") for name in tensors]
    groups = {part for name in names for part in name if part.startswith("group_")}
    blocks = {name[2] for name in names if name[1:2] == ["group_1"] and len(name) > 2}
    return {
        "vocabulary": last.shape[0],
        "width": first.shape[0],
        "groups": len(groups),
        "blocks": len({block for block in blocks if block.startswith("block_")}),
    }


def _channels(tensors: Mapping[str, Tensor]) -> int:
    return tensors[FIRST].shape[1]


def _checked(sizes: Mapping[str, Any], path: Path) -> DVAESizes:
    try:
        return DVAESizes.model_validate(sizes)
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"no dVAE that maekit can build: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise WeightsError(
            msg, where=str(path), hint="give the state dict of its encoder"
        ) from error
