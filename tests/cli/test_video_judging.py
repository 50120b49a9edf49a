"""Judging videos: one length of clips, frames spread over a window, the view of a single view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_recipes import VIDEOS, Recipe, write_noise, write_recipe
from small_runs import losses, result_of

from maekit.engine.run_folder import read_lines
from maekit.evaluate import finetune

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

JUDGED: Recipe = {
    "name": "judged",
    "data": {"train": {"path": "clips", "stride": 2}, "val": {"path": "clips", "stride": 2}},
    "finetune": {
        "steps": 4,
        "batch": {"global": 4},
        "optimizer": {"name": "adamw", "base_lr": 0.1},
        "validate": {"every": 2},
    },
    "probe": {"kind": "knn", "knn": {"k": 3}},
}
SCRATCH = ("--from", "scratch")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two classes of three clips each, of different lengths."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        write_noise(Path("clips", "ab"[number % 2], f"{number}.mp4"), 13 + 2 * number)
    return write_recipe(tmp_path / "judged.yaml", VIDEOS, JUDGED)


def test_another_number_of_frames_in_data_val_is_refused(cli: Cli, recipe: str) -> None:
    sources = {"pretrain": (), "finetune": SCRATCH, "probe": SCRATCH}
    for verb, source in sources.items():
        refused = cli(verb, recipe, "data.val.frames=2", *source, "--out", "run")
        assert refused.code == 2
        assert "data.val.frames: expected 4, as data.train.frames, got 2" in refused.err
        own = f"{verb}.data={{val: {{frames: 6}}}}"
        overlaid = cli(verb, recipe, own, *source, "--out", "run")
        assert overlaid.code == 2
        assert "data.val.frames: expected 4, as data.train.frames, got 6" in overlaid.err
        assert not Path("run").exists()
    words = ("data.train.frames=2", "finetune.data={train: {frames: 6}}")
    done = cli("finetune", recipe, *words, *SCRATCH, "--out", "run", "-q")
    assert done.code == 0, done.err
    assert cli("finetune", "run/recipe.yaml", *SCRATCH, "--out", "again", "-q").code == 0
    assert losses("run") == losses("again")


def test_the_last_single_view_is_that_of_the_curve(
    cli: Cli, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An even number of clips and crops has no view in the middle."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    predict = finetune.predict

    def noting(*args: Any, **options: Any) -> Any:
        found = predict(*args, **options)
        seen.append((found.single, found.scores))
        return found

    monkeypatch.setattr(finetune, "predict", noting)
    views = ("finetune.views={clips: 4, crops: 2}", "finetune.views={clips: 1, crops: 1}")
    for number, words in enumerate(views):
        done = cli("finetune", recipe, words, *SCRATCH, "--out", f"run-{number}", "-q")
        assert done.code == 0, done.err
    many, one = seen[1], seen[3]  # of each run the second, at its end
    np.testing.assert_allclose(many[0], one[0], rtol=1e-5)
    np.testing.assert_array_equal(one[0], one[1])
    assert abs(many[1] - many[0]).max() > 1e-4
    curves = [
        [line["test"] for line in read_lines(Path(f"run-{number}/metrics.jsonl")) if "test" in line]
        for number in range(2)
    ]
    assert curves[0] == curves[1]
    assert result_of("run-0")["single_view"] == curves[0][-1]


def test_training_frames_may_be_spread(cli: Cli, recipe: str) -> None:
    runs = {"dense": (), "spread": ("finetune.data={train: {sampling: spread}}",)}
    for out, words in runs.items():
        done = cli("finetune", recipe, *words, *SCRATCH, "--out", out, "-q")
        assert done.code == 0, done.err
    assert losses("dense") != losses("spread")


def test_a_picture_is_spread_as_it_is(cli: Cli, two: str) -> None:
    for out, sampling in (("a", "dense"), ("b", "spread")):
        words = [f"data.{split}.sampling={sampling}" for split in ("train", "val")]
        done = cli("finetune", two, *words, *SCRATCH, "--out", out, "-q")
        assert done.code == 0, done.err
    assert losses("a") == losses("b")
    assert Path("a/predictions.jsonl").read_text() == Path("b/predictions.jsonl").read_text()
