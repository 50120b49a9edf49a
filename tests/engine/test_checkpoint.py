"""Checkpoints: exact, whole or absent, verified."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from maekit.engine import checkpoint
from maekit.engine.checkpoint import Checkpoints, restore
from maekit.engine.loop import TrainState
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.errors import StorageError, WeightsError
from maekit.weights import checkpoints
from maekit.weights.checkpoints import Found, newest_good
from maekit.weights.safetensors_io import sha256


def make_state(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    groups = parameter_groups(model.named_parameters(), 0.05)
    optimizer = torch.optim.AdamW(groups, lr=0.01, fused=True)
    return TrainState(model, optimizer, Schedule(10, 0, 0.01, 0.0), 8, 5.0)


def train(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        state.optimizer.zero_grad()
        noise = torch.randn(8, 3)  # from torch's global generator, which must come back too
        state.model(noise).square().sum().backward()
        state.optimizer.step()
        state.step += 1


def save(folder: Checkpoints, state: TrainState) -> Path:
    return folder.save(state, state.model.state_dict(), None)


def test_restoring_continues_bit_for_bit(tmp_path: Path) -> None:
    straight = make_state()
    train(straight, 3)
    folder = Checkpoints(tmp_path, keep=2)
    save(folder, straight)
    train(straight, 4)

    resumed = make_state(seed=9)
    found = folder.open()
    assert found is not None
    resumed.model.load_state_dict(restore(resumed, found))
    assert resumed.step == 3
    train(resumed, 4)
    for ours, theirs in zip(resumed.trained(), straight.trained(), strict=True):
        assert torch.equal(ours, theirs)


def test_keeps_the_newest_and_points_to_the_last(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(4):
        train(state, 1)
        save(folder, state)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "last", "step-00000003", "step-00000004",
    ]  # fmt: skip
    assert (tmp_path / "last").read_text() == "step-00000004"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path, name: str, damage: str
) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    train(state, 1)
    save(folder, state)
    train(state, 1)
    file = save(folder, state) / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 0xFF
        file.write_bytes(content[:middle] if damage == "cut" else content)
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 1
    assert "step-00000002" in found.notes[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_checkpoint_never_outlives_a_new_one(tmp_path: Path, keep: int) -> None:
    """A run that resumed before it saves at an earlier step."""
    folder, state = Checkpoints(tmp_path, keep), make_state()
    train(state, 4)
    save(folder, state)
    train(state, 5)
    shutil.copytree(tmp_path / "step-00000004", tmp_path / "kept")
    (save(folder, state) / "model.safetensors").write_bytes(b"junk")
    if keep == 1:
        shutil.copytree(tmp_path / "kept", tmp_path / "step-00000004")
    folder, state = Checkpoints(tmp_path, keep), make_state()
    loaded = folder.open()
    assert loaded is not None
    restore(state, loaded)
    assert (tmp_path / "step-00000009").is_dir()  # until there is a new one
    train(state, 1)
    assert save(folder, state).is_dir()
    assert (tmp_path / "last").read_text() == "step-00000005"
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 5
    assert not found.damaged
    assert not (tmp_path / "step-00000009").exists()


def test_saving_a_step_again_writes_its_state_anew(tmp_path: Path) -> None:
    """A signal saved it before it was measured at; what was measured then comes with it."""
    folder, state = Checkpoints(tmp_path, 1), make_state()
    train(state, 1)
    file = save(folder, state) / "model.safetensors"
    before = file.stat().st_mtime_ns
    state.extra["best"] = {"step": 1, "top1": 0.5}
    state.last_evaluated = 1
    folder = Checkpoints(tmp_path, 1)
    folder.open()
    save(folder, state)
    assert file.stat().st_mtime_ns == before
    found = newest_good(tmp_path).newest
    assert found is not None
    assert (found.record.visited, found.record.extra["best"]["top1"]) == (1, 0.5)
    assert (tmp_path / "best").read_text() == "step-00000001"


def test_the_best_is_kept_and_named_whatever_a_kill_left_undone(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    for best in (1, 2, 2, 2):
        train(state, 1)
        state.extra["best"] = {"step": best}
        save(folder, state)
    assert (tmp_path / "best").read_text() == "step-00000002"
    assert (tmp_path / "step-00000002").is_dir()
    (tmp_path / "best").write_text("step-00000001")  # a kill before the pointers were written
    (tmp_path / "last").write_bytes(b"\xff\xfe")
    folder = Checkpoints(tmp_path, keep=1)
    folder.open()
    assert (tmp_path / "best").read_text() == "step-00000002"
    assert (tmp_path / "last").read_text() == "step-00000004"
    train(state, 1)
    save(folder, state)
    assert sorted(each.name for each in tmp_path.glob("step-*")) == [
        "step-00000002", "step-00000005",
    ]  # fmt: skip


def test_the_last_before_updates_were_skipped_is_kept(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    for streak in (0, 0, 1, 2, 3):
        train(state, 1)
        state.nonfinite_streak = torch.tensor(float(streak))
        save(folder, state)
    names = ["step-00000002", "step-00000005"]
    assert sorted(each.name for each in tmp_path.glob("step-*")) == names
    folder = Checkpoints(tmp_path, keep=1)
    folder.open()
    train(state, 1)
    save(folder, state)
    assert (tmp_path / "step-00000002").is_dir()


def test_one_from_before_the_update_that_diverged_is_kept(tmp_path: Path) -> None:
    """The last finite update may be what made the next ones infinite: step 2's is not enough."""
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for streak in (0, 0, 1, 2, 3):
        train(state, 1)
        state.nonfinite_streak = torch.tensor(float(streak))
        save(folder, state)
    assert [each.name for each in folder.from_before(2)] == ["step-00000001", "step-00000002"]
    state.nonfinite_streak = torch.tensor(0.0)
    for _ in range(2):
        train(state, 1)
        save(folder, state)
    names = [each.name for each in checkpoints.checkpoints_in(tmp_path)]
    assert names == ["step-00000006", "step-00000007"]
    assert [each.name for each in folder.from_before(7)] == names
    assert folder.from_before(5) == []


