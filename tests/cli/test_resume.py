"""Runs that are killed, interrupted, refused, and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_recipes import draw_smooth
from small_runs import losses, result_of, same_weights

from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Result

    Cli = Callable[..., Result]


@contextmanager
def started(command: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that does not outlive its test."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_resumes_bit_for_bit(cli: Cli, small: str, number: int) -> None:
    words = ["pretrain.steps=120", "pretrain.checkpoint.steps=7", "pretrain.validate.every=20"]
    assert cli("pretrain", small, *words, "--out", "straight", "-q").code == 0
    command = [sys.executable, "-m", "maekit", "pretrain", small, *words, "--out", "killed"]
    command.append("data.workers=2")  # the only one of the three that has any
    with started(command, start_new_session=True) as process:
        metrics = Path("killed/metrics.jsonl")
        until = time.monotonic() + 120
        while not metrics.exists() or len(losses("killed")) < 10:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(process.pid, number)  # as schedulers do: workers get it too
        process.communicate()
    assert process.returncode == (75 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert result_of("killed")["exit"] == 75
    stopped_at = len(losses("killed"))
    assert 10 <= stopped_at < 120
    resumed = cli("pretrain", small, *words, "--out", "killed", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming killed at step" in resumed.err
    assert same_weights("straight", "killed")
    assert losses("straight") == losses("killed")
    assert result_of("straight")["holdout"] == result_of("killed")["holdout"]
    measured = [
        line["step"] for line in read_lines(Path("killed/metrics.jsonl")) if "holdout" in line
    ]
    assert measured == list(range(0, 121, 20))


def test_resume_without_a_folder_finds_the_unfinished_run(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "-q").code == 0
    # The second run was cut after step 10: its checkpoint of the end is not there.
    assert cli("pretrain", small, "-q").code == 0
    run = Path("runs/small/2")
    (run / "result.json").write_text('{"verb": "pretrain", "exit": 1}')
    (run / "checkpoints/step-00000012/state.json").unlink()
    done = cli("pretrain", small, "--resume")
    assert done.code == 0
    assert "damaged checkpoint" in done.err
    assert "resuming runs/small/2 at step 10" in done.err
    assert same_weights("runs/small/1", "runs/small/2")
    assert cli("pretrain", small, "--resume", "-q").code == 0
    assert Path("runs/small/3").is_dir()  # all are finished: a new one


def test_an_interrupted_run_of_another_recipe_is_named_and_left_alone(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "pretrain.masker.ratio=0.6", "-q").code == 0
    run = Path("runs/small/1")
    (run / "result.json").write_text('{"verb": "pretrain", "exit": 75}')
    before = (run / "recipe.yaml").read_bytes()
    done = cli("pretrain", small, "pretrain.steps=2", "--resume")
    assert done.code == 0
    assert "runs/small/1 is not resumed: " in done.err
    assert "pretrain.masker.ratio: 0.6 before, 0.5 now" in done.err
    assert f"maekit pretrain {run}/recipe.yaml --resume --out {run}" in done.err
    assert (run / "recipe.yaml").read_bytes() == before
    assert result_of("runs/small/2")["steps"] == 2
    # Nothing to go on with: nothing is said of it.
    shutil.rmtree(run / "checkpoints")
    assert "not resumed" not in cli("pretrain", small, "pretrain.steps=2", "--resume").err


def test_a_scheduler_that_restarts_means_resume(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    again = cli("pretrain", small, "--out", "run")
    assert again.code == 2
    assert "not empty" in again.err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert cli("pretrain", small, "--out", "run", "-q").code == 0


def test_a_resumed_run_must_be_the_same_experiment(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    before, result = (Path("run/recipe.yaml")).read_text(), result_of("run")
    changed = cli("pretrain", small, "pretrain.masker.ratio=0.6", "--out", "run", "--resume")
    assert changed.code == 2
    assert "pretrain.masker.ratio: 0.5 before, 0.6 now" in changed.err
    assert Path("run/recipe.yaml").read_text() == before
    assert result_of("run") == result
    free = ["data.workers=1", "pretrain.checkpoint.steps=3"]
    assert cli("pretrain", small, *free, "--out", "run", "--resume", "-q").code == 0


def test_a_finished_run_is_reported_not_run_again(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run/checkpoints").rglob("*")}
    again = cli("pretrain", small, "--out", "run", "--resume", "--json")
    assert again.code == 0
    assert json.loads(again.out) == result_of("run")
    assert {path: path.stat().st_mtime_ns for path in Path("run/checkpoints").rglob("*")} == before


def test_a_run_whose_data_changed_is_not_resumed(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    Path("run/result.json").unlink()
    draw_smooth(Path("pictures/train/more"), 3, seed=2)
    kept = Path("run/data.json").read_bytes()
    # The order of samples and the schedule depend on how many there are: no word allows others.
    for words in ((), ("--accept-data",)):
        changed = cli("pretrain", small, "--out", "run", "--resume", *words)
        assert changed.code == 2
        assert "50 samples before, 53 now" in changed.err
        assert "--accept-data" not in changed.err
    assert Path("run/data.json").read_bytes() == kept


def test_other_files_in_the_place_of_a_runs_need_a_word(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    Path("run/result.json").unlink()
    first = min(Path("pictures/train").rglob("*.png"))
    first.rename(first.with_name("zzz.png"))
    Path("run/result.json").write_text('{"verb": "pretrain", "exit": 75}')
    refused = cli("pretrain", small, "--out", "run", "--resume")
    assert refused.code == 2
    assert "names or their order differ" in refused.err
    assert result_of("run") == {"verb": "pretrain", "exit": 75}  # the run is as it was
    assert cli("pretrain", small, "--out", "run", "--resume", "--accept-data").code == 0
    Path("run/result.json").unlink()
    assert cli("pretrain", small, "--out", "run", "--resume").code == 0


def test_a_run_from_other_weights_is_another_run(cli: Cli, small: str) -> None:
    for name in ("a", "b"):
        seed = str(len(name) + ord(name))
        assert cli("pretrain", small, "--out", name, "--seed", seed, "-q").code == 0
    for name in ("a", "b"):
        assert cli("pretrain", small, "--from", name, "-q").code == 0
        Path(f"runs/small/{1 + (name == 'b')}/result.json").unlink()
    again = cli("pretrain", small, "--from", "a", "--resume")
    assert again.code == 0
    assert "runs/small/1" in again.err
    assert not Path("runs/small/3").exists()
    refused = cli("pretrain", small, "--from", "a", "--resume", "--out", "runs/small/2")
    assert refused.code == 2
    assert "this run started from" in refused.err
    other = cli("pretrain", small, "--from", "a", "--resume", "--seed", "9")
    assert other.code == 0
    assert Path("runs/small/3").is_dir()


def test_ctrl_c_saves_and_leaves_no_process(small: str) -> None:
    words = ["pretrain.steps=100000", "~data.val", "data.workers=1"]
    command = [sys.executable, "-m", "maekit", "pretrain", small, *words, "--out", "run"]
    slow = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started(command, env=slow) as process:
        until = time.monotonic() + 120
        while len(losses("run")) < 3:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(workers) >= 2  # with multiprocessing's own
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 75
    assert result_of("run")["exit"] == 75
    log = Path("run/log.txt").read_text()
    assert "Traceback" not in log  # it was asked for
    assert len([line for line in log.splitlines() if "exit 75" in line]) == 1
    until = time.monotonic() + 120  # multiprocessing's own tracker ends a moment later
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.05)
