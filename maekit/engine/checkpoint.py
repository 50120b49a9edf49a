"""Write checkpoints, whole or not at all, and put a training back to where one was written.

Besides the folders that ``maekit.weights.checkpoints`` reads, ``checkpoints`` holds the text
pointers ``last`` and, where a verb knows which is better, ``best``. They say what state.json says,
for people and other tools: they are written anew at every save and at every resume.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maekit.atomic import make_folder_atomically, remove_folder, sweep, write_text
from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.engine.run_folder import GONE, make_way
from maekit.errors import OUT_OF_MEMORY, StorageError, WeightsError, code_of
from maekit.weights.checkpoints import (
    FORMAT,
    MODEL,
    OPTIMIZER,
    STATE,
    CheckpointOnDisk,
    Record,
    checkpoints_in,
    newest_good,
    read_checkpoint,
)
from maekit.weights.safetensors_io import read_tensors, write_weights

if TYPE_CHECKING:
    from maekit.engine.loop import TrainState
    from maekit.weights.header import FileHeader

LAST, BEST = "last", "best"
RANDOM = "rng"  # before torch's random states, among the optimizer's tensors


class Checkpoints:
    """The ``checkpoints`` folder of a run, whose lock is held.

    Args:
        folder: made with the first checkpoint.
        keep: how many stay. The best one stays besides these, and once updates are not finite
            any more the newest from before.
        emit: called with a note of what could not be removed.
    """

    def __init__(self, folder: Path, keep: int, emit: Emit = lambda _: None) -> None:
        self.folder = folder
        self.keep = keep
        self.emit = emit
        self._current: str | None = None  # holds the weights of the training as it is
        self._damaged: list[Path] = []

    def open(self) -> CheckpointOnDisk | None:
        """Sweep what a killed process left, and return the newest checkpoint that is whole.

        Raises:
            WeightsError: all are damaged, or one has another maekit's format.
            StorageError: the system cannot read one now, or nothing can be written.
        """
        for folder in (self.folder, *checkpoints_in(self.folder)):
            sweep(folder)
        found = newest_good(self.folder)
        for note in found.notes:
            self.emit(Note(note, warning=True))
        self._damaged = list(found.folders)
        if found.newest is not None:
            self._current = found.newest.folder.name
            self._point(found.newest.record)
            self._rotate(found.newest.record, damaged=False)
        return found.newest

    def save(
        self,
        state: TrainState,
        tensors: Mapping[str, Tensor],
        header: FileHeader | None,
        optimizer: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Write the state as a new checkpoint, then drop the oldest beyond ``keep``.

        A step that has been saved already (by an interruption, before it was measured at) gets the
        newer state.json. The checkpoint that was the best so far stays beside these.

        Args:
            state: what is saved.
            tensors: of the model, whole.
            header: of the weights.
            optimizer: what ``optimizer_tensors`` returns, whole; default: the state's as they are.

        Raises:
            StorageError: the disk is full or not writable; older checkpoints are untouched.
        """
        final = self.folder / _name_of(state.step)
        if not self.folder.parent.is_dir():  # never made anew: all else of the run was in it
            raise StorageError(GONE, where=str(self.folder.parent), hint="start anew")
        try:
            if self._current == final.name:
                record = _record_of(state, read_checkpoint(final).record.sha256)
                write_text(final / STATE, record.text())
            else:
                if final.exists() or final.is_symlink():
                    remove_folder(final)  # it is damaged, or this run would have begun there
                make_folder_atomically(
                    final, lambda draft: write_state(draft, state, tensors, header, optimizer)
                )
            # The older ones are still there, should the disk not hold what it said it wrote.
            record = read_checkpoint(final).record
            self._current = final.name
            self._point(record)
        except (OSError, WeightsError) as error:
            msg = f"the checkpoint could not be written: {error}"
            hint = "free space or check the folder's permissions, then --resume"
            raise StorageError(msg, where=str(final), hint=hint) from error
        self._rotate(record, damaged=True)
        return final

    def from_before(self, finite: int) -> list[Path]:
        """Return the newest checkpoints from before updates stopped being finite.

        Args:
            finite: the last update that was finite.

        Returns:
            The newest from before that update, and one of that very step. The latter may hold what
            made the next ones infinite: it comes last.
        """
        there = [each for each in checkpoints_in(self.folder) if each not in self._damaged]
        earlier = [each for each in there if each.name < _name_of(finite)]
        return earlier[-1:] + [each for each in there if each.name == _name_of(finite)]

    def _point(self, record: Record) -> None:
        """Let the pointers say which checkpoint is the last and which the best."""
        names = {LAST: _name_of(record.step), BEST: _best_of(record)}
        for pointer, name in names.items():
            if name is None or not os.path.isdir(self.folder / name):  # noqa: PTH112 - of any length
                continue
            path = self.folder / pointer
            make_way(path)
            if not path.is_file() or path.is_symlink() or path.read_bytes() != name.encode():
                write_text(path, name)

    def _rotate(self, record: Record, *, damaged: bool) -> None:
        """Drop what is beyond ``keep``, and the damaged ones once there is a new checkpoint."""
        name = _name_of(record.step)
        there = [each for each in checkpoints_in(self.folder) if each not in self._damaged]
        earlier = [each for each in there if each.name < name]
        dropped = earlier[: max(0, len(earlier) - self.keep + 1)]
        kept = {_best_of(record)}
        if record.streak:
            kept |= {each.name for each in self.from_before(record.step - record.streak)}
        useless = self._damaged if damaged else []
        for old in [*useless, *(each for each in dropped if each.name not in kept)]:
            if old.name == name:
                continue
            try:
                remove_folder(old)
            except OSError as error:
                text = f"{old} could not be removed: {error.strerror or error}"
                self.emit(Note(text, warning=True))
        if damaged:
            self._damaged = []


