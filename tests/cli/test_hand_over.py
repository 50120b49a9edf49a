"""Classifiers for people without maekit: what `weights convert` writes, and the printed Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_recipes import VIDEOS, Recipe, write_noise, write_recipe

from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")


def answers_of(cli: Cli, files: list[str], run: str) -> list[dict[str, float]]:
    """Ask maekit itself: probabilities by class, of each file."""
    words = ("predict", *files, "--from", run, "--views", "1x1", "--json", "-q", "--overwrite")
    done = cli(*words)
    assert done.code == 0, done.err
    return [
        {each["class"]: each["probability"], each["class_2"]: each["probability_2"]}
        for each in json.loads(done.out)["predictions"]
    ]


def handed_over(cli: Cli, run: str, path: str, to: str, files: list[str]) -> None:
    """Convert; run what was printed on files, and compare."""
    done = cli("weights", "convert", run, path, "--to", to)
    assert done.code == 0, done.err
    [apart] = re.findall(r"checked: its scores differ by (\S+) of the largest", done.out)
    assert float(apart) <= 1e-4
    code = "import" + done.out.partition("without maekit:\n\nimport")[2]
    assert "maekit" not in code
    assert len(code.splitlines()) < 25
    for file, expected in zip(files, answers_of(cli, files, run), strict=True):
        names: dict[str, Any] = {}
        exec(re.sub(r"photo\.jpg|clip\.mp4", file, code), names)
        found = dict(zip(names["classes"], names["scores"][0].tolist(), strict=True))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=0.02), (to, file)
    beside = Path(path, "README.md") if to == "hf" else Path(f"{path}.md")
    card = beside.read_text(encoding="utf-8")
    for text in ("outputs: ", "## Numbers", "top1", "which began from scratch", "```python"):
        assert text in card, text


@pytest.mark.parametrize(
    "formats",
    [
        {"timm": "m.safetensors"},
        pytest.param({"onnx": "m.onnx", "export": "m.pt2"}, marks=pytest.mark.slow),
    ],
)
def test_pictures(cli: Cli, two: str, formats: dict[str, str]) -> None:
    done = cli("finetune", two, "finetune.steps=4", *SCRATCH, "--out", "tuned", "-q")
    assert done.code == 0, done.err
    files = sorted(map(str, Path("pictures/val").rglob("*.png")))[::5]
    for to, path in formats.items():
        handed_over(cli, "tuned", path, to, files)
    if "onnx" in formats:
        about = json.loads(Path("m.onnx.json").read_text())
        assert (about["classes"], about["size"], about["fit"]) == (["l", "r"], [16, 24], "crop")


def test_pictures_encoder_alone(cli: Cli, two: str) -> None:
    done = cli("finetune", two, "finetune.steps=2", "~finetune.warmup", *SCRATCH,
               "--out", "tuned", "-q")  # fmt: skip
    assert done.code == 0, done.err
    refused = cli("weights", "convert", "tuned", "hf", "--to", "hf")
    assert refused.code == 3
    assert "use --to timm, onnx or export; or --encoder" in refused.err
    assert not Path("hf").exists()
    encoder = cli("weights", "convert", "tuned", "e.onnx", "--to", "onnx", "--encoder")
    assert encoder.code == 0, encoder.err
    assert "left out: the classifier's norm and head" in encoder.out
    assert cli("weights", "convert", "demo", "d.pt2", "--to", "export").code == 2
    for name in ("program", "program.pt", "program.onnx"):  # torch.export would not read these
        refused = cli("weights", "convert", "tuned", name, "--to", "export")
        assert (refused.code, "name it program.pt2" in refused.err) == (2, True), refused.err
        assert not Path(name).exists()


FIXED = ("model.backbone.positions=sincos-1d", "finetune.positions=fixed")  # as VideoMAE's
CLIPS: Recipe = {
    "name": "clips",
    "data": {"train": {"path": "clips", "stride": 2}, "val": {"path": "clips", "stride": 2}},
    "finetune": {"steps": 2, "batch": {"global": 4},
                 "optimizer": {"name": "adamw", "base_lr": 0.1}},
}  # fmt: skip


def test_clips_and_transformers(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for number, frames in enumerate((9, 15, 3, 40)):
        write_noise(Path("clips", "ab"[number % 2], f"{number}.mp4"), frames)
    recipe = write_recipe(tmp_path / "clips.yaml", VIDEOS, CLIPS)
    assert cli("finetune", recipe, *FIXED, *SCRATCH, "--out", "tuned", "-q").code == 0
    files = sorted(map(str, Path("clips").rglob("*.mp4")))
    handed_over(cli, "tuned", "videomae", "hf", files)
    config = json.loads(Path("videomae/config.json").read_text())
    assert config["architectures"] == ["VideoMAEForVideoClassification"]
    assert config["id2label"] == {"0": "a", "1": "b"}
    # And back: the same scores.
    again = cli("evaluate", "videomae", "--data", "clips", "--recipe", "tuned/recipe.yaml",
                "--out", "again", "-q")  # fmt: skip
    assert again.code == 0, again.err
    ours, theirs = (
        np.array([each["scores"] for each in read_lines(Path(run, "predictions.jsonl"))])
        for run in ("tuned", "again")
    )
    assert np.abs(ours - theirs).max() < 1e-3  # fc_norm's epsilon is 1e-5 there


def test_a_class_token_goes_to_transformers(cli: Cli, two: str) -> None:
    pytest.importorskip("transformers")
    square = ("data.size=16", "finetune.pool=cls", "finetune.norm=pretrained")
    done = cli("finetune", two, *square, "finetune.steps=2", *SCRATCH, "--out", "cls", "-q")
    assert done.code == 0, done.err
    files = sorted(map(str, Path("pictures/val").rglob("*.png")))[::8]
    handed_over(cli, "cls", "vit", "hf", files)