@pytest.mark.parametrize("pointer", ["best", "last"])
def test_a_folder_in_a_pointers_place_is_put_aside(tmp_path: Path, pointer: str) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    (tmp_path / pointer).mkdir()
    state.extra["best"] = {"step": 0}
    save(folder, state)
    assert (tmp_path / pointer).read_text() == "step-00000000"
    assert (tmp_path / f"{pointer}.aside").is_dir()


def test_a_passing_read_error_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(2):
        train(state, 1)
        save(folder, state)

    def broken(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(checkpoints, "sha256", broken)
    with pytest.raises(StorageError, match="cannot be read now"):
        Checkpoints(tmp_path, keep=2).open()
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_another_maekits_format_is_no_damage(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(2):
        train(state, 1)
        last = save(folder, state)
    record = json.loads((last / "state.json").read_text())
    (last / "state.json").write_text(json.dumps(record | {"format": 2, "new": [1]}))
    with pytest.raises(WeightsError, match="checkpoint format 2"):
        Checkpoints(tmp_path, keep=2).open()


@pytest.mark.parametrize(
    "change",
    [
        {"step": 100}, {"step": "six"}, {"step": True}, {"visited": None}, {"extra": None},
        {"streak": -1}, {"extra": {"train_samples": 1}}, {"scaler": []}, {"sha256": 3},
    ],
)  # fmt: skip
def test_an_edited_state_is_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(2):
        train(state, 1)
        last = save(folder, state)
    record = json.loads((last / "state.json").read_text())
    (last / "state.json").write_text(json.dumps(record | change))
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 1
    assert len(found.damaged) == 1


@pytest.mark.parametrize("name", [*checkpoints.FILES, checkpoints.STATE])
@pytest.mark.parametrize("what", ["pipe", "folder", "loop", "/dev/zero"])
def test_what_is_no_file_is_damage_and_never_waited_for(
    tmp_path: Path, name: str, what: str
) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(2):
        train(state, 1)
        path = save(folder, state) / name
    path.unlink()
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(name if what == "loop" else what)
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 1
    assert name in found.notes[0]


@pytest.mark.parametrize("change", [
    {"rng/cpu": None},
    {"rng/cpu": torch.zeros(3)},
    {"exp_avg/0.weight": torch.zeros(2, 3, 5)},
    {"exp_avg/0.weight": torch.zeros(1)},
    {"exp_avg/0.weight": None},
])  # fmt: skip
def test_another_optimizers_state_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None]
) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    path = save(folder, state)
    tensors = {**load_file(path / checkpoints.OPTIMIZER), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, path / checkpoints.OPTIMIZER)
    content = json.loads((path / checkpoints.STATE).read_text())
    content["sha256"][checkpoints.OPTIMIZER] = sha256(path / checkpoints.OPTIMIZER)
    content.pop("digest")
    content["digest"] = checkpoints.digest_of(content)
    (path / checkpoints.STATE).write_text(json.dumps(content))
    found = folder.open()
    assert found is not None
    with pytest.raises(WeightsError):
        restore(make_state(seed=9), found)