def _name_of(step: int) -> str:
    return f"step-{step:08d}"


def _best_of(record: Record) -> str | None:
    """Return the checkpoint with the best measurement, where a verb keeps one."""
    best = record.extra.get("best")
    step = best.get("step") if isinstance(best, dict) else None
    return _name_of(step) if isinstance(step, int) else None


def _record_of(state: TrainState, digests: Mapping[str, str]) -> Record:
    return Record(
        format=FORMAT,
        step=state.step,
        visited=state.last_evaluated,
        streak=int(state.nonfinite_streak),
        scaler=state.scaler.state_dict() if state.scaler else None,
        extra=state.extra,
        sha256=dict(digests),
    )


def write_state(
    folder: Path,
    state: TrainState,
    tensors: Mapping[str, Tensor],
    header: FileHeader | None,
    optimizer: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the three files of a checkpoint into an existing folder."""
    moments = optimizer_tensors(state) if optimizer is None else optimizer
    digests = {
        MODEL: write_weights(folder / MODEL, tensors, header),
        OPTIMIZER: write_weights(folder / OPTIMIZER, moments),
    }
    write_text(folder / STATE, _record_of(state, digests).text())


def restore(state: TrainState, saved: CheckpointOnDisk) -> dict[str, Tensor]:
    """Put optimizer, counters and random states back; return the model's tensors to load.

    Raises:
        WeightsError: they are not those of such a training, though they match their checksums.
    """
    try:
        return _restore(state, saved)
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if code_of(error) == OUT_OF_MEMORY:
            raise
        msg = f"the state of the training cannot be put back: {type(error).__name__}: {error}"
        hint = "resume with the maekit that wrote it, or start anew from its weights with --from"
        raise WeightsError(msg, where=str(saved.folder), hint=hint) from error


def _restore(state: TrainState, saved: CheckpointOnDisk) -> dict[str, Tensor]:
    record = saved.record
    state.step, state.last_evaluated = record.step, record.visited
    state.nonfinite_streak = torch.tensor(float(record.streak))
    state.extra = dict(record.extra)
    if state.scaler and record.scaler:
        state.scaler.load_state_dict(record.scaler)
    load_optimizer(state, read_tensors(saved.folder / OPTIMIZER))
    return read_tensors(saved.folder / MODEL)


def random_states() -> dict[str, Tensor]:
    """Return torch's random states of this process."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """Return the optimizer's moments as ``exp_avg/NAME`` ..., and each rank's random states.

    Those are ``rng/cpu``, ``rng/cuda`` of rank 0, and ``rng/cpu/1`` ... of the others.
    """
    tensors = {
        _random_name(device, rank): value
        for rank, states in enumerate(state.random or [random_states()])
        for device, value in states.items()
    }
    for group in state.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for moment, value in state.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = value
    return tensors


def load_optimizer(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` returned; raise WeightsError if a moment is missing."""
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
    _restore_random(tensors)


def _random_name(device: str, rank: int) -> str:
    return f"{RANDOM}/{device}/{rank}" if rank else f"{RANDOM}/{device}"


def _restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Put this rank's random states back; one that the run did not have draws by itself.

    What a model draws (drop path, dropout) is the same again only with as many ranks as before.
    """
    rank = distributed.rank()
    own = tensors.get(_random_name("cpu", rank))
    if own is None:
        first = bytes(tensors[_random_name("cpu", 0)][:7].tolist())
        torch.manual_seed(distributed.seed_of_rank(int.from_bytes(first, "little")))
        return
    torch.set_rng_state(own)
    name = _random_name("cuda", rank)
    if name in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[name])


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """Return a moment on its parameter's device, laid out as it: AdamW's kernel expects both."""
    if moment.ndim == 0:  # a count of steps
        return moment.to(parameter.device, torch.float32)
    if moment.shape != parameter.shape:
        msg = f"a moment of shape {list(moment.shape)} for one of {list(parameter.shape)}"
        raise ValueError(msg)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)
