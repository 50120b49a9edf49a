"""Checkpoints: written whole or not at all, verified before they are trusted.

``checkpoints/step-00001000/{model.safetensors, optimizer.safetensors, state.json}`` and the text
pointers ``checkpoints/last`` and, where a verb knows which is better, ``checkpoints/best``.
state.json holds the sha256 of both files; a folder without it, or with another digest, is not a
checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maekit.atomic import make_folder_atomically, sweep, write_text
from maekit.errors import StorageError, WeightsError
from maekit.weights.safetensors_io import read_tensors, sha256, write_weights

if TYPE_CHECKING:
    from maekit.engine.loop import TrainState
    from maekit.weights.header import FileHeader

FORMAT = 1
BEST = "best"  # text pointer to the checkpoint with the best measurement
FILES = ("model.safetensors", "optimizer.safetensors")
RANDOM = "rng"  # before torch's random states, among the optimizer's tensors


@dataclass(frozen=True)
class CheckpointOnDisk:
    """A verified checkpoint on disk."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def weights(self) -> Path:
        return self.folder / FILES[0]


class Checkpoints:
    """The ``checkpoints`` folder of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(
        self,
        state: TrainState,
        tensors: Mapping[str, Tensor],
        header: FileHeader | None,
        *,
        best: bool = False,
    ) -> Path:
        """Write the state as a new checkpoint, then drop the oldest beyond ``keep``.

        The one that was saved as the best so far stays beside these. What stands at a later step
        goes too: it was damaged, or this run would have begun there.

        Raises:
            StorageError: the disk is full or not writable; older checkpoints are untouched.
        """
        final = self.folder / f"step-{state.step:08d}"
        if _is_good(final):  # interrupted again right after a resume: nothing is new
            return final

        def fill(draft: Path) -> None:
            write_state(draft, state, tensors, header)
            if final.exists():
                shutil.rmtree(final)  # it is damaged

        try:
            make_folder_atomically(final, fill)
            write_text(self.folder / "last", final.name)
            if best:
                write_text(self.folder / BEST, final.name)
        except OSError as error:
            msg = f"the checkpoint could not be written: {error}"
            hint = "free space or check the folder's permissions, then --resume"
            raise StorageError(msg, where=str(final), hint=hint) from error
        earlier = [each for each in self._all() if each.name < final.name]
        later = [each for each in self._all() if each.name > final.name]
        dropped = earlier[: max(0, len(earlier) - self.keep + 1)]
        for old in [*later, *(each for each in dropped if each.name != self.best)]:
            shutil.rmtree(old)
        return final

    def sweep(self) -> None:
        """Remove what killed processes left half written; the run's lock must be held."""
        sweep(self.folder)

    def newest_good(self) -> tuple[CheckpointOnDisk | None, list[str]]:
        """The newest checkpoint whose files are whole, and notes on newer ones that are not."""
        notes: list[str] = []
        for folder in reversed(self._all()):
            try:
                return CheckpointOnDisk(folder, verify(folder)), notes
            except WeightsError as error:
                notes.append(f"skipped a damaged checkpoint: {error.where}: {error.what}")
        return None, notes

    @property
    def best(self) -> str | None:
        """The name of the checkpoint that was saved as the best so far."""
        try:
            return (self.folder / BEST).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


def write_state(
    folder: Path, state: TrainState, tensors: Mapping[str, Tensor], header: FileHeader | None
) -> None:
    """The three files of a checkpoint, into an existing folder."""
    digests = {
        "model.safetensors": write_weights(folder / "model.safetensors", tensors, header),
        "optimizer.safetensors": write_weights(
            folder / "optimizer.safetensors", optimizer_tensors(state)
        ),
    }
    record = {
        "format": FORMAT,
        "step": state.step,
        "visited": state.last_evaluated,
        "streak": int(state.nonfinite_streak),
        "scaler": state.scaler.state_dict() if state.scaler else None,
        "extra": state.extra,
        "sha256": digests,
    }
    write_text(folder / "state.json", json.dumps(record, indent=1))


def verify(folder: Path) -> dict[str, Any]:
    """Read state.json and check both files against it; raises WeightsError if anything is off."""
    try:
        record: dict[str, Any] = json.loads((folder / "state.json").read_text())
        for name in FILES:
            if sha256(folder / name) != record["sha256"][name]:
                msg = f"{name} does not match its checksum"
                raise WeightsError(msg, where=str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"state.json or what it names cannot be read: {error!r}"
        raise WeightsError(msg, where=str(folder)) from error
    if record.get("format") != FORMAT:
        msg = f"checkpoint format {record.get('format')}, this maekit reads {FORMAT}"
        raise WeightsError(msg, where=str(folder), hint="resume with the maekit that wrote it")
    return record


def _is_good(folder: Path) -> bool:
    try:
        verify(folder)
    except WeightsError:
        return False
    return True


def restore(state: TrainState, checkpoint: CheckpointOnDisk) -> dict[str, Tensor]:
    """Put optimizer, counters and random states back; returns the model's tensors to load."""
    record = checkpoint.state
    state.step, state.last_evaluated = int(record["step"]), int(record["visited"])
    state.nonfinite_streak = torch.tensor(float(record["streak"]))
    state.extra = dict(record["extra"])
    if state.scaler and record["scaler"]:
        state.scaler.load_state_dict(record["scaler"])
    load_optimizer(state, read_tensors(checkpoint.folder / "optimizer.safetensors"))
    return read_tensors(checkpoint.folder / "model.safetensors")


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """The optimizer's moments as ``exp_avg/NAME`` ..., and torch's random states."""
    tensors = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    for group in state.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for moment, value in state.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = value
    return tensors


def load_optimizer(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``; raises WeightsError if a moment is missing."""
    moments = sorted({name.partition("/")[0] for name in tensors} - {RANDOM})
    for group in state.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            found = {
                moment: tensors[f"{moment}/{name}"]
                for moment in moments
                if f"{moment}/{name}" in tensors
            }
            if not found:  # saved before the first update, or this one never had a gradient
                continue
            if len(found) != len(moments):
                missing = sorted(set(moments) - set(found))
                msg = f"optimizer state of {name} lacks {', '.join(missing)}"
                raise WeightsError(msg)
            state.optimizer.state[parameter] = {
                moment: _laid_out_as(parameter, value) for moment, value in found.items()
            }
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """A moment on its parameter's device, in its order in memory: AdamW's kernel expects both."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)
