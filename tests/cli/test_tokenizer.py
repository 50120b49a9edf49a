"""``maekit tokenizer`` and the target that it is for, on small pictures made here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from small_recipes import IMAGES, Recipe, sets, write_recipe
from small_runs import losses, result_of, same_weights

import maekit
from maekit.engine.run_folder import read_lines
from maekit.weights.header import DVAEHeader
from maekit.weights.safetensors_io import read_header, read_header_as, read_tensors, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

TILES: Recipe = {
    "name": "tiles",
    "model": {"backbone": {"patch": 4}, "decoder": {"width": 32}},
    "tokenizer": {
        "dvae": {"vocabulary": 32, "width": 16, "init_width": 16, "groups": 3, "blocks": 1},
        "loss": "mse",
        "temperature": {"start": 0.5},
        "kl_weight": {"end": 0},
        "augment": {"name": "none"},
        "steps": 10,
        "warmup": {"steps": 10},
        "batch": {"global": 8},
        "optimizer": {"base_lr": 0.1, "betas": [0.9, 0.99]},
        "clip_grad": 1.0,
        "checkpoint": {"steps": 4},
        "validate": {"every": 5, "samples": 8},
        "pictures": {"every": 5, "samples": 2},
    },
    "pretrain": {
        "target": {"name": "dvae-token", "weights": "dvae", "vocabulary": 32, "stride": 4},
        "augment": {"name": "none"},
        "steps": 50,
        "warmup": {"steps": 5},
        "optimizer": {"base_lr": 0.1},
        "validate": {"every": 25, "samples": 8},
    },
}
SHORT = "pretrain.steps=3"


def draw_tiles(folder: Path, count: int, seed: int) -> None:
    """Pictures of tiles of 4 x 4 pixels in four shades, each with a bright right half.

    Neighbors are alike, so that hidden ones can be guessed; no mean color shows the halves.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    bright = np.where(np.arange(24) % 4 > 1, 110, 0)
    for number in range(count):
        shades = rng.integers(0, 4, (2, 2)) * 45
        picture = np.kron(shades, np.ones((8, 12), np.int64)) + bright
        Image.fromarray(np.stack([picture.astype(np.uint8)] * 3, axis=-1)).save(
            folder / f"{number:03d}.png"
        )


@pytest.fixture
def tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the recipe, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    draw_tiles(tmp_path / "pictures/train", 40, seed=0)
    draw_tiles(tmp_path / "pictures/val", 8, seed=1)
    return write_recipe(tmp_path / "tiles.yaml", IMAGES, sets(tmp_path / "pictures"), TILES)


@pytest.fixture
def with_dvae(cli: Cli, tiles: str) -> str:
    """Write the same, beside a dVAE that was trained for ten steps."""
    assert cli("tokenizer", tiles, "--out", "dvae", "-q").code == 0
    return tiles


