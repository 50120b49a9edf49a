"""``maekit pretrain`` from end to end, on small pictures made here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import maekit
from maekit.engine.run_folder import read_lines
from maekit.weights.file import read_header, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

RECIPE = """\
name: small
data:
  train: {{name: images, path: {pictures}/train}}
  val: {{name: images, path: {pictures}/val}}
  size: [16, 24]
  stats: imagenet
  workers: 0
model:
  backbone: {{name: image-vit, size: tiny, width: 32, depth: 2, heads: 2, patch: 8}}
  decoder: {{name: vit, width: 16, depth: 1, heads: 2}}
pretrain:
  masker: {{name: random, ratio: 0.5}}
  target: {{name: norm-pixel}}
  steps: 12
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.03}}
  checkpoint: {{steps: 5}}
  validate: {{every: 6, samples: 8}}
  pictures: {{every: 6, samples: 2}}
"""


def draw(folder: Path, count: int, seed: int) -> None:
    """Pictures of smooth colours, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe over 50 pictures, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures" / "train", 50, seed=0)
    draw(tmp_path / "pictures" / "val", 9, seed=1)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(pictures=tmp_path / "pictures"))
    return str(path)


def losses(run: str | Path) -> list[float]:
    return [line["loss"] for line in read_lines(Path(run) / "metrics.jsonl") if "loss" in line]


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return read_tensors(Path(run) / "weights.safetensors")


