"""What weights must be, whoever wrote them, before a model is built or memory is taken for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from maekit.errors import NonFiniteError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.recipe.schema import PartSpec
    from maekit.weights.header import Header

_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_COUNTER = "num_batches_tracked"  # of a batch norm, the only integer that models of maekit hold
_PLUGINS = "target."  # a part of others may keep integers there
_SMALL = 4096  # a number that no tensor need account for
_MOST_TOKENS = 1 << 17
_MOST_POSITIONS = 1 << 26  # values of a table of positions, tokens x width
_HINT = "give the file as it was written, or another one"


def check_numbers(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that no model can compute with.

    Raises:
        WeightsError: one is not of floating point.
        NonFiniteError: one holds NaN or infinity, or what float32 makes infinity of.
    """
    for name, tensor in tensors.items():
        integer = name.endswith(_COUNTER) or name.startswith(_PLUGINS)
        if tensor.dtype not in _FLOATS and not (integer and not tensor.is_complex()):
            msg = f"{name} is of type {str(tensor.dtype).removeprefix('torch.')}"
            hint = "weights are float64, float32, float16 or bfloat16"
            raise WeightsError(msg, where=where, hint=hint)
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor.float()).all()):
            hint = "an earlier checkpoint of the run, or other weights"
            finite = bool(torch.isfinite(tensor).all())
            what = "numbers that are infinite as float32" if finite else "NaN or infinity"
            raise NonFiniteError(f"{name} holds {what}", where=where, hint=hint)


def check_header(header: Header, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a header whose sizes the tensors cannot account for.

    It is compared in full with a model of no memory later; here, so that this one can be built.

    Raises:
        WeightsError: a size is out of all proportion.
    """
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    limit = max(largest, _SMALL)
    parts = {"backbone": header.backbone, "decoder": header.decoder, "target": header.target}
    for key, part in parts.items():
        for name, size in _sizes(part):
            most = len(tensors) if name in ("depth", "blocks", "groups") else limit
            if size > most:
                _refuse(f"{key}.{name} is {size}", where)
    if not 0 < header.channels <= limit or min(header.clip) < 1:
        clip = "x".join(map(str, header.clip))
        _refuse(f"{header.channels} channels, a clip of {clip}", where)
    patch = tensors.get("backbone.patch_embed.weight")
    if patch is None or patch.ndim < 2 or 0 in patch.shape:
        tokens, width = math.prod(header.clip) // 16, largest
    else:
        tokens, width = math.prod(header.clip) // math.prod(patch.shape[2:]), patch.shape[0]
    if tokens > _MOST_TOKENS or tokens * max(width, 1) > _MOST_POSITIONS:
        _refuse(f"the clip is {'x'.join(map(str, header.clip))}, {tokens:,} tokens", where)


def check_statistics(header: Header, where: str) -> None:
    """Refuse a mean and a deviation that no picture can be normalized with.

    Raises:
        WeightsError: one is not finite in float32, a deviation is not above 0, or there are more or
            fewer of them than channels.
    """
    most, least = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
    # As models compute: what float32 makes infinity or 0 of is neither a mean nor a deviation.
    finite = all(abs(each) <= most for each in header.mean) and all(
        least <= each <= most for each in header.std
    )
    if not finite or not len(header.mean) == len(header.std) == header.channels:
        mean, std = list(header.mean[:_SHOWN]), list(header.std[:_SHOWN])
        msg = f"mean {mean} and std {std} are not those of {header.channels} channels"
        raise WeightsError(msg, where=where, hint=_HINT)


_SHOWN = 8


def _sizes(part: PartSpec | None) -> Iterator[tuple[str, int]]:
    """Yield every whole number among the options of a part."""
    for name, value in () if part is None else part.options:
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, int) and not isinstance(each, bool):
                yield name, each


def _refuse(what: str, where: str) -> None:
    msg = f"the header does not fit the tensors: {what}"
    raise WeightsError(msg, where=where, hint=_HINT)


def check_archive(path: Path) -> None:
    """Refuse an archive of torch.save's that unpacks to more than it is.

    torch.save stores without compression, so that a file takes as much memory as it is long.

    Raises:
        WeightsError: an entry is compressed, or entries overlap.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
    except (BadZipFile, ValueError, NotImplementedError, EOFError):
        return  # loading says what is wrong with it
    packed = [entry.filename for entry in entries if entry.compress_type != ZIP_STORED]
    if packed:
        msg = f"{packed[0]} in this archive is compressed, which torch.save never does"
        raise WeightsError(msg, where=str(path), hint="save it again with torch.save")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        msg = "the entries of this archive are longer than the file"
        raise WeightsError(msg, where=str(path), hint="it may be damaged: copy it again")


def check_plain(tensors: Mapping[str, Tensor], size: int, where: str) -> None:
    """Refuse tensors that are not plain numbers in memory, or views of more than the file holds.

    Args:
        tensors: as they were read.
        size: of the file, in bytes.
        where: the file, for errors.

    Raises:
        WeightsError: names the first one.
    """
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_nested:
            msg = f"{name} is no plain tensor ({tensor.layout}, {tensor.dtype})"
            raise WeightsError(msg, where=where, hint="save dense tensors")
        taken = tensor.numel() * tensor.element_size()
        if taken > max(size, _MOST_EXPANDED):
            msg = f"{name} of shape {list(tensor.shape)} is more than this file can hold"
            raise WeightsError(msg, where=where, hint=_HINT)


_MOST_EXPANDED = 512 << 20  # bytes of one tensor that repeats what the file holds