@pytest.mark.slow
def test_a_trained_dvae_beats_mean_colors_and_teaches(cli: Cli, tiles: str) -> None:
    done = cli("tokenizer", tiles, "tokenizer.steps=200", "--out", "dvae", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result == result_of("dvae")
    assert (result["verb"], result["exit"], result["steps"], result["samples"]) == (
        "tokenizer", 0, 200, 1600,
    )  # fmt: skip
    assert (result["vocabulary"], result["stride"]) == (32, 4)
    assert result["loss_last"] < result["loss_first"]
    holdout = result["holdout"]
    assert holdout["psnr"] > holdout["mean_color_psnr"] + 1
    assert holdout["codes_used_fraction"] > 0.05
    assert holdout["codes_used"] == holdout["codes_used_fraction"] * 32
    assert 1 < holdout["perplexity"] <= holdout["codes_used"]
    taught = cli("pretrain", tiles, "--out", "taught", "--json")
    assert taught.code == 0, taught.err
    learned = json.loads(taught.out)
    assert learned["holdout"]["loss"] < learned["holdout_start"]["loss"]
    assert learned["holdout"]["hidden_mse"] is None  # codes are no pixels
    assert not Path("taught/pictures").exists()


def test_a_run_leaves_everything_behind(cli: Cli, tiles: str) -> None:
    done = cli("tokenizer", tiles)
    assert done.code == 0, done.err
    assert "vocabulary: 32, stride: 4" in done.err
    run = Path("runs/tiles/1")
    assert {each.name for each in run.iterdir()} >= {
        "recipe.yaml", "env.json", "metrics.jsonl", "log.txt", "checkpoints", "lock",
        "weights.safetensors", "pictures", "result.json",
    }  # fmt: skip
    lines = list(read_lines(run / "metrics.jsonl"))
    assert [line["step"] for line in lines if "holdout" in line] == [0, 5, 10]
    assert sorted(each.name for each in (run / "pictures").iterdir()) == [
        "step-00000000.png", "step-00000005.png", "step-00000010.png", "timelapse.gif",
    ]  # fmt: skip
    header = read_header_as(DVAEHeader, run / "weights.safetensors")
    assert (header.channels, header.dvae["vocabulary"], header.dvae["groups"]) == (3, 32, 3)
    names = set(read_tensors(run / "weights.safetensors"))
    assert {"encoder.blocks.input.w", "decoder.blocks.group_3.block_1.id_path.b"} <= names


def test_a_run_that_goes_on_is_bit_equal(cli: Cli, tiles: str) -> None:
    for name in ("straight", "cut"):
        assert cli("tokenizer", tiles, "--out", name, "-q").code == 0
    Path("cut/result.json").write_text('{"verb": "tokenizer", "exit": 75}')
    shutil.rmtree("cut/checkpoints/step-00000010")
    Path("cut/weights.safetensors").unlink()
    resumed = cli("tokenizer", tiles, "--out", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming cut at step 8" in resumed.err
    assert same_weights("straight", "cut")
    assert losses("straight") == losses("cut")
    other = cli("tokenizer", tiles, "tokenizer.dvae.blocks=2", "--out", "cut", "--resume")
    assert other.code == 2
    assert "tokenizer.dvae.blocks: 1 before, 2 now" in other.err
    assert cli("pretrain", tiles, "--out", "cut", "--resume").code == 2


def test_a_killed_run_is_not_resumed_by_another_verb(cli: Cli, tiles: str) -> None:
    """What a SIGKILL leaves: no result.json; and before the first checkpoint, nothing saved."""
    words = ["tokenizer.steps=3", "pretrain.target={name: norm-pixel}", SHORT]
    run = Path("runs/tiles/1")
    assert cli("tokenizer", tiles, *words, "-q").code == 0
    (run / "result.json").unlink()
    (run / "weights.safetensors").unlink()
    before = (run / "recipe.yaml").read_bytes(), (run / "metrics.jsonl").read_bytes()
    for saved in (True, False):
        if not saved:
            shutil.rmtree(run / "checkpoints")
        refused = cli("pretrain", tiles, *words, "--resume", "--out", str(run))
        assert refused.code == 2
        assert "this is a run of `maekit tokenizer`, not pretrain" in refused.err
        other = cli("pretrain", tiles, *words, "--resume", "-q")
        assert other.code == 0, other.err
        assert result_of(f"runs/tiles/{3 - saved}")["verb"] == "pretrain"
    assert before == ((run / "recipe.yaml").read_bytes(), (run / "metrics.jsonl").read_bytes())
    assert cli("tokenizer", tiles, *words, "--resume", "-q").code == 0
    assert result_of(run)["exit"] == 0


def test_a_dvae_of_float_pictures_with_edges(cli: Cli, tiles: str) -> None:
    """Bicubic resizing would leave [0, 1] there, and the pictures be refused."""
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    Path("floats").mkdir()
    for number in range(12):
        picture = (rng.random((20, 30)) > 0.5).astype(np.float32)
        tifffile.imwrite(f"floats/{number:02d}.tif", picture)
    words = [
        "data.train.path=floats", "data.val.path=floats", "data.channels=1", "data.stats=auto",
        "tokenizer.steps=3", "pretrain.steps=3",
    ]  # fmt: skip
    for verb, out in (("tokenizer", "dvae"), ("pretrain", "run")):
        crops = f"{verb}.augment={{name: random-resized-crop}}"
        done = cli(verb, tiles, *words, crops, "--out", out, "-q")
        assert done.code == 0, done.err


def test_accumulation_and_workers_give_the_same_losses(cli: Cli, tiles: str) -> None:
    """Noise belongs to samples, not to batches."""
    words = {"whole": [], "halves": ["tokenizer.batch.accumulation=2", "data.workers=1"]}
    for name, more in words.items():
        assert cli("tokenizer", tiles, *more, "--out", name, "-q").code == 0
    np.testing.assert_allclose(losses("halves"), losses("whole"), rtol=1e-3)


def test_from_starts_with_other_weights(cli: Cli, with_dvae: str) -> None:
    rate = "tokenizer.optimizer={name: adamw, base_lr: 1.e-20, min_lr: 0}"
    words = [rate, "tokenizer.steps=1", "--from", "dvae"]
    assert cli("tokenizer", with_dvae, *words, "--out", "second", "-q").code == 0
    assert result_of("second")["holdout_start"] == result_of("dvae")["holdout"]
    wider = cli("tokenizer", with_dvae, "tokenizer.dvae.width=8", "--from", "dvae", "--out", "x")
    assert wider.code == 3
    assert "dvae.width: 16 in the weights, 8 requested" in wider.err
    refused = cli("pretrain", with_dvae, "--from", "dvae", "--out", "y")
    assert refused.code == 3
    assert "of the kind dvae, not autoencoder" in refused.err


def test_dry_run_writes_nothing(cli: Cli, tiles: str) -> None:
    done = cli("tokenizer", tiles, "--dry-run", "--json")
    assert done.code == 0, done.err
    costs = json.loads(done.out)
    assert (costs["verb"], costs["tokens"], costs["vocabulary"]) == ("tokenizer", 24, 32)
    assert costs["steps"] == 10
    assert not Path("runs").exists()


def test_what_is_wrong_has_its_exit_code(cli: Cli, tiles: str) -> None:
    odd = cli("tokenizer", tiles, "data.size=18")
    assert odd.code == 2
    assert "multiple of 4" in odd.err
    assert cli("tokenizer", tiles, "~tokenizer").code == 2
    for number in range(20):
        Path(f"pictures/train/{number:03d}.png").write_bytes(b"rubbish")
    bad = cli("tokenizer", tiles, "--out", "bad")
    assert bad.code == 6
    assert result_of("bad")["verb"] == "tokenizer"
    words = ["data.train.max_bad_fraction=1", "--out", "patient", "-q"]
    assert cli("tokenizer", tiles, *words).code == 0
    assert result_of("patient")["bad_files"] == 20


def test_a_clip_of_any_shape_and_channels(cli: Cli, tiles: str) -> None:
    words = ["data.train.frames=2", "data.channels=1", "data.size=[8,16]", "tokenizer.steps=2"]
    done = cli("tokenizer", tiles, *words, "tokenizer.loss=logit-laplace", "--out", "run", "-q")
    assert done.code == 0, done.err
    header = read_header_as(DVAEHeader, Path("run/weights.safetensors"))
    assert header.channels == 1


def test_a_missing_dvae_is_said_by_training_only(cli: Cli, tiles: str) -> None:
    valid = cli("recipes", "validate", tiles)
    assert valid.code == 0, valid.err
    assert "4x6 codes of 32" in valid.out
    missing = cli("pretrain", tiles, SHORT, "--out", "run")
    assert missing.code == 2
    assert "pretrain.target.weights" in missing.err


def test_a_pickled_dvae_is_refused(cli: Cli, tiles: str) -> None:
    torch.save(torch.nn.Linear(2, 2), "encoder.pkl")
    refused = cli("pretrain", tiles, SHORT, "pretrain.target.weights=encoder.pkl", "--out", "run")
    assert refused.code == 3
    assert "weights_only=False).state_dict()" in refused.err


def test_a_run_knows_its_dvae_by_its_checksum(cli: Cli, with_dvae: str) -> None:
    words = [SHORT, "pretrain.checkpoint.steps=2"]
    assert cli("pretrain", with_dvae, *words, "--out", "run", "-q").code == 0
    header = read_header(Path("run/weights.safetensors"))
    assert header.target is not None
    assert header.target.written["sha256"] == sha256(Path("dvae/weights.safetensors"))
    assert not any("dvae" in name for name in read_tensors(Path("run/weights.safetensors")))
    # The same file elsewhere is the same dVAE.
    shutil.copytree("dvae", "copy")
    moved = [*words, "pretrain.target.weights=copy", "--from", "run", "--out", "again", "-q"]
    assert cli("pretrain", with_dvae, *moved).code == 0
    # Another file in its place is another one, whoever asks.
    shutil.rmtree("run/checkpoints/step-00000003")
    Path("run/result.json").write_text('{"verb": "pretrain", "exit": 75}')
    assert cli("tokenizer", with_dvae, "--seed", "5", "--out", "other", "-q").code == 0
    shutil.copy("other/weights.safetensors", "dvae/weights.safetensors")
    for more in (["--out", "run", "--resume"], ["--from", "run", "--out", "from"]):
        refused = cli("pretrain", with_dvae, *words, *more)
        assert refused.code == 3
        assert "this file has sha256" in refused.err
    # A model can be used without it.
    shutil.rmtree("dvae")
    assert maekit.load("run").encode(torch.zeros(1, 3, 1, 16, 24)).shape == (1, 25, 32)
