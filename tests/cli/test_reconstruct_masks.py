"""``maekit reconstruct``: what is hidden, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from painted_models import draw_picture, files, items, save_model
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_cannot_be_is_refused_before_anything_is_written(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    save_model(Path("encoder.safetensors"), decoder=False)
    draw_picture(Path("a.png"))
    Path("text.png").write_text("not one")
    words = ("a.png", "--from", "w.safetensors", "--out", "o")
    refused = [
        (2, "no file matches", ("none*.png", "--from", "w.safetensors", "--out", "o")),
        (3, "no decoder weights in this file", ("a.png", "--from", "encoder.safetensors")),
        (2, "no such run or weights", ("a.png", "--from", "gone")),
        (2, "is not a run", (*words, "--like-training", "3")),
        (2, "does not go with it", (*words, "--mask", "a.png", "--ratio", "0.5")),
        (2, "does not go with it", (*words, "--like-training", "3", "--whole")),
        (2, "steps count from 1", (*words, "--like-training", "0")),
        (2, "not a list of numbers", (*words, "--ratio", "half")),
        (2, "unknown masker", (*words, "--masker", "nosuch")),
        (2, "ratio", (*words, "--masker", "grid:0.5")),
        (2, "hides 0 of 24", (*words, "--masker", "frame:0.5")),
        (6, "--mask text.png: is not a picture", (*words, "--mask", "text.png")),
        (2, "not a masker", (*words, "--masker", "")),
        (2, "not a masker", (*words, "--masker", ":0.5")),
        (2, "not a masker", (*words, "--masker", "random:")),
        (2, "not a masker", (*words, "--masker", "random:ratio=0.5,ratio=0.6")),
        (2, "expected a number", (*words, "--masker", "random:ratio")),
        (2, "has a ratio already", (*words, "--masker", "random:0.5", "--ratio", "0.6")),
    ]
    for code, text, arguments in refused:
        done = cli("reconstruct", *arguments)
        assert (done.code, text in done.err) == (code, True), (arguments, done.err)
    assert not Path("o").exists()
    Path("full").mkdir()
    Path("full/kept.txt").write_text("mine")
    assert cli("reconstruct", *words[:3], "--out", "full").code == 2
    assert files("full") == ["kept.txt"]


def test_like_training_hides_what_the_step_hid(cli: Cli, small: str) -> None:
    from maekit.engine.pretrain import PretrainJob
    from maekit.recipe.load import load
    from maekit.registry import resolve
    from maekit.visualize import reconstruct

    assert cli("pretrain", small, "pretrain.steps=4", "--out", "run", "-q").code == 0
    draw_picture(Path("a.png"))
    draw_picture(Path("b.png"), 1)
    seen: list[np.ndarray] = []
    paint = reconstruct.paint_row

    def watched(model: Any, views: Any, row: Any) -> Any:
        seen.append(row.passes[0].hidden)
        return paint(model, views, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "paint_row", watched)
        done = cli("reconstruct", "a.png", "b.png", "--from", "run", "--like-training", "3")
    assert done.code == 0, done.err
    recipe = resolve(load(small, ["pretrain.steps=4"]), "pretrain")
    job = PretrainJob(recipe, torch.device("cpu"), lambda _: None)
    job.state.step = 2
    with job.batches() as batches:
        [batch] = next(iter(batches))
    assert batch.hidden is not None
    assert np.array_equal(np.stack(seen), batch.hidden[:2])
    done = cli("reconstruct", "a.png", "--from", "run", "--like-training", "5")
    assert done.code == 2
    assert "no training step 5: the run has 4" in done.err


def test_a_row_for_each_ratio_and_every_patch_once(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("a.png"))
    words = ("reconstruct", "a.png", "--from", "w.safetensors", "--json")
    sheet = cli(*words, "--ratio", "0.5,0.75", "--out", "sheet")
    assert [each["hidden"] for each in items(sheet)] == [0.5, 0.75]
    assert len({each["output"] for each in items(sheet)}) == 1
    one = cli(*words, "--ratio", "0.75", "--out", "one")
    assert items(one)[0]["psnr"] == items(sheet)[1]["psnr"]
    assert Image.open("sheet/a.png").height > 1.5 * Image.open("one/a.png").height
    [whole] = items(cli(*words, "--whole", "--out", "whole"))
    assert whole["hidden"] == 1
    table = cli("reconstruct", "a.png", "--from", "w.safetensors", "--ratio", "0.5,0.75").out
    assert [line.split()[2] for line in table.splitlines()] == ["hidden", "0.50", "0.75"]


def test_options_of_maskers_may_be_lists(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("a.png"))
    masker = "grid:cell=[2, 3]"
    [item] = items(
        cli("reconstruct", "a.png", "--from", "w.safetensors", "--masker", masker, "--json")
    )
    assert item["hidden"] == pytest.approx(5 / 6, abs=1e-3)


def test_a_mask_of_ones_own_and_where_the_encoder_looks(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("a.png"))
    white = np.zeros((16, 24), np.uint8)
    white[:8] = 255
    Image.fromarray(white).save("mask.png")
    words = ("reconstruct", "a.png", "--from", "w.safetensors", "--json")
    [item] = items(cli(*words, "--mask", "mask.png", "--out", "mask"))
    assert item["hidden"] == 0.5
    assert cli(*words, "--attention", "--out", "attention").code == 0
    cli(*words, "--out", "plain")
    assert Image.open("attention/a.png").width > Image.open("plain/a.png").width