def test_a_file_or_a_link_is_no_checkpoint(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    train(state, 1)
    save(folder, state)
    (tmp_path / "step-00000002").write_text("a file")
    (tmp_path / "step-00000003").symlink_to("step-00000001")
    (tmp_path / "step-of-mine").mkdir()
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 1
    assert len(found.notes) == 2
    train(state, 4)
    save(folder, state)
    assert newest_good(tmp_path).newest is not None


def test_where_all_are_damaged_nothing_is_lost(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=2), make_state()
    for _ in range(2):
        train(state, 1)
        (save(folder, state) / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="none of the 2 checkpoints is whole"):
        Checkpoints(tmp_path, keep=2).open()
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_a_disk_that_drops_a_write_costs_no_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    save(folder, state)
    train(state, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_text", lambda path, text: path.touch())
        with pytest.raises(StorageError, match="could not be written"):
            save(folder, state)
    found = newest_good(tmp_path)
    assert found.newest is not None
    assert found.newest.step == 1


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": 1, "sha256": {}}'])
def test_a_senseless_state_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    folder, state = Checkpoints(tmp_path, 1), make_state()
    (save(folder, state) / "state.json").write_text(text)
    with pytest.raises(WeightsError, match="none of the 1 checkpoints"):
        newest_good(tmp_path)


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, 1)
    (tmp_path / ".partial-step-00000009-1").mkdir()
    assert folder.open() is None
    assert not list(tmp_path.iterdir())
    draft = save(folder, make_state()) / ".partial-state.json-1"
    draft.touch()
    assert folder.open() is not None
    assert not draft.exists()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_good(tmp_path / "absent") == Found()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    save(folder, state)
    train(state, 1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_weights", full)
    with pytest.raises(StorageError, match="No space left"):
        save(folder, state)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["last", "step-00000001"]
    found = newest_good(tmp_path).newest
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_run_folder_that_is_gone_is_not_made_anew(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder, state = Checkpoints(run / "checkpoints", keep=1), make_state()
    train(state, 1)
    save(folder, state)
    if how == "removed":
        shutil.rmtree(run)
    else:
        run.rename(tmp_path / "other")
    train(state, 1)
    with pytest.raises(StorageError, match="the run folder is gone"):
        save(folder, state)
    assert not run.exists()


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """As a kill leaves it: the temporary name was never renamed."""
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    final = save(folder, state)
    final.rename(tmp_path / ".partial-step-00000009-1")
    assert newest_good(tmp_path).newest is None


def test_a_missing_moment_is_named(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    tensors = checkpoint.optimizer_tensors(state)
    del tensors["exp_avg_sq/0.weight"]
    with pytest.raises(WeightsError, match=r"0\.weight lacks exp_avg_sq"):
        checkpoint.load_optimizer(make_state(), tensors)
    record = json.loads((save(folder, state) / "state.json").read_text())
    assert record["step"] == 1
