"""Each plugin's recipe lives a whole life: trained, ended and resumed bit-equal, loaded, used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import maekit
from maekit.cli.app import main
from maekit.engine.events import Event, StepDone
from maekit.recipe.shipped import from_plugins

PICTURES = ["data.size=32", "data.train.count=16", "data.val.count=16"]
CLIPS = ["data.size=32", "data.train.count=8", "data.val.count=8", "data.train.frames=4"]
FEW = [
    "data.workers=0", "pretrain.steps=4", "pretrain.warmup.steps=1", "pretrain.batch.global=4",
    "pretrain.checkpoint={steps: 2}", "pretrain.validate={every: 4, samples: 8}",
    "pretrain.pictures=null",
]  # fmt: skip


class Life(NamedTuple):
    """A recipe, and what becomes of its runs."""

    recipe: str
    words: Sequence[str]
    inputs: str  # files that can be embedded: pictures, clips, or none (its data is its own)
    paints: bool  # whether what it predicts can be shown


LIVES = {
    "motion": Life("maekit-motion/motion_tiny", CLIPS, "clips", paints=False),
    "hdf5": Life("maekit-hdf5/hdf5_tiny", ["data.size=16"], "none", paints=True),
    "spectrogram": Life("maekit-hdf5/spectrogram_tiny", [], "none", paints=True),
    "hog": Life("maekit-features/hog_tiny", PICTURES, "pictures", paints=False),
    "teacher": Life("maekit-features/teacher_tiny", PICTURES, "pictures", paints=False),
    "hiera": Life("maekit-hiera/hiera_tiny", PICTURES, "pictures", paints=True),
    "hivit": Life("maekit-hiera/hivit_tiny", PICTURES, "pictures", paints=True),
    "ijepa": Life("maekit-latent/ijepa_tiny", PICTURES, "pictures", paints=False),
    "data2vec": Life("maekit-latent/data2vec_tiny", PICTURES, "pictures", paints=False),
    "convnext": Life("maekit-convnext/convnext_tiny", PICTURES, "pictures", paints=True),
    "crossmae": Life("maekit-crossmae/crossmae_tiny", PICTURES, "pictures", paints=True),
}


class Ended(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Work where recipes find their data, and where there is a picture and a teacher."""
    place = tmp_path_factory.mktemp("life")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save("picture.png")
        yield place


def make_ready(name: str) -> None:
    if name in ("hdf5", "spectrogram") and not Path("data/hdf5").exists():
        from maekit_hdf5.sample import write

        write(Path("data/hdf5"), rows=12)
    if name == "teacher":
        maekit.run("quickstart", overrides=[*PICTURES, *FEW], out="runs/teacher")


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(f"{run}/weights.safetensors")


@pytest.mark.parametrize("name", LIVES)
def test_a_whole_life(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    life = LIVES[name]
    installed = {each.metadata["Name"] for each in metadata.distributions()}
    distribution = life.recipe.partition("/")[0]
    if distribution not in installed and "CI" not in os.environ:  # CI installs all of them
        pytest.skip(f"{distribution} is not installed: pip install plugins/{distribution}")
    assert distribution in installed
    make_ready(name)
    words = [*life.words, *FEW]
    whole = maekit.run(life.recipe, overrides=words, out=f"{name}-whole")
    assert (whole["exit"], whole["steps"]) == (0, 4)

    def end(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise Ended

    with pytest.raises(Ended):
        maekit.run(life.recipe, overrides=words, out=f"{name}-halves", on_event=end)
    assert not Path(f"{name}-halves/weights.safetensors").exists()
    maekit.run(life.recipe, overrides=words, out=f"{name}-halves", resume=True)
    one, two = weights(f"{name}-whole"), weights(f"{name}-halves")
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []

    # It learns: the tensors of both halves of the model have moved since step 2.
    early = load_file(f"{name}-halves/checkpoints/step-00000002/model.safetensors")
    moved = {key.split(".")[0] for key in one if not torch.equal(one[key], early[key])}
    assert moved >= {"backbone", "decoder"}

    model = maekit.load(f"{name}-whole")
    frames, height, width = model.clip
    channels = len(model.statistics.mean)
    tokens = model.encode(torch.zeros(2, channels, frames, height, width))
    assert tokens.shape[::2] == (2, model.backbone.width)
    assert bool(tokens.isfinite().all())
    if life.inputs == "pictures":  # positions, and what hangs on the grid, are fitted to it
        wider = maekit.load(f"{name}-whole", clip=(1, 32, 64))
        assert wider.encode(torch.zeros(1, 3, 1, 32, 64)).shape[2] == model.backbone.width
        assert wider.grid.tokens == 2 * model.grid.tokens

    assert run_cli("report", f"{name}-whole", "--out", f"{name}.html") == 0
    file = {"pictures": "picture.png", "clips": clip_of(life), "none": None}[life.inputs]
    if file is not None:
        assert run_cli("embed", file, "--from", f"{name}-whole", "--out", f"{name}.npz") == 0
        with np.load(f"{name}.npz") as found:
            assert found["features"].shape == (1, model.backbone.width)
        capsys.readouterr()
        code = run_cli(
            "reconstruct", file, "--from", f"{name}-whole", "--out", f"{name}-out", "--json"
        )
        out, err = capsys.readouterr()
        if life.paints:
            assert code == 0
            assert json.loads(out)["items"][0]["error"] is None
        else:
            assert code == 3
            assert "does not predict pixels" in err


@pytest.mark.parametrize("words", [["--help"], ["plugins", "list"], ["recipes", "list"]])
def test_looking_around_imports_no_plugin(words: list[str]) -> None:
    code = (
        "import atexit, sys; from maekit.cli.app import main; "
        "atexit.register(lambda: print(sorted(m for m in sys.modules if m.startswith('maekit_') "
        "or m in ('torch', 'h5py', 'timm')), file=sys.stderr)); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "[]"
    if words[0] != "--help":
        assert "maekit-" in done.stdout


def test_every_recipe_of_a_plugin_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    recipes, problems = from_plugins()
    assert problems == ()
    assert recipes, "no plugin is installed: pip install plugins/maekit-*/"
    assert run_cli("recipes", "validate", *recipes) == 0, capsys.readouterr().err


def clip_of(life: Life) -> str | None:
    """Return one of the clips that the run has drawn."""
    if life.inputs != "clips":
        return None
    from maekit.data.files import cache_folder

    return str(next(cache_folder().glob("sample-videos/*/val/*/*.mp4")))


def run_cli(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)
