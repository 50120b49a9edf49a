"""Run folders: numbering, locks, what may be overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maekit.engine.lock import LOCK
from maekit.engine.run_folder import (
    WRITTEN,
    RunFolder,
    chosen_folder,
    loss_summary,
    new_folder,
    read_lines,
    unfinished_runs,
)
from maekit.errors import RecipeError, StorageError
from maekit.runs import verb_of


def test_runs_are_numbered_and_never_shared(tmp_path: Path) -> None:
    assert [new_folder(tmp_path, "r").name for _ in range(3)] == ["1", "2", "3"]
    (tmp_path / "r" / "10").mkdir()
    (tmp_path / "r" / "notes").mkdir()
    assert new_folder(tmp_path, "r").name == "11"


def test_a_filled_folder_needs_a_word(tmp_path: Path) -> None:
    assert chosen_folder(tmp_path / "new", resume=False, overwrite=False) == tmp_path / "new"
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecipeError, match="not empty"):
        chosen_folder(tmp_path, resume=False, overwrite=False)
    with pytest.raises(RecipeError, match="not a maekit run"):
        chosen_folder(tmp_path, resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
    assert chosen_folder(tmp_path, resume=True, overwrite=False) == tmp_path


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_no_file_is_put_aside(tmp_path: Path, what: str) -> None:
    for name in WRITTEN:
        if what == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).mkdir()
    with RunFolder(tmp_path) as run:
        run.write_result({"exit": 0})
    assert json.loads((tmp_path / "result.json").read_text()) == {"exit": 0}
    assert sorted(each.name for each in tmp_path.glob("*.aside")) == [f"{n}.aside" for n in WRITTEN]


def test_a_lock_that_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(StorageError, match="not a file"), RunFolder(tmp_path):
        pass


def test_losses_that_are_no_numbers_are_left_out() -> None:
    lines = [{"loss": each} for each in ([1], "x", None, True, 10**400, 3.0, 1)]
    assert loss_summary(lines) == {"loss_first": 3.0, "loss_last": 1.0}


def test_what_a_kill_at_the_start_left_fills_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (LOCK, ".partial-recipe.yaml-0123456789ab"):
        (tmp_path / "run" / name).touch()
        assert chosen_folder(tmp_path / "run", resume=False, overwrite=False).is_dir()
    (tmp_path / "run/recipe.yaml").touch()
    with pytest.raises(RecipeError, match="not empty"):
        chosen_folder(tmp_path / "run", resume=False, overwrite=False)


def test_overwrite_puts_a_run_of_ours_aside(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("name: r\n")
    for kept in ("run.overwritten", "run.overwritten.1"):
        assert chosen_folder(out, resume=False, overwrite=True) == out
        assert not out.exists()
        assert (tmp_path / kept / "recipe.yaml").exists()
        out.mkdir()
        (out / "recipe.yaml").write_text("name: r\n")


LIVE = """
import sys
from pathlib import Path
from maekit.engine.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_live_run_is_not_touched_and_a_killed_one_is_free(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("name: r\n")
    command = [sys.executable, "-c", LIVE, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as live:
        assert live.stdout is not None
        assert live.stdout.readline() == "locked\n"
        with pytest.raises(StorageError, match=f"pid {live.pid}"), RunFolder(out):
            pass
        with pytest.raises(StorageError, match="in use"):
            chosen_folder(out, resume=False, overwrite=True)
        assert (out / "recipe.yaml").exists()
        live.kill()
    with RunFolder(out):
        pass


def test_the_newest_unfinished_run_of_the_verb(tmp_path: Path) -> None:
    for number, result in enumerate([{"exit": 75}, {"exit": 0}, None, {"exit": 0}], start=1):
        folder = tmp_path / "r" / str(number)
        folder.mkdir(parents=True)
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result | {"verb": "pretrain"}))
    assert next(unfinished_runs("r", "pretrain", tmp_path), None) == tmp_path / "r" / "3"
    (tmp_path / "r" / "3" / "result.json").write_text('{"exit": 0, "verb": "pretrain"}')
    assert next(unfinished_runs("r", "pretrain", tmp_path), None) == tmp_path / "r" / "1"
    assert next(unfinished_runs("other", "pretrain", tmp_path), None) is None


def test_a_killed_run_is_of_the_verb_that_it_began_as(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "r")
    assert verb_of(folder) is None
    RunFolder(folder).write_env("tokenizer", "cpu")
    assert verb_of(folder) == "tokenizer"
    assert next(unfinished_runs("r", "pretrain", tmp_path), None) is None
    assert next(unfinished_runs("r", "tokenizer", tmp_path), None) == folder
    (folder / "result.json").write_text("[]")
    assert verb_of(folder) == "tokenizer"


def test_a_run_that_a_process_holds_is_not_resumed(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "r" / str(number)).mkdir(parents=True)
    command = [sys.executable, "-c", LIVE, str(tmp_path / "r" / "2")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as live:
        assert live.stdout is not None
        assert live.stdout.readline() == "locked\n"
        assert next(unfinished_runs("r", "pretrain", tmp_path), None) == tmp_path / "r" / "1"
        live.kill()
    assert next(unfinished_runs("r", "pretrain", tmp_path), None) == tmp_path / "r" / "2"
    assert not (tmp_path / "r" / "1" / "lock").exists()


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": step / 3} for step in range(1, 8)]
    lines.insert(5, {"step": 5, "holdout": {"hidden_mse": 0.1}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 8, "lo')
    RunFolder(tmp_path).trim_metrics(5, 5)
    assert list(read_lines(tmp_path / "metrics.jsonl")) == lines[:6]
    # Interrupted before the callbacks of step 5: they come again.
    RunFolder(tmp_path).trim_metrics(5, 4)
    assert list(read_lines(tmp_path / "metrics.jsonl")) == lines[:5]


def test_other_decoders_than_a_run_began_with_are_said(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        assert folder.write_env("pretrain", "cpu") == []
        assert folder.write_env("pretrain", "cpu") == []
        path = folder.path / "env.json"
        record = json.loads(path.read_text())
        assert set(record["decoders"]) == {"JPEGs", "other pictures", "videos", "crops"}
        now = record["decoders"]["JPEGs"]
        record["decoders"]["JPEGs"] = "Pillow 9.0"
        path.write_text(json.dumps(record))
        (said,) = folder.write_env("pretrain", "cpu")
        assert "Pillow 9.0" in said
        assert now in said
        assert folder.write_env("pretrain", "cpu") == []  # env.json tells of the last start
        assert said.endswith("came from Pillow 9.0 before")
        for damaged in ("", "[]", '{"decoders": 3}', "{}"):
            path.write_text(damaged)
            assert folder.write_env("pretrain", "cpu") == []
