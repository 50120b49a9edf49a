"""Read checkpoints: which of a run's are whole, and which is the newest of them.

``checkpoints/step-00001000/{model.safetensors, optimizer.safetensors, state.json}``. state.json
holds the sha256 of both files and, under ``digest``, one of itself: a folder that does not match
is damaged, and never resumed from. A file that the system cannot read just now (EIO, too many open
files), or a checkpoint in another maekit's format, is not damage: it ends whatever wanted it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maekit.errors import StorageError, WeightsError
from maekit.weights.safetensors_io import sha256

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FILES = (MODEL, OPTIMIZER)
NAME = re.compile(r"step-(\d{8,})")
# What the system answers where something else than a readable file is in the place.
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class OtherFormatError(WeightsError):
    """A checkpoint was written by a maekit with another format (exit 3)."""


class Record(BaseModel):
    """Contents of state.json."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int
    step: int = Field(ge=0)
    visited: int = Field(ge=-1)
    streak: int = Field(ge=0)
    scaler: dict[str, Any] | None
    extra: dict[str, Any]
    sha256: dict[str, str]
    digest: str | None = None  # of all the others; the first checkpoints had none

    def text(self) -> str:
        """Return state.json, with the digest of what it holds."""
        content = self.model_dump(exclude={"digest"})
        return json.dumps(content | {"digest": digest_of(content)}, indent=1)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the sha256 of JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CheckpointOnDisk:
    """A verified checkpoint on disk."""

    folder: Path
    record: Record

    @property
    def step(self) -> int:
        """Number of finished updates."""
        return self.record.step

    @property
    def weights(self) -> Path:
        """The model's file."""
        return self.folder / MODEL


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a folder, and newer ones that are damaged."""

    newest: CheckpointOnDisk | None = None
    damaged: Sequence[WeightsError] = ()
    folders: Sequence[Path] = field(default=())  # of the damaged ones

    @property
    def notes(self) -> list[str]:
        """What was passed over, in words."""
        return [f"skipped a damaged checkpoint: {each.where}: {each.what}" for each in self.damaged]


def checkpoints_in(folder: Path) -> list[Path]:
    """Return everything that is named as a checkpoint, oldest first."""
    steps = [(NAME.fullmatch(each.name), each) for each in folder.glob("step-*")]
    return [path for _, path in sorted((int(name[1]), path) for name, path in steps if name)]


def newest_good(folder: Path, files: Sequence[str] = FILES) -> Found:
    """Find the newest checkpoint that is whole.

    Args:
        folder: the run's ``checkpoints``; it may be missing.
        files: which of a checkpoint's files must be whole.

    Raises:
        WeightsError: there are checkpoints and all are damaged, or one has another format.
        StorageError: the system cannot read one now.
    """
    damaged: list[WeightsError] = []
    folders: list[Path] = []
    for path in reversed(checkpoints_in(folder)):
        try:
            return Found(read_checkpoint(path, files), damaged, folders)
        except OtherFormatError:
            raise
        except WeightsError as error:
            damaged.append(error)
            folders.append(path)
    if damaged:
        msg = f"none of the {len(damaged)} checkpoints is whole: " + "; ".join(
            f"{Path(str(error.where)).name}: {error.what}" for error in damaged
        )
        hint = "copy them again if there is another copy; to start anew, give another --out"
        raise WeightsError(msg, where=str(folder), hint=hint)
    return Found()


def read_checkpoint(folder: Path, files: Sequence[str] = FILES) -> CheckpointOnDisk:
    """Read state.json, and check it and the files against the digests that it holds.

    Raises:
        OtherFormatError: another maekit's format.
        WeightsError: anything is missing or differs: it is damaged.
        StorageError: the system cannot read it now.
    """
    if folder.is_symlink():
        raise WeightsError("this is a link, not a checkpoint's folder", where=str(folder))
    try:
        for name in (STATE, *files):  # to open a named pipe would be to wait
            if not (folder / name).is_file():
                raise WeightsError(f"{name} is missing or no file", where=str(folder))
        record = _record(folder)
        for name in files:
            if sha256(folder / name) != record.sha256.get(name):
                msg = f"{name} does not match its checksum"
                raise WeightsError(msg, where=str(folder))
    except OSError as error:
        if error.errno in _NOT_THERE:
            name = Path(str(error.filename)).name
            msg = f"{name} is missing or no file ({error.strerror})"
            raise WeightsError(msg, where=str(folder)) from error
        msg = f"a checkpoint cannot be read now: {error.strerror or error}"
        hint = "nothing was changed; try again once the disk answers, with --resume"
        raise StorageError(msg, where=str(error.filename or folder), hint=hint) from error
    return CheckpointOnDisk(folder, record)


def _record(folder: Path) -> Record:
    name = NAME.fullmatch(folder.name)
    content = (folder / STATE).read_bytes()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{STATE} is not JSON: {error}", where=str(folder)) from error
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, int) and found != FORMAT:
        msg = f"checkpoint format {found}, this maekit reads {FORMAT}"
        raise OtherFormatError(msg, where=str(folder), hint="resume with the maekit that wrote it")
    try:
        record = Record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or STATE
        raise WeightsError(f"{STATE}: {key}: {first['msg']}", where=str(folder)) from error
    written = {key: value for key, value in values.items() if key != "digest"}
    if record.digest is not None and digest_of(written) != record.digest:
        raise WeightsError(f"{STATE} does not match its own checksum", where=str(folder))
    if name is not None and int(name[1]) != record.step:
        msg = f"{STATE} is of step {record.step}, the folder of step {int(name[1])}"
        raise WeightsError(msg, where=str(folder))
    return record
