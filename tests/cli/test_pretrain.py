"""``maekit pretrain`` from end to end, on small pictures made here."""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from small_runs import PICTURES, losses, result_of, same_weights, weights

import maekit
from maekit.engine.run_folder import read_lines
from maekit.weights.safetensors_io import read_header, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


def test_a_run_leaves_everything_behind(cli: Cli, small: str) -> None:
    done = cli("pretrain", small, PICTURES, "--json")
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
        "step-00000000.png", "step-00000006.png", "step-00000012.png", "timelapse.gif",
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
    assert header.target.written == {
        "name": "norm-pixel", "space": "normalized", "loss": "mse", "statistics": "joint",
        "eps": "inside", "frames": "same",
    }  # fmt: skip
    assert header.masker is not None
    assert header.masker.written["ratio"] == 0.5
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
    for workers in (0, 2):
        done = cli("pretrain", small, f"data.workers={workers}", "--out", f"w{workers}", "-q")
        assert done.code == 0, done.err
    assert len(losses("w0")) == 12
    assert losses("w0") == losses("w2")
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
        # Of means over the hidden values of 8 pictures, by an encoder and a decoder.
        close(losses(name), losses("whole"), terms=vit_terms(192, 32, 3, 7) + 8 * 3 * 192)


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


def test_from_starts_with_other_weights(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "first", "-q").code == 0
    word = "pretrain.optimizer.base_lr=1e-20"  # as good as none
    assert cli("pretrain", small, word, "--from", "first", "--out", "second", "-q").code == 0
    start = result_of("second")["holdout_start"]["loss"]
    assert start == pytest.approx(result_of("first")["holdout"]["loss"], rel=1e-6)
    wider = cli("pretrain", small, "model.backbone.width=64", "--from", "first", "--out", "x")
    assert wider.code == 3
    assert "backbone.width: 32 in the weights, 64 requested" in wider.err
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


def test_a_held_out_error_that_is_not_finite_is_null(cli: Cli, small: str) -> None:
    words = ["pretrain.optimizer.base_lr=1e30", "~pretrain.warmup", "pretrain.steps=1"]
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
    way_back = re.search(r"from before is kept: --from (\S+)", failed.err)
    assert way_back is not None
    assert cli("weights", "inspect", way_back[1]).code == 0
    words[2] = "pretrain.checkpoint.steps=50"
    assert "no checkpoint is from before" in cli("pretrain", small, *words, "--out", "late").err


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


def test_a_picture_that_cannot_be_written_ends_no_training(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("maekit.verbs.write_bytes", full)
    done = cli("pretrain", small, PICTURES, "--out", "run")
    assert done.code == 0, done.err
    assert "warning: run/pictures/step-00000000.png could not be written" in done.err
    assert not list(Path("run/pictures").glob("*.png"))


def test_pictures_null_draws_none_and_changes_no_weight(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, PICTURES, "--out", "drawn", "-q").code == 0
    assert len(list(Path("drawn/pictures").glob("step-*.png"))) == 3
    assert cli("pretrain", small, "pretrain.pictures=null", "--out", "bare", "-q").code == 0
    assert not Path("bare/pictures").exists()
    assert result_of("bare")["holdout"] == result_of("drawn")["holdout"]
    assert same_weights("drawn", "bare")
    child = Path("child.yaml")
    child.write_text("extends: bare/recipe.yaml\npretrain:\n  pictures: {every: 12}\n")
    assert cli("pretrain", str(child), "--out", "again", "-q").code == 0
    assert len(list(Path("again/pictures").glob("step-*.png"))) == 2


def test_no_val_is_a_note_not_an_error(cli: Cli, small: str) -> None:
    done = cli("pretrain", small, PICTURES, "~data.val", "--out", "run")
    assert done.code == 0
    assert "no data.val" in done.err
    assert result_of("run")["holdout"] is None
    assert not Path("run/pictures").exists()


def test_missing_data_says_what_was_looked_for(cli: Cli, small: str) -> None:
    failed = cli("pretrain", small, "data.train.path=nowhere", "--out", "run")
    assert failed.code == 6
    assert "nowhere" in failed.err
    assert "data.train.path:" in failed.err
    words = ["data.val.path=nowhere", "data.val.published=https://example.org"]
    failed = cli("pretrain", small, *words, "--out", "other")
    assert "data.val.path:" in failed.err
    assert "published at https://example.org" in failed.err


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
        "import maekit.cli.verbs, torch;"
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


@pytest.mark.slow
def test_compiling_changes_little_and_no_key(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "plain", "-q").code == 0
    done = cli("pretrain", small, "pretrain.compile=true", "--out", "compiled", "-q")
    assert done.code == 0, done.err
    np.testing.assert_allclose(losses("compiled"), losses("plain"), rtol=1e-3)
    assert weights("compiled").keys() == weights("plain").keys()
