"""``maekit embed``: which features, the same bytes, and going on where it ended."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from PIL import Image
from safetensors import safe_open

import maekit
from maekit.evaluate import embed as embedding
from maekit.evaluate.feature_cache import FeatureShards

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    from maekit.evaluate.feature_cache import FeatureSet

    Cli = Callable[..., Result]

TERMS = vit_terms(3 * 8 * 8, width=32, depth=2, tokens=7)


pytestmark = pytest.mark.usefixtures("embed_here")


@pytest.fixture
def run(cli: Cli, labeled: str) -> str:
    """Pre-train shortly over the pictures of the working directory."""
    assert cli("pretrain", labeled, "-q", "pretrain.steps=2").code == 0
    return "runs/labeled/1"


def features(path: str | Path) -> tuple[list[str], np.ndarray]:
    with np.load(path) as file:
        return file["ids"].tolist(), file["features"]


def encoded(run: str, files: list[str]) -> torch.Tensor:
    """Tokens ``[n, 1 + 6, 32]``, worked out in a few lines of Pillow and torch."""
    model = maekit.load(run)
    pixels = []
    for file in files:
        picture = Image.open(file)
        height = picture.width * 16 / 24  # the largest centered box of the model's aspect
        top = (picture.height - height) / 2
        box = (0, top, picture.width, top + height)
        small = picture.resize((24, 16), Image.Resampling.BICUBIC, box=box)
        pixels.append(torch.from_numpy(np.array(small)).permute(2, 0, 1)[:, None] / 255)
    with torch.inference_mode():
        return model.encode(model.normalize(torch.stack(pixels)))


def test_samples_of_the_runs_own_sets(cli: Cli, run: str) -> None:
    """They are those that its recipe reads, also where no file could be named."""
    assert cli("embed", "--set", "val", "--out", "set.npz", "-q").code == 0
    assert cli("embed", "pictures/val", "--out", "files.npz", "-q").code == 0
    ids, found = features("set.npz")
    of_files = dict(zip(*features("files.npz"), strict=True))
    assert len(ids) == 12
    for name, feature in zip(ids, found, strict=True):
        assert np.array_equal(feature, of_files[os.path.relpath(name)])
    chosen = cli("embed", "--set", "train", "*red/0[12].png", "--out", "two.npz", "--json")
    assert json.loads(chosen.out)["shape"] == [2, 32]
    assert [Path(name).name for name in features("two.npz")[0]] == ["01.png", "02.png"]
    nothing = cli("embed", "--set", "val", "*.mp4", "--out", "none.npz")
    assert (nothing.code, "no sample of data.val is called *.mp4" in nothing.err) == (2, True)
    no_run = cli("embed", "--set", "val", "--from", "demo", "--out", "none.npz")
    assert (no_run.code, "is no run" in no_run.err) == (2, True)
    assert cli("embed").code == 2


def test_features_are_the_encoders(cli: Cli, run: str) -> None:
    made = cli("embed", "pictures/val/red", "pictures/val/blue/01.png", "--json")
    assert made.code == 0, made.err
    assert f"{run}" in made.err  # the newest run is taken, and said
    ids, found = features("embeddings.npz")
    assert ids == [f"pictures/val/red/0{n}.png" for n in range(4)] + ["pictures/val/blue/01.png"]
    expected = encoded(run, ids)[:, 0]
    assert found.dtype == np.float32
    close(found, expected, terms=TERMS)
    result = json.loads(made.out)
    assert result["shape"] == [5, 32]
    assert (result["pool"], result["layer"], result["errors"]) == ("cls", None, [])


def test_pools_and_layers(cli: Cli, run: str) -> None:
    for name, words in {
        "mean": ["--pool", "mean"],
        "tokens": ["--pool", "tokens"],
        "first": ["--pool", "tokens", "--layer", "1"],
        "last": ["--pool", "tokens", "--layer", "-1"],
    }.items():
        out = f"{name}.npz"
        assert cli("embed", "pictures/val/red", *words, "--out", out, "-q").code == 0
    tokens = encoded(run, features("mean.npz")[0])[:, 1:]
    close(features("tokens.npz")[1], tokens, terms=TERMS)
    close(features("mean.npz")[1], tokens.mean(1), terms=TERMS)
    assert features("first.npz")[1].shape == (4, 6, 32)
    norm = maekit.load(run).backbone.norm  # type: ignore[attr-defined]
    normed = norm(torch.from_numpy(features("last.npz")[1]))
    close(normed, tokens, terms=TERMS)
    assert cli("embed", "pictures/val/red", "--layer", "3", "--out", "x.npz").code == 2


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet", "csv"])
def test_two_calls_give_equal_bytes(cli: Cli, run: str, form: str) -> None:
    for out in ("one", "two"):
        assert cli("embed", "pictures/val", "--out", f"{out}.{form}", "-q").code == 0
    assert Path(f"one.{form}").read_bytes() == Path(f"two.{form}").read_bytes()


def test_batches_of_1_and_64_agree(cli: Cli, run: str) -> None:
    for batch in ("1", "64"):
        out = f"{batch}.npz"
        words = ("--pool", "tokens", "--batch", batch, "--out", out, "-q")
        assert cli("embed", "pictures/train", *words).code == 0
    (_, one), (_, many) = features("1.npz"), features("64.npz")
    close(one, many, terms=TERMS)


def test_formats_hold_the_same(cli: Cli, run: str) -> None:
    for form in ("npz", "safetensors", "parquet", "csv"):
        assert cli("embed", "pictures/val/red", "--format", form, "-q").code == 0
    ids, expected = features("embeddings.npz")
    with safe_open("embeddings.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), expected)
        about = json.loads(file.metadata()["maekit"])
    assert about["ids"] == ids
    assert (about["pool"], about["grid"]) == ("cls", [1, 2, 3])
    from pyarrow import parquet

    table = parquet.read_table("embeddings.parquet")
    assert table["id"].to_pylist() == ids
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), expected)
    heading, *rows = csv.reader(Path("embeddings.csv").read_text().splitlines())
    assert heading == ["id", *(f"feature_{place}" for place in range(expected.shape[1]))]
    assert [row[0] for row in rows] == ids
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), expected)


def test_lists_and_patterns_are_inputs(cli: Cli, run: str) -> None:
    Path("lists").mkdir()
    Path("lists/some.csv").write_text("path,label\n../pictures/val/red/02.png,5\n")
    assert cli("embed", "lists/some.csv", "pictures/*/green/00.png", "-q").code == 0
    ids, _ = features("embeddings.npz")
    assert [Path(each).resolve().relative_to(Path.cwd().resolve()).as_posix() for each in ids] == [
        "pictures/val/red/02.png",
        "pictures/train/green/00.png",
        "pictures/val/green/00.png",
    ]


def test_bad_inputs_are_named_and_the_others_done(cli: Cli, run: str) -> None:
    Path("pictures/val/red/01.png").write_bytes(b"bad")
    result = cli("embed", "pictures/val/red", "absent.png", "--json", "-q")
    assert result.code == 6
    found = json.loads(result.out)
    assert [error["input"] for error in found["errors"]] == [
        "pictures/val/red/01.png",
        "absent.png",
    ]
    ids, made = features("embeddings.npz")
    assert ids == [f"pictures/val/red/0{n}.png" for n in (0, 2, 3)]
    assert made.shape == (3, 32)
    assert "pictures/val/red/01.png" in result.err


def test_an_interrupted_call_goes_on(cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("embed", "pictures/train", "--out", "whole.npz", "-q").code == 0
    monkeypatch.setattr(embedding, "SHARD_SIZE", 5)
    kept: list[int] = []
    save = FeatureShards.save

    def interrupting(self: FeatureShards, number: int, made: FeatureSet) -> None:
        kept.append(number)
        save(self, number, made)
        if len(kept) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FeatureShards, "save", interrupting)
    stopped = cli("embed", "pictures/train", "--out", "parts.npz")
    assert stopped.code == 75
    assert "resumes from parts.npz.parts" in stopped.err
    assert not Path("parts.npz").exists()
    assert cli("embed", "pictures/train", "--out", "parts.npz", "-q").code == 0
    assert kept == list(range(8))  # none twice
    (ids, found), (same, whole) = features("parts.npz"), features("whole.npz")
    assert ids == same
    close(found, whole, terms=TERMS)  # the last shard is a smaller batch
    assert not Path("parts.npz.parts").exists()


def test_parts_of_something_else_are_refused(cli: Cli, run: str) -> None:
    Path("x.npz.parts").mkdir()
    Path("x.npz.parts/manifest.json").write_text("{}")
    refused = cli("embed", "pictures/val/red", "--out", "x.npz")
    assert refused.code == 2
    assert "other inputs, weights or options" in refused.err


def test_usage_errors(cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("embed", "nothing-*.png").code == 2
    assert cli("embed", "pictures/val/red", "--from", "absent").code == 2
    for name, what in {"x.txt": "'.txt' is", "x.v2": "'.v2' is", "x": "a name without"}.items():
        refused = cli("embed", "pictures/val/red", "--out", name)
        assert refused.code == 2
        assert what in refused.err
        assert "npz, safetensors, parquet, csv" in refused.err
    assert cli("embed", "pictures/val/red", "--out", "x.npz", "--format", "parquet").code == 2
    assert cli("embed", "pictures/val/red", "-q").code == 0
    assert cli("embed", "pictures/val/red", "-q").code == 2  # it is there already
    assert cli("embed", "pictures/val/red", "-q", "--overwrite").code == 0
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    missing = cli("embed", "pictures/val/red", "--format", "parquet")
    assert missing.code == 2
    assert "maekit[parquet]" in missing.err
