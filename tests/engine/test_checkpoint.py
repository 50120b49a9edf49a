"""Checkpoints: exact, whole or absent, verified."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maekit.engine import checkpoint
from maekit.engine.checkpoint import Checkpoints, restore
from maekit.engine.loop import TrainState
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.errors import StorageError, WeightsError


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
    found, notes = folder.newest_good()
    assert found is not None
    assert not notes
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
    found, notes = folder.newest_good()
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in notes[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_checkpoint_never_outlives_a_new_one(tmp_path: Path, keep: int) -> None:
    """A run that resumed before it saves at an earlier step."""
    folder, state = Checkpoints(tmp_path, keep), make_state()
    train(state, 9)
    (save(folder, state) / "model.safetensors").write_bytes(b"junk")
    state.step = 5
    assert save(folder, state).is_dir()
    assert (tmp_path / "last").read_text() == "step-00000005"
    found, notes = folder.newest_good()
    assert found is not None
    assert found.step == 5
    assert not notes


def test_saving_a_step_again_keeps_what_is_whole_and_mends_what_is_not(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, 1), make_state()
    train(state, 1)
    file = save(folder, state) / "model.safetensors"
    before = file.stat().st_mtime_ns
    save(folder, state)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(b"junk")
    save(folder, state)
    assert folder.newest_good()[0] is not None


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": 1, "sha256": {}}'])
def test_a_senseless_state_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    folder, state = Checkpoints(tmp_path, 1), make_state()
    (save(folder, state) / "state.json").write_text(text)
    found, notes = folder.newest_good()
    assert found is None
    assert len(notes) == 1


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, 1)
    (tmp_path / ".partial-step-00000009-1").mkdir()
    folder.sweep()
    assert not list(tmp_path.iterdir())


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", keep=1).newest_good() == (None, [])


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
    found, _ = folder.newest_good()
    assert found is not None
    assert found.step == 1


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """As a kill leaves it: the temporary name was never renamed."""
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    final = save(folder, state)
    final.rename(tmp_path / ".partial-step-00000009-1")
    assert folder.newest_good()[0] is None


def test_a_missing_moment_is_named(tmp_path: Path) -> None:
    folder, state = Checkpoints(tmp_path, keep=1), make_state()
    train(state, 1)
    tensors = checkpoint.optimizer_tensors(state)
    del tensors["exp_avg_sq/0.weight"]
    with pytest.raises(WeightsError, match=r"0\.weight lacks exp_avg_sq"):
        checkpoint.load_optimizer(make_state(), tensors)
    record = json.loads((save(folder, state) / "state.json").read_text())
    assert record["step"] == 1