def same_weights(one: str | Path, other: str | Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def result_of(run: str | Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((Path(run) / "result.json").read_text())
    return record


def test_a_run_leaves_everything_behind(cli: Cli, small: str) -> None:
    done = cli("pretrain", small, "--json")
    assert done.code == 0, done.err
    run = Path("runs/small/1")
    left = {each.name for each in run.iterdir()}
    assert left >= {
        "recipe.yaml", "env.json", "metrics.jsonl", "log.txt", "checkpoints", "lock",
        "weights.safetensors", "pictures", "result.json",
    }  # fmt: skip
    result = json.loads(done.out)
    assert result == result_of(run)
    assert (result["verb"], result["exit"], result["steps"], result["samples"]) == (
        "pretrain", 0, 12, 96,
    )  # fmt: skip
    assert result["loss_last"] < result["loss_first"]
    holdout = result["holdout"]
    assert holdout["hidden_mse"] < result["holdout_start"]["hidden_mse"]
    assert min(holdout["interpolated_fill_mse"], holdout["mean_fill_mse"]) > 0
    assert [each.name for each in sorted((run / "pictures").iterdir())] == [
        "step-00000000.png", "step-00000006.png", "step-00000012.png",
    ]  # fmt: skip
    lines = list(read_lines(run / "metrics.jsonl"))
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "holdout" in line] == [0, 6, 12]
    assert sorted(each.name for each in (run / "checkpoints").glob("step-*")) == [
        "step-00000010", "step-00000012",
    ]  # fmt: skip


def test_the_weights_describe_and_load_themselves(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    header = read_header(Path("run/weights.safetensors"))
    assert header.target == {
        "name": "norm-pixel", "space": "normalised", "loss": "mse", "statistics": "joint",
        "eps": "inside", "frames": "same",
    }  # fmt: skip
    assert header.masker is not None
    assert header.masker["ratio"] == 0.5
    assert header.clip == (1, 16, 24)
    model = maekit.load("run")
    assert model.statistics.mean == header.mean
    pixels = torch.randn(2, 3, 1, 16, 24)
    assert model.encode(pixels).shape == (2, 7, 32)
    hidden = torch.tensor([[True, True, True, False, False, False]] * 2)
    out = model(pixels, hidden)
    assert out.pred.shape == (2, 3, 192)
    assert torch.equal(maekit.load("run/weights.safetensors").encode(pixels), model.encode(pixels))


def test_any_number_of_workers_gives_the_same_losses(cli: Cli, small: str) -> None:
    for workers in range(3):
        done = cli("pretrain", small, f"data.workers={workers}", "--out", f"w{workers}", "-q")
        assert done.code == 0, done.err
    assert len(losses("w0")) == 12
    assert losses("w0") == losses("w1") == losses("w2")
    assert same_weights("w0", "w2")


@pytest.mark.parametrize("bad", [False, True])
def test_accumulation_gives_the_same_losses(cli: Cli, small: str, bad: bool) -> None:
    if bad:
        Path("pictures/train/007.png").write_bytes(b"not a picture")
    for name, accumulation in (("whole", 1), ("halves", 2), ("single", 8)):
        words = [f"pretrain.batch.accumulation={accumulation}", "data.train.max_bad_fraction=1"]
        assert cli("pretrain", small, *words, "--out", name, "-q").code == 0
        ledger = list(read_lines(Path(name) / "bad_files.jsonl"))
        assert [Path(line["file"]).name for line in ledger] == ["007.png"] * bad
    for name in ("halves", "single"):
        np.testing.assert_allclose(losses(name), losses("whole"), atol=1e-6)


def test_recomputing_activations_changes_nothing(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "kept", "-q").code == 0
    word = "pretrain.activation_checkpointing=true"
    assert cli("pretrain", small, word, "--out", "again", "-q").code == 0
    assert losses("kept") == losses("again")


def test_bf16_on_a_cpu_is_close(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "fp32", "-q").code == 0
    assert cli("pretrain", small, "pretrain.precision=bf16", "--out", "bf16", "-q").code == 0
    np.testing.assert_allclose(losses("bf16"), losses("fp32"), rtol=0.05)
    assert losses("bf16") != losses("fp32")
    failed = cli("pretrain", small, "pretrain.precision=fp16", "--out", "fp16")
    assert failed.code == 2
    assert "fp16 needs a GPU" in failed.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_resumes_bit_for_bit(cli: Cli, small: str, number: int) -> None:
    words = ["pretrain.steps=400", "pretrain.checkpoint.steps=7", "pretrain.validate.every=50"]
    words.append("data.workers=2")
    assert cli("pretrain", small, *words, "--out", "straight", "-q").code == 0
    command = [sys.executable, "-m", "maekit", "pretrain", small, *words, "--out", "killed"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        metrics = Path("killed/metrics.jsonl")
        until = time.monotonic() + 120
        while not metrics.exists() or len(losses("killed")) < 25:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(process.pid, number)  # as schedulers do: workers get it too
        process.communicate()
    assert process.returncode == (75 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert result_of("killed")["exit"] == 75
    stopped_at = len(losses("killed"))
    assert 25 <= stopped_at < 400
    resumed = cli("pretrain", small, *words, "--out", "killed", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming killed at step" in resumed.err
    assert same_weights("straight", "killed")
    assert losses("straight") == losses("killed")
    assert result_of("straight")["holdout"] == result_of("killed")["holdout"]
    measured = [
        line["step"] for line in read_lines(Path("killed/metrics.jsonl")) if "holdout" in line
    ]
    assert measured == list(range(0, 401, 50))


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


def test_from_starts_with_other_weights(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "first", "-q").code == 0
    word = "pretrain.optimizer.base_lr=1e-20"  # as good as none
    assert cli("pretrain", small, word, "--from", "first", "--out", "second", "-q").code == 0
    start = result_of("second")["holdout_start"]["loss"]
    assert start == pytest.approx(result_of("first")["holdout"]["loss"], rel=1e-6)
    wider = cli("pretrain", small, "model.backbone.width=64", "--from", "first", "--out", "x")
    assert wider.code == 3
    assert "backbone.width: 32 in the weights, 64 asked" in wider.err
    # These fit every tensor, and would still be another model.
    for word in ("model.backbone.heads=4", "pretrain.target.eps=outside", "data.stats=auto"):
        assert cli("pretrain", small, word, "--from", "first", "--out", "y").code == 3
        shutil.rmtree("y")
    both = ["--out", "first", "--overwrite", "--from", "first"]
    refused = cli("pretrain", small, *both)
    assert refused.code == 2
    assert "moves away" in refused.err
    assert Path("first/weights.safetensors").is_file()
    assert cli("pretrain", small, "--from", "nowhere", "--out", "z").code == 2


def test_a_finished_run_is_told_not_run_again(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run/checkpoints").rglob("*")}
    again = cli("pretrain", small, "--out", "run", "--resume", "--json")
    assert again.code == 0
    assert json.loads(again.out) == result_of("run")
    assert {path: path.stat().st_mtime_ns for path in Path("run/checkpoints").rglob("*")} == before


def test_a_run_whose_data_changed_does_not_go_on(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    Path("run/result.json").unlink()
    draw(Path("pictures/train/more"), 3, seed=2)
    changed = cli("pretrain", small, "--out", "run", "--resume")
    assert changed.code == 6
    assert "50 samples when this run began, 53 now" in changed.err


def test_a_held_out_error_that_is_not_finite_is_null(cli: Cli, small: str) -> None:
    words = ["pretrain.optimizer.base_lr=1e30", "~pretrain.warmup", "pretrain.steps=3"]
    done = cli("pretrain", small, *words, "--out", "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["holdout"]["hidden_mse"] is None
    for text in (Path("run/result.json").read_text(), Path("run/metrics.jsonl").read_text()):
        assert "NaN" not in text
        assert "Infinity" not in text


def test_a_loss_that_explodes_ends_with_a_capture(cli: Cli, small: str) -> None:
    words = ["pretrain.optimizer.base_lr=1e38", "pretrain.max_nonfinite=3", "pretrain.steps=60"]
    failed = cli("pretrain", small, *words, "pretrain.checkpoint.steps=1", "--out", "run")
    assert failed.code == 4
    assert "3 steps in a row" in failed.err
    assert result_of("run")["exit"] == 4
    capture = json.loads(Path("run/nan_capture/batches.json").read_text())
    assert len(capture["steps"]) == 3
    assert all(len(keys) == 8 for keys in capture["steps"].values())
    assert read_tensors(Path("run/nan_capture/model.safetensors"))
    assert list(Path("run/checkpoints").glob("step-*"))


def test_too_many_bad_files_end_the_run(cli: Cli, small: str) -> None:
    for number in range(20):
        Path(f"pictures/train/{number:03d}.png").write_bytes(b"rubbish")
    failed = cli("pretrain", small, "--out", "run")
    assert failed.code == 6
    assert "data.train.max_bad_fraction" in failed.err
    assert result_of("run")["exit"] == 6
    patient = cli("pretrain", small, "data.train.max_bad_fraction=1", "--out", "patient", "-q")
    assert patient.code == 0
    names = [Path(line["file"]).name for line in read_lines(Path("patient/bad_files.jsonl"))]
    assert sorted(names) == [f"{number:03d}.png" for number in range(20)]
    for each in Path("pictures/train").iterdir():
        each.write_bytes(b"rubbish")
    words = ["data.train.max_bad_fraction=1", "--out", "all"]
    assert cli("pretrain", small, *words).code == 6
    # Known from before, they are as bad as they were.
    assert cli("pretrain", small, *words, "--resume").code == 6


def test_no_val_is_a_note_not_an_error(cli: Cli, small: str) -> None:
    done = cli("pretrain", small, "~data.val", "--out", "run")
    assert done.code == 0
    assert "no data.val" in done.err
    assert result_of("run")["holdout"] is None
    assert not Path("run/pictures").exists()


def test_missing_data_says_what_was_looked_for(cli: Cli, small: str) -> None:
    failed = cli("pretrain", small, "data.train.path=nowhere", "--out", "run")
    assert failed.code == 6
    assert "nowhere" in failed.err
    assert "data.train.path:" in failed.err
    failed = cli("pretrain", small, "data.val.path=nowhere", "--out", "other")
    assert "data.val.path:" in failed.err


def test_fewer_pictures_than_a_batch_join_epochs(cli: Cli, small: str) -> None:
    words = ["pretrain.batch.global=128", "~pretrain.steps", "pretrain.epochs=5"]
    assert cli("pretrain", small, *words, "pretrain.warmup.steps=0", "--out", "run", "-q").code == 0
    assert result_of("run")["steps"] == 1  # 250 samples: one whole batch


@pytest.mark.parametrize(
    "word",
    ["pretrain.repeats=3", "pretrain.loss_on=all", "pretrain.decoder_masker.name=grid"],
)
def test_repeats_loss_on_all_and_dual_masking_train(cli: Cli, small: str, word: str) -> None:
    done = cli("pretrain", small, word, "--out", "run", "-q")
    assert done.code == 0, done.err
    assert all(np.isfinite(losses("run")))


def test_dry_run_prints_the_cost_and_writes_nothing(cli: Cli, small: str) -> None:
    before = sorted(Path().rglob("*"))
    done = cli("pretrain", small, "--dry-run")
    assert done.code == 0, done.err
    for word in ("parameters", "tokens", "lr = 0.03 x 8 / 256", "steps", "disk", "memory", "time"):
        assert word in done.out
    cost = json.loads(cli("pretrain", small, "--dry-run", "--json").out)
    assert (cost["steps"], cost["tokens"], cost["visible"], cost["effective_batch"]) == (
        12, 6, 3, 8,
    )  # fmt: skip
    assert sorted(Path().rglob("*")) == before


def test_a_full_disk_is_exit_7(small: str) -> None:
    """A real refusal by the system: files may not grow beyond 20 kB."""
    limited = (
        "import resource, sys; from maekit.cli.app import main;"
        "import maekit.cli.pretrain, torch;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", limited, "pretrain", small, "--out", "run"]
    words = ["~data.val", "pretrain.checkpoint.steps=2"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "checkpoint could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path("run/checkpoints").glob("*"))


def test_nothing_opens_a_connection(cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a local run opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert cli("pretrain", small, "--out", "run", "-q").code == 0


def test_ctrl_c_saves_and_leaves_no_process(small: str) -> None:
    words = ["pretrain.steps=100000", "~data.val", "data.workers=2"]
    command = [sys.executable, "-m", "maekit", "pretrain", small, *words, "--out", "run"]
    slow = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=slow) as process:
        until = time.monotonic() + 120
        while len(losses("run")) < 3:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(workers) >= 2
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 75
    assert result_of("run")["exit"] == 75
    until = time.monotonic() + 10  # multiprocessing's own tracker ends a moment later
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


@pytest.mark.slow
def test_compiling_changes_little_and_no_key(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "plain", "-q").code == 0
    done = cli("pretrain", small, "pretrain.compile=true", "--out", "compiled", "-q")
    assert done.code == 0, done.err
    np.testing.assert_allclose(losses("compiled"), losses("plain"), rtol=1e-3)
    assert weights("compiled").keys() == weights("plain").keys()
