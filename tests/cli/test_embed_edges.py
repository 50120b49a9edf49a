"""``maekit embed``: what is refused leaves nothing behind, and clips are cut as in training."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from PIL import Image

import maekit
from maekit.engine.lock import LOCK
from maekit.errors import Interrupted
from maekit.evaluate import feature_cache
from maekit.weights.safetensors_io import read_header, read_tensors, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("embed_here")


@pytest.fixture
def run(cli: Cli, labeled: str) -> str:
    """Pre-train shortly over the pictures of the working directory."""
    assert cli("pretrain", labeled, "-q", "pretrain.steps=2", "--out", "run").code == 0
    return "run"


@pytest.mark.parametrize(
    "words",
    [["--layer", "99"], ["--device", "cuda:77"], ["--from", "timm:nothing"], ["--out", "a.npz"]],
)
def test_what_is_refused_is_no_obstacle_to_the_next_call(
    cli: Cli, run: str, words: list[str]
) -> None:
    Path("a.npz").mkdir()  # a folder is no file to write
    asked = [*words, *([] if "--from" in words else ["--from", run])]
    out = [] if "--out" in words else ["--out", "x.npz"]
    refused = cli("embed", "pictures/val/red", *asked, *out, "--overwrite")
    assert refused.code == 2, refused.err
    assert not list(Path().glob("*.parts"))
    assert cli("embed", "pictures/val/red", "--from", run, "--out", "x.npz", "-q").code == 0


def test_weights_that_are_no_numbers_are_an_error(cli: Cli, run: str) -> None:
    tensors = read_tensors(Path(run, "weights.safetensors"))
    header = read_header(Path(run, "weights.safetensors"))
    name = "backbone.transformer.1.mlp.fc1.weight"
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    write_weights(Path("lost.safetensors"), tensors, header)
    refused = cli("embed", "pictures/val/red", "--from", "lost.safetensors", "--out", "x.npz")
    assert refused.code == 4
    assert f"lost.safetensors: {name} holds NaN or infinity" in refused.err
    assert not list(Path().glob("x.npz*"))


def test_a_picture_with_too_many_missing_pixels_is_left_out(cli: Cli, run: str) -> None:
    pixels = np.full((20, 30), 0.5, np.float32)
    Image.fromarray(pixels).save("good.tif")
    pixels[10] = np.nan  # one row of 20; single pixels are filled
    Image.fromarray(pixels).save("lost.tif")
    made = cli("embed", "lost.tif", "good.tif", "--from", run, "--json", "-q")
    assert made.code == 6
    errors = json.loads(made.out)["errors"]
    assert [each["input"] for each in errors] == ["lost.tif"]
    with np.load("embeddings.npz") as file:
        assert file["ids"].tolist() == ["good.tif"]
        assert np.isfinite(file["features"]).all()


HOLDER = """
import sys
from pathlib import Path
from maekit.engine.lock import held_lock
held = held_lock(Path(sys.argv[1]))
held.__enter__()
print("held", flush=True)
sys.stdin.read()
"""


def test_two_calls_do_not_write_one_file(cli: Cli, run: str) -> None:
    words = ("embed", "pictures/val/red", "--from", run, "--out", "x.npz", "-q")
    Path("x.npz.parts").mkdir()
    command = [sys.executable, "-c", HOLDER, f"x.npz.parts/{LOCK}"]
    with Popen(command, stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = cli(*words)
        holder.communicate()
    assert refused.code == 7
    assert "in use by" in refused.err
    assert cli(*words).code == 0


def test_clips_are_cut_as_the_run_cut_them(cli: Cli, labeled: str) -> None:
    """Pictures are resized by the verb's own interpolation; frames are taken at its stride."""
    for name in ("bicubic", "bilinear"):
        crops = f"pretrain.augment={{name: random-resized-crop, interpolation: {name}}}"
        words = (crops, "pretrain.steps=2", "-q")
        assert cli("pretrain", labeled, *words, "--out", name).code == 0
    picture = Image.open("pictures/val/red/00.png")
    box = (0, (picture.height - 20) / 2, 30, (picture.height + 20) / 2)
    for name, how in (("bicubic", 3), ("bilinear", 2)):
        out = ("--from", name, "--out", f"{name}.npz", "-q")
        assert cli("embed", "pictures/val/red/00.png", *out).code == 0
        small = picture.resize((24, 16), how, box=box)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None, :, None] / 255
        model = maekit.load(name)
        with torch.inference_mode():
            expected = model.encode(model.normalize(pixels))[:, 0].numpy()
        with np.load(f"{name}.npz") as file:
            close(file["features"], expected, terms=vit_terms(192, width=32, depth=2, tokens=7))
            assert json.loads(str(file["maekit"]))["interpolation"] == name


def test_a_probes_run_has_its_own_sampling(cli: Cli, labeled: str) -> None:
    """The overlay of the verb that wrote the weights counts, not that of pre-training."""
    paper = (
        "probe.protocol=paper",
        "probe.steps=2",
        "probe.warmup.steps=0",
        "probe.batch.global=8",
    )
    more = ("probe.data={val: {stride: 3}}", "probe.views.interpolation=bilinear")
    words = (*paper, *more, "--from", "scratch", "--out", "judged", "-q")
    assert cli("probe", labeled, *words).code == 0
    asked = ("--from", "judged", "--pool", "mean", "--out", "x.npz", "-q")
    assert cli("embed", "pictures/val/red", *asked).code == 0
    with np.load("x.npz") as file:
        about = json.loads(str(file["maekit"]))
    assert (about["stride"], about["interpolation"]) == (3, "bilinear")


def test_parts_whose_output_is_written_are_swept(
    cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed between its last write and the removal of its parts."""
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache.FeatureShards, "remove", lambda *_: None)
        assert cli("embed", "pictures/val/red", "--out", "x.npz", "-q").code == 0
    assert Path("x.npz.parts/part-00000.npz").is_file()
    Path(".partial-x.npz-0123456789ab").touch()  # and one in the middle of that write
    Path(".partial-x.npz.parts-0123456789ab").mkdir()
    assert cli("embed", "pictures/val", "--out", "x.npz", "-q").code == 2
    assert not Path("x.npz.parts").exists()
    assert cli("embed", "pictures/val", "--out", "x.npz", "-q", "--overwrite").code == 0
    assert not [*Path().glob(".partial-*"), *Path().glob("*.parts")]


def test_parts_that_are_newer_than_the_output_are_gone_on_with(
    cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("embed", "pictures/val/red", "--out", "x.npz", "-q").code == 0
    words = ("embed", "pictures/val", "--out", "x.npz", "-q", "--overwrite")
    with monkeypatch.context() as patch:
        patch.setattr("maekit.cli.embed.write", interrupt)
        assert cli(*words).code == 75
    made = Path("x.npz.parts/part-00000.npz").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache.FeatureShards, "save", interrupt)  # none is made again
        assert cli(*words).code == 0
    assert Path("x.npz").stat().st_mtime_ns > made
    assert not Path("x.npz.parts").exists()


def interrupt(*_: object) -> None:
    raise Interrupted("interrupted")


def test_parts_that_cannot_be_removed_end_nothing(
    cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(feature_cache, "remove_folder", busy)
    done = cli("embed", "pictures/val/red", "--out", "x.npz")
    assert done.code == 0
    assert "x.npz.parts could not be removed: Device or resource busy" in done.err
