"""safetensors files: written whole or not at all, and read with their header."""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from maekit.atomic import write_atomically
from maekit.errors import WeightsError
from maekit.progress import counted
from maekit.recipe.schema import OPTIONS_OF
from maekit.registry import installed_options_of, versions_of
from maekit.text import as_text, carried
from maekit.weights.header import FORMAT, FileHeader, Header

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maekit.model import MaskedAutoencoder


KEY = "maekit"  # of the header, in the file's metadata
_CHUNK = 1 << 22  # bytes that are hashed at once
DIGEST = "maekit_sha256"  # of the tensors, likewise


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], header: FileHeader | None = None
) -> str:
    """Write tensors whole or not at all; return the sha256 of the file.

    With a header goes a digest of the tensors, so that reading notices any change.

    Raises:
        OSError: the disk is full or not writable, or does not give back what was written; ``path``
            is then untouched.
    """
    metadata = {"format": "pt"}
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if header is not None:
        metadata[KEY] = header_text(_with_versions(header))
        metadata[DIGEST] = digest_of(ready)

    def write(draft: Path) -> str:
        _save(ready, draft, metadata)
        return _read_back(draft, ready)

    return write_atomically(path, write)


def _with_versions(header: FileHeader) -> FileHeader:
    """Return a header that says which versions its parts are of, where it does not yet."""
    if not isinstance(header, Header):
        return header
    named = (header.backbone, header.decoder, header.target, header.masker)
    now = versions_of(each for each in named if each is not None)
    known = {**(now or {}), **(header.plugins or {})}
    return header.model_copy(update={"plugins": known or None})


