"""Checkpoint writing on a disk that fails, and in a process that ends, at every operation."""

from __future__ import annotations

import copy
import errno
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from maekit.engine.checkpoint import Checkpoints, restore
from maekit.engine.loop import TrainState
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.errors import StorageError
from maekit.weights.checkpoints import newest_good, read_checkpoint

from checkpoints import Fault, Killed, faulty  # isort: skip

ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE)
KINDS = [*(Fault(0, number) for number in ERRORS), Fault(0), Fault(0, after=True)]


@dataclass(frozen=True)
class Scene:
    """Where a save happens.

    Attributes:
        keep: how many checkpoints stay.
        best: the best measurement is that of the step that is saved, or an earlier one.
        measured: the step was saved before, and is saved again with what was measured at it.
        resumed: by a new process, with a damaged later checkpoint left behind.
    """

    keep: int
    best: int | None = None
    measured: bool = False
    resumed: bool = False


SCENES = {
    "keep 1": Scene(1),
    "keep 2": Scene(2),
    "keep 1, the new one is the best": Scene(1, best=3),
    "keep 1, an old one is the best": Scene(1, best=1),
    "keep 2, saved again with what was measured": Scene(2, best=3, measured=True),
    "resumed": Scene(1, best=1, resumed=True),
}


@pytest.fixture(autouse=True)
def _memory_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave waiting for the disk to a real one; that it is waited for is counted all the same."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def make_state(step: int, best: int | None) -> TrainState:
    torch.manual_seed(step)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.05), lr=0.01)
    state = TrainState(model, optimizer, Schedule(10, 0, 0.01, 0.0), 8, 5.0, step=step)
    if best is not None:
        state.extra["best"] = {"step": best}
    return state


def save(checkpoints: Checkpoints, state: TrainState) -> None:
    checkpoints.save(state, state.model.state_dict(), None)


def begun(folder: Path, scene: Scene) -> Checkpoints:
    """Write the checkpoints of a scene's beginning."""
    checkpoints = Checkpoints(folder, scene.keep)
    for step in (1, 2):
        save(checkpoints, make_state(step, 1 if scene.best else None))
    if scene.measured:
        save(checkpoints, make_state(3, 1))
    if scene.resumed:
        (folder / "step-00000003").mkdir()
        (folder / "step-00000003" / "state.json").write_text("{")
    return checkpoints


def prepared(template: Checkpoints, folder: Path, scene: Scene) -> Callable[[], None]:
    """Copy a scene's beginning; returns the save that may fail."""
    shutil.copytree(template.folder, folder)
    checkpoints = copy.copy(template)
    checkpoints.folder = folder
    if scene.resumed:
        checkpoints = Checkpoints(folder, scene.keep)
        checkpoints.open()
    return lambda: save(checkpoints, make_state(3, scene.best))


def check(folder: Path, scene: Scene) -> None:
    """Resume as a new process does: there is a checkpoint, the best is there, all goes on."""
    found = newest_good(folder)
    assert found.newest is not None
    assert found.newest.step in {2, 3}
    checkpoints = Checkpoints(folder, scene.keep)
    loaded = checkpoints.open()
    assert loaded == found.newest
    state = make_state(0, None)
    state.model.load_state_dict(restore(state, loaded))
    assert state.model.weight.equal(make_state(loaded.step, None).model.weight)
    best = loaded.record.extra.get("best")
    if best is not None:
        name = f"step-{best['step']:08d}"
        assert (folder / "best").read_text() == name
        assert read_checkpoint(folder / name).step == best["step"]
    state.step = 4
    save(checkpoints, state)
    names = {"last", "step-00000004"} | {f"step-{4 - n:08d}" for n in range(1, scene.keep)}
    if best is not None:
        names |= {"best", f"step-{best['step']:08d}"}
    there = {path.name for path in folder.iterdir()}
    assert there <= names | {"step-00000002"}  # where step 3 never came
    assert there >= {"last", "step-00000004"}
    assert len([name for name in there if name.startswith("step-")]) <= scene.keep + 1
    inner = {path.name for step in folder.glob("step-*") for path in step.iterdir()}
    assert inner == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert (folder / "last").read_text() == "step-00000004"


def saves(folder: Path, scene: Scene) -> tuple[Checkpoints, int]:
    """Return the beginning of a scene, and the number of its save's operations."""
    template = begun(folder / "begun", scene)
    whole = prepared(template, folder / "whole", scene)
    with faulty(counted := Fault(0)):
        whole()
    check(folder / "whole", scene)
    assert counted.count > 10
    return template, counted.count


def fail_everywhere(folder: Path, scene: Scene, kinds: Sequence[Fault]) -> None:
    """Let each operation of a save fail in each way, and resume."""
    template, count = saves(folder, scene)
    for number, kind in enumerate(kinds):
        for at in range(1, count + 1):
            case = folder / f"{number}-{at}"
            saving = prepared(template, case, scene)
            fault = replace(kind, at=at)
            with faulty(fault), suppress(StorageError, Killed):
                saving()
            try:
                check(case, scene)
            except Exception as error:
                error.add_note(f"{fault}")
                raise


@pytest.mark.parametrize("name", ["keep 1, an old one is the best", "resumed"])
def test_one_failure_never_costs_the_last_checkpoint(tmp_path: Path, name: str) -> None:
    fail_everywhere(tmp_path, SCENES[name], KINDS[:1] + KINDS[-1:])


@pytest.mark.nightly
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_no_failure_ever_costs_the_last_checkpoint(tmp_path: Path, scene: Scene) -> None:
    fail_everywhere(tmp_path, scene, KINDS)


def test_the_same_process_goes_on_after_a_failure(tmp_path: Path) -> None:
    scene = Scene(2, best=1)
    template, count = saves(tmp_path, scene)
    for at in range(1, count + 1):
        folder = tmp_path / str(at)
        saving = prepared(template, folder, scene)
        with faulty(Fault(at, errno.EIO)), suppress(StorageError):
            saving()
        saving()
        check(folder, scene)
