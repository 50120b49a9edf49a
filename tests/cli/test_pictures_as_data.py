"""``data.fit`` and ``data.range``, from the command line to weights and back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from PIL import Image
from small_recipes import IMAGES, write_recipe

import maekit
from maekit.engine.batches import open_dataset, with_known_range
from maekit.engine.build import header_of
from maekit.engine.events import Note
from maekit.layers import Statistics
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.weights.header import Header
from maekit.weights.safetensors_io import header_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

OWN = {"data": {"channels": 1}, "pretrain": {"augment": {"name": "none"}}}
TERMS = vit_terms(8 * 8, width=32, depth=2, tokens=7)


def recipe(top: Path, arrays: dict[str, list[np.ndarray]]) -> str:
    """Write sets of arrays, PNGs where they are 16-bit, and the recipe that reads them."""
    for split, each in arrays.items():
        folder = top / "pictures" / split
        folder.mkdir(parents=True, exist_ok=True)
        for number, array in enumerate(each):
            if array.dtype == np.uint16:
                Image.fromarray(array).save(folder / f"{number:02}.png")
            else:
                np.save(folder / f"{number:02}.npy", array)
    return str(write_recipe(top / "own.yaml", IMAGES, OWN))


def arrays_of(low: int, high: int, kind: str, *, shape: tuple[int, int] = (16, 24)) -> dict:
    rng = np.random.default_rng(0)
    made = [rng.integers(low, high, shape, endpoint=True).astype(kind) for _ in range(12)]
    made[3].flat[:2] = low, high
    return {"train": made[:8], "val": made[8:]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("embed_here")
@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_a_range_goes_from_data_to_weights_and_to_any_file(
    kind: str, cli: Cli, tmp_path: Path
) -> None:
    low, high = (-1000 if kind == "int16" else 90), 3021
    arrays = arrays_of(low, high, kind)
    path = recipe(tmp_path, arrays)
    done = cli("pretrain", path, "-q", "pretrain.steps=2", "data.range=auto", "--out", "run")
    assert done.code == 0, done.err
    log = Path("run/log.txt").read_text()
    assert f"data.range: auto is {low:g} to {high:g}, in 8 samples looked at" in log
    # Any file is then read as the set was; what is beyond the range is at its end.
    file = "pictures/val/00.png" if kind == "uint16" else "pictures/val/00.npy"
    beyond = arrays["val"][0].astype(np.float64)
    made = cli("embed", file, "--from", "run", "--out", "one.npz")
    assert made.code == 0, made.err
    model = maekit.load("run")
    pixels = torch.from_numpy(np.clip((beyond - low) / (high - low), 0, 1)).float()
    with torch.inference_mode():
        tokens = model.encode(model.normalize(pixels[None, None, None]))
    with np.load("one.npz") as found:
        # To the nearest of 65,536 steps.
        expected = tokens[:, 0].numpy()
        np.testing.assert_allclose(found["features"], expected, atol=2e-3)
        about = json.loads(str(found["maekit"]))
    assert about["range"] == [low, high]


def looked_at(path: str, *words: str, weights: object = None) -> tuple[object, str]:
    """Return what becomes of data.range, and what is said of it."""
    notes: list[Note] = []
    asked = resolve(load(Path(path), list(words)), "pretrain")
    dataset = open_dataset(asked.data.train, "data.train")
    known = with_known_range(asked, dataset, notes.append, weights)
    return known.data.range_, " ".join(note.text for note in notes)


def test_what_is_said_of_a_range(tmp_path: Path) -> None:
    path = recipe(tmp_path, arrays_of(0, 4095, "uint16"))
    assert looked_at(path, "data.range=[0,4095]") == ((0, 4095), "")
    assert looked_at(path, "data.range=[0,16380]") == ((0, 16380), "")
    span, said = looked_at(path)
    assert span is None
    assert "use 6.2% of the range from 0 to 65535; data.range: auto" in said
    span, said = looked_at(path, "data.range=[-1e5, 1e5]")
    assert span == (-1e5, 1e5)
    assert "use 2.0% of the range" in said
    span, said = looked_at(path, "data.range=[5000, 6000]")
    assert "use 0.0% of the range" in said
    for number in range(8):
        pixels = np.full((16, 24), 9 * number, np.uint8)
        Image.fromarray(pixels).save(f"pictures/train/{number:02}.png")
    assert looked_at(path) == (None, "")
    for words, expected in (("data.range=auto", None), ("data.range=[1,2]", (1, 2))):
        span, said = looked_at(path, words)
        assert span == expected
        assert "does nothing: all pixels looked at are 8-bit" in said


def test_weights_hand_their_range_on(tmp_path: Path) -> None:
    path = recipe(tmp_path, arrays_of(0, 4095, "uint16"))
    header = header_of(resolve(load(Path(path), []), "pretrain"), Statistics((0.5,), (0.2,)))
    trained = header.model_copy(update={"range": (0.0, 1000.0)})
    for words in ((), ("data.range=auto",)):
        span, said = looked_at(path, *words, weights=trained)
        assert span == (0, 1000)
        assert "as of the weights" in said
    assert looked_at(path, "data.range=[0,4095]", weights=trained)[0] == (0, 4095)
    assert looked_at(path, "data.range=auto", weights=header)[0] == (0, 4095)
    assert "range" not in header_text(header)  # as files from before there were ranges
    assert Header.model_validate_json(header_text(trained)).range == (0, 1000)


@pytest.mark.parametrize("kind", ["int16", "uint32", "float32"])
def test_pixels_without_a_white_are_refused_with_what_they_are(
    kind: str, cli: Cli, tmp_path: Path
) -> None:
    path = recipe(tmp_path, arrays_of(7, 3021, kind))
    done = cli("pretrain", path, "pretrain.steps=1")
    assert done.code == 6
    assert re.search(r"here they go from \d+ to \d+", done.err)
    assert "data.range" in done.err


def test_a_range_that_is_none_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = recipe(tmp_path, arrays_of(5, 5, "uint16"))
    backwards = cli("pretrain", path, "data.range=[9, 3]")
    assert backwards.code == 2
    assert "lower one first" in backwards.err
    constant = cli("pretrain", path, "data.range=auto")
    assert constant.code == 6
    assert "all pixels of 8 samples are 5" in constant.err


@pytest.mark.usefixtures("embed_here")
def test_what_is_cut_is_told_and_kept_by_another_fit(cli: Cli, tmp_path: Path) -> None:
    wide = arrays_of(0, 65535, "uint16", shape=(16, 60))
    path = recipe(tmp_path, wide)
    for fit in ("crop", "stretch"):
        words = ("-q", "pretrain.steps=1", f"data.fit={fit}", "--out", fit)
        assert cli("pretrain", path, *words).code == 0
        log = Path(fit, "log.txt").read_text()
        result = json.loads(Path(fit, "result.json").read_text())
        told = {"data.train": {"samples cut by more than a tenth": 8}}
        told["data.val"] = {"samples cut by more than a tenth": 4}
        assert result["left_out"] == (told if fit == "crop" else {})
        assert ("is 16x60, 60% of it is cut away" in log) == (fit == "crop")
    made = cli("embed", "pictures/val", "--from", "stretch", "--out", "stretch.npz")
    assert made.code == 0, made.err
    with np.load("stretch.npz") as found:
        stretched = found["features"]
    model = maekit.load("stretch")
    picture = Image.fromarray(wide["val"][0].astype(np.float32))
    small = np.asarray(picture.resize((24, 16), Image.Resampling.BICUBIC)).clip(0, 65535)
    pixels = torch.from_numpy(np.rint(small) / 65535)[None, None, None]
    with torch.inference_mode():
        close(stretched[:1], model.encode(model.normalize(pixels))[:, 0], terms=TERMS)


def test_several_crops_of_all_of_a_sample_are_refused(cli: Cli, tmp_path: Path) -> None:
    path = recipe(tmp_path, arrays_of(0, 9, "uint16"))
    done = cli(
        "finetune", path, "finetune={steps: 1, views: {crops: 3}}", "data.fit=pad", "--from", "x"
    )
    assert done.code == 2
    assert "finetune.views.crops" in done.err