def header_text(header: FileHeader, *, exclude: Collection[str] = ()) -> str:
    """Return a header as JSON, its keys in order; a name in it that is not UTF-8 is carried.

    In order, as a part's options are in another one once they were read back from a file: the same
    weights are the same bytes, resumed or not.
    """
    plain = header.model_dump(mode="json", exclude=set(exclude))
    for key in ("range", "plugins"):  # as in files from before there were any
        if plain.get(key, ...) is None:
            del plain[key]
    return carried(json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(dict(tensors), path, metadata)
        _order_metadata(path)
    except ValueError as error:  # the header that was written is none
        raise _differs(path) from error
    except SafetensorError as error:
        # safetensors wraps the system's error in its text; callers expect an OSError.
        msg = f"cannot write {path.name}: {error}"
        raise OSError(_errno_of(str(error)), msg) from error


def _order_metadata(path: Path) -> None:
    """Sort a file's metadata, which safetensors writes in another order in each process.

    So that the same weights are the same bytes. The header keeps its length: it is padded with
    spaces, as the format allows (https://github.com/huggingface/safetensors, Format).
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def safetensors_file(path: Path) -> safe_open:
    """Open a file of safetensors; raises SafetensorError or OSError where it is none."""
    if as_text(str(path)) == str(path):
        return safe_open(path, "pt")
    # It takes no name that is not UTF-8. The file is mapped at once, so the link may go.
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link.safetensors"
        link.symlink_to(path.absolute())
        return safe_open(link, "pt")


def _read_back(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Return a file's sha256, once it is what was to be written: a disk may drop a write silently.

    A chunk at a time is in memory: the pages of a mapped file would count as the process's own.

    Raises:
        OSError: it holds something else.
    """
    found, done = hashlib.sha256(), 0
    size = path.stat().st_size
    with path.open("rb") as file, counted("checksum", size, "B") as count:
        length = file.read(8)
        header = file.read(min(size, int.from_bytes(length, "little")))
        found.update(length + header)
        places = _places(header)
        if places is None or places.keys() != tensors.keys():
            raise _differs(path)
        for name in sorted(places, key=places.__getitem__):
            for wanted in _bytes(tensors[name]).split(_CHUNK):
                chunk = file.read(len(wanted))
                if chunk != wanted.numpy().tobytes():
                    raise _differs(path)
                found.update(chunk)
                done += len(chunk)
                count(done)
            if places[name][1] != done:
                raise _differs(path)
        if file.read(1):
            raise _differs(path)
    return found.hexdigest()


def _places(header: bytes) -> dict[str, tuple[int, int]] | None:
    """Return where each tensor begins and ends in a safetensors file's data; None: it is none."""
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        offsets = {name: each["data_offsets"] for name, each in entries.items()}
        return {name: (int(begin), int(end)) for name, (begin, end) in offsets.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _differs(path: Path) -> OSError:
    return OSError(errno.EIO, "what was written reads back differently", str(path))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors: of their names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(_bytes(tensor).numpy().data)
    return found.hexdigest()


def _errno_of(text: str) -> int:
    """Return the number in safetensors' ``... (os error 28)``; 5 (EIO) where there is none."""
    _, _, tail = text.partition("os error ")
    digits = "".join(character for character in tail[:4] if character.isdigit())
    return int(digits) if digits else 5


H = TypeVar("H", bound=FileHeader)


def parsed_header(text: str, expected: type[H] = Header) -> H:  # type: ignore[assignment]
    """Read a header's text, with options of the parts that are installed; ValidationError."""
    return expected.model_validate_json(text, context={OPTIONS_OF: installed_options_of})


def read_header(path: Path) -> Header:
    """Read the header of a masked autoencoder's weights file, without its tensors."""
    return read_header_as(Header, path)


def read_header_as(expected: type[H], path: Path) -> H:
    """Read the header of a weights file that must hold the expected kind of model.

    Raises:
        WeightsError: it has none, one of another kind, or one that is not understood.
    """
    text = raw_header(path)
    if text is None:
        msg = "no maekit header in this file: it does not say which model it holds"
        raise WeightsError(msg, where=str(path), hint="give weights that maekit wrote")
    wanted, found = expected.model_fields["kind"].default, _kind(text)
    if found != wanted:
        msg = f"this file holds a model of the kind {found}, not {wanted}"
        raise WeightsError(
            msg,
            where=str(path),
            hint="`maekit pretrain` writes an autoencoder, `maekit tokenizer` a dvae",
        )
    try:
        header = parsed_header(text, expected)
    except ValidationError as error:
        msg = f"the header cannot be understood: {error.errors()[0]['msg']}"
        raise WeightsError(msg, where=str(path), hint="update maekit") from error
    if header.format > FORMAT:
        msg = f"format {header.format} is newer than this maekit's {FORMAT}"
        raise WeightsError(msg, where=str(path), hint="update maekit")
    return header


def raw_header(path: Path) -> str | None:
    """Return the text of maekit's header in a safetensors file, or None without one."""
    with _opened(path) as file:
        return (file.metadata() or {}).get(KEY)


def _kind(text: str) -> str:
    """Return the kind of model that a header's text names; the first headers named none."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    return str(header.get("kind", "autoencoder")) if isinstance(header, dict) else "autoencoder"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, on the CPU.

    Raises:
        WeightsError: they are not what maekit wrote into this file.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        written = (file.metadata() or {}).get(DIGEST)
    if written is not None and written != digest_of(tensors):
        msg = "the tensors do not match the checksum in the file: it was damaged or edited"
        raise WeightsError(msg, where=str(path), hint="copy it again, or use another checkpoint")
    return tensors


def _opened(path: Path) -> safe_open:
    if not path.is_file():
        msg = f"no weights file {path}"
        raise WeightsError(msg, hint="give a run folder or a .safetensors file")
    try:
        return safetensors_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"not a readable safetensors file: {error}"
        raise WeightsError(
            msg, where=str(path), hint="it may be cut short: copy it again"
        ) from error


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    found, done = hashlib.sha256(), 0
    with (
        path.open("rb") as file,
        counted("checksum", path.stat().st_size, "B") as count,
    ):
        while chunk := file.read(_CHUNK):
            found.update(chunk)
            done += len(chunk)
            count(done)
    return found.hexdigest()


OURS = ("backbone.", "decoder.")
TARGET = "target."  # before what a target fitted
CLASSIFIER = "classifier."  # before what fine-tuning put on the encoder
AVERAGE = "ema."  # in a checkpoint, before the moving average of a classifier
SHOWN = 5  # names in an error


def model_tensors(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Return encoder, decoder and what the target fitted; never a target's frozen network."""
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
        model: takes them.
        tensors: encoder, decoder, and what the target fitted, by maekit's names.
        where: the file, for errors.
        fresh: names that may be missing, and stay as they are.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; all are named.
    """
    fitted = {
        name.removeprefix(TARGET): tensor
        for name, tensor in tensors.items()
        if name.startswith(TARGET)
    }
    ours = own_tensors(tensors)
    problems = mismatches(model, ours, fresh)
    if fitted and model.target is None:
        problems += _listed("unexpected", {f"{TARGET}{name}" for name in fitted})
    _refuse(problems, where)
    model.load_state_dict(dict(ours), strict=False)
    if fitted and model.target is not None:
        model.target.load_state(fitted)


def own_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of encoder and decoder: not a target's, nor a classifier's."""
    elsewhere = (TARGET, CLASSIFIER)
    return {name: each for name, each in tensors.items() if not name.startswith(elsewhere)}


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put a module's whole state in place.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; all are named.
    """
    check_fit(module, tensors, where)
    module.load_state_dict(dict(tensors))


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError unless tensors are a module's state, which may be on the meta device."""
    _refuse(_misfits(module.state_dict(), tensors), where)


def mismatches(
    model: MaskedAutoencoder, tensors: Mapping[str, Tensor], fresh: Collection[str] = ()
) -> list[str]:
    """Describe what keeps tensors from being the model's encoder and decoder."""
    wanted = {name: t for name, t in model.state_dict().items() if name.startswith(OURS)}
    there = {n: t for n, t in wanted.items() if n in tensors or n not in fresh}
    return _misfits(there, tensors)


def _misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Describe in what two sets of tensors differ but for their values."""
    shapes = ({name: tuple(t.shape) for name, t in each.items()} for each in (wanted, found))
    return shape_mismatches(*shapes)


Shapes = Mapping[str, tuple[int, ...]]


def shape_mismatches(wanted: Shapes, found: Shapes) -> list[str]:
    """Describe in what two sets of names with shapes differ."""
    problems = _listed("missing", wanted.keys() - found.keys())
    problems += _listed("unexpected", found.keys() - wanted.keys())
    return problems + [
        f"{name} is {list(found[name])} in the file, {list(wanted[name])} in the model"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
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
