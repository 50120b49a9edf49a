"""``maekit recipes new`` and ``copy``: recipes of one's own; ``maekit plugins show``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from small_recipes import write_noise
from small_runs import result_of

from maekit.cli.new_recipe import look, written
from maekit.recipe.load import load, read
from maekit.recipe.shipped import shipped
from maekit.registry import listed, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

MODELINE = "# yaml-language-server: $schema=recipe.schema.json\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(folder: Path, count: int, *, mode: str = "RGB", size: tuple[int, int] = (40, 32)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        kind = np.uint16 if mode == "I;16" else np.uint8
        pixels = rng.integers(0, np.iinfo(kind).max, shape).astype(kind)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def made(cli: Cli, source: str, *words: str) -> str:
    done = cli("recipes", "new", source, *words)
    assert done.code == 0, done.err
    recipe = Path(done.out.strip())
    assert resolve(read(recipe)).name == recipe.stem
    return recipe.read_text(encoding="utf-8")


def test_labeled_pictures(cli: Cli) -> None:
    for name in ("cat", "dog"):
        draw(Path("my photos") / name, 5)
    done = cli("recipes", "new", "my photos")
    assert done.out == "my-photos.yaml\n"
    for verb in ("pretrain", "finetune", "probe"):
        assert f"next:     maekit {verb} my-photos.yaml\n" in done.err
    text = Path("my-photos.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"{MODELINE}# 10 pictures, 40x32, 3 channels, uint8; 2 classes of 5.\n")
    recipe = resolve(read("my-photos.yaml"))
    assert (recipe.name, recipe.data.size, recipe.data.channels) == ("my-photos", 32, 3)
    assert recipe.data.val is not None
    assert recipe.data.val.held_out is not None
    assert recipe.data.val.held_out.split == 0.2
    assert None not in (recipe.pretrain, recipe.finetune, recipe.probe)
    again = cli("recipes", "new", "my photos")
    assert (again.code, "--overwrite" in again.err) == (2, True)
    assert "name: other\n" in made(cli, "my photos", "--out", "other.yaml")


def test_without_labels_only_what_works_is_printed(cli: Cli) -> None:
    draw(Path("photos"), 6)
    done = cli("recipes", "new", "photos")
    assert "maekit pretrain photos.yaml" in done.err
    assert "finetune" not in done.err
    recipe = resolve(read("photos.yaml"))
    assert (recipe.finetune, recipe.probe) == (None, None)
    text = Path("photos.yaml").read_text(encoding="utf-8")
    signs = [line for line in text.splitlines() if line.startswith("# finetune:")]
    assert signs
    assert "No labels were found" in text


def test_folders_that_say_what_is_held_out(cli: Cli) -> None:
    for part in ("train", "test", "valid"):
        for name in ("a", "b"):
            draw(Path("set") / part / name, 2)
    text = made(cli, "set")
    assert "train: {name: images, path: set/train}" in text
    assert "val: {name: images, path: set/valid}" in text
    assert "2 classes of 2." in text  # not those of train and test


def test_many_channels_and_depths(cli: Cli) -> None:
    draw(Path("gray"), 3, mode="L")
    draw(Path("deep"), 3, mode="I;16")
    Path("bands").mkdir()
    for number in range(3):
        np.save(f"bands/{number}.npy", np.zeros((24, 24, 8), np.float32))
    found = {}
    for name in ("gray", "deep", "bands"):
        made(cli, name)
        data = resolve(read(f"{name}.yaml")).data
        found[name] = (data.channels, data.stats, data.size)
    assert found == {"gray": (1, "imagenet", 32), "deep": (1, "auto", 32), "bands": (8, "auto", 24)}


def test_a_list_and_what_is_left_out(cli: Cli) -> None:
    draw(Path("photos"), 4)
    Path("photos/notes.txt").write_text("x", encoding="utf-8")
    Path("photos/bad.png").write_bytes(b"\x89PNG no picture")
    rows = "".join(f"photos/{n}.png,{'ab'[n % 2]}\n" for n in range(4))
    Path("list.csv").write_text("path,label\n" + rows, encoding="utf-8")
    assert "path: list.csv}" in made(cli, "list.csv")
    done = cli("recipes", "new", "photos")
    assert "left out: 1 .txt file" in done.err
    assert "1 of 5 looked at cannot be read, as " in done.err


def test_nothing_to_look_at(cli: Cli) -> None:
    Path("empty").mkdir()
    draw(Path("mixed"), 1)
    Path("mixed/a.mp4").touch()
    assert cli("recipes", "new", "empty").code == 6
    assert cli("recipes", "new", "nothing").code == 6
    mixed = cli("recipes", "new", "mixed")
    assert (mixed.code, "images or videos" in mixed.err) == (2, True)
    assert not list(Path.cwd().glob("*.yaml"))


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_every_amount_makes_a_model(cli: Cli, kind: str) -> None:
    if kind == "images":
        draw(Path("data"), 4, size=(300, 260))
    else:
        for number in range(4):
            write_noise(Path(f"data/{number}.mp4"), 40)
    seen = look("data")
    for samples, frames in ((4, 8), (9_000, 8), (200_000, 16)):
        text = written(replace(seen, samples=samples), "data")
        Path("data.yaml").write_text(text, encoding="utf-8")
        valid = cli("recipes", "validate", "data.yaml")
        assert valid.code == 0, (valid.err, text)
        recipe = resolve(read("data.yaml"))
        assert recipe.data.train.frames == (1 if kind == "images" else frames)


def test_what_it_writes_runs(cli: Cli) -> None:
    for name in ("cat", "dog"):
        draw(Path("photos") / name, 5)
    made(cli, "photos")
    quick = ("-q", "data.workers=0", "data.size=16")
    steps = ("pretrain.steps=2", "~pretrain.warmup", "pretrain.pictures=null")
    for words in (("pretrain", *steps), ("finetune", "finetune.epochs=1"), ("probe",)):
        done = cli(words[0], "photos.yaml", *words[1:], *quick)
        assert done.code == 0, done.err
    assert result_of("runs/photos/3")["val_samples"] == 2


def test_a_copy_is_named_by_its_file(cli: Cli) -> None:
    for source in ("quickstart", "mae_st_k400", "compare_beit", "videomae_k400_l"):
        assert cli("recipes", "copy", source, "my copy.yaml", "--overwrite").code == 0
        text = Path("my copy.yaml").read_text(encoding="utf-8")
        original = shipped()[source].read_text(encoding="utf-8")
        assert text.startswith(MODELINE)
        assert load("my copy.yaml").recipe.name == "my-copy"
        kept = [line for line in original.splitlines() if not line.startswith("name:")]
        assert [line for line in text.splitlines() if line in kept] == kept
        named = load("my copy.yaml").data | {"name": "x"}
        assert named == load(source).data | {"name": "x"}


def test_parts_show_their_options(cli: Cli) -> None:
    for word in ("masker", "maskers"):
        shown = cli("plugins", "show", word, "block")
        assert shown.code == 0
        assert "rectangles" in shown.out
        assert "ratio" in shown.out
        assert "hidden fraction" in shown.out
    assert "path" in cli("plugins", "show", "dataset", "videos").out
    as_json = json.loads(cli("plugins", "show", "target", "norm-pixel", "--json").out)
    assert as_json["kind"] == "targets"
    assert as_json["options"]["properties"]
    assert "did you mean 'block'?" in cli("plugins", "show", "masker", "blok").err
    assert cli("plugins", "show", "mask", "block").code == 2


def test_every_part_can_be_shown(cli: Cli) -> None:
    for each in listed():
        if each.distribution == "maekit":
            assert cli("plugins", "show", each.kind, each.name).code == 0
